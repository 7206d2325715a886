"""Run code nobody trusts, and answer before the interpreter alone would have started."""

__version__ = "0.1.0"
