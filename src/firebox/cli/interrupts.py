"""Ctrl-C during startup, with nothing to clean up: ends the process like one without a signal handler."""

from __future__ import annotations

import signal


def end_at_interrupts() -> None:
    """Restore the default action of SIGINT. If it is ignored, as in background jobs of scripts, it stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_at_interrupts() -> None:
    """Raise KeyboardInterrupt on SIGINT again: from here on there is something to clean up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
