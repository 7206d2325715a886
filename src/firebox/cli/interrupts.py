"""Ctrl-C while a command starts and has nothing to put in order: it ends as a program ends that never heard of signals."""

from __future__ import annotations

import signal


def end_at_interrupts() -> None:
    """Have SIGINT end this process without a word. One that is ignored, as in the background of a script, stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_at_interrupts() -> None:
    """Have SIGINT raise KeyboardInterrupt again: from here on there is something to put in order."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
