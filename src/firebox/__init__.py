"""Run untrusted code in sandboxes, faster than the bare interpreter starts."""

__version__ = "0.1.0"
