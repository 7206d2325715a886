"""The state of the process while a command starts: standard streams, signals, logs."""

from __future__ import annotations

import os
import signal
import sys


def prepare_process() -> None:
    """Repair inherited state before anything else runs, and let Ctrl-C end the process while there is nothing to clean up.

    With a closed standard stream the next file we open would become standard output, and a program's output would go to the
    launcher. With SIGCHLD ignored, children could not be waited for. Source: wait(2), NOTES. An ignored SIGINT, as in background
    jobs of scripts, stays ignored.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - open for the life of the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_at_interrupts() -> None:
    """Raise KeyboardInterrupt on SIGINT again: from here on there is something to clean up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def set_up_logs_later(level: str, format_: str) -> None:
    """Call `logs.set_up_logs` when the first line is logged: for commands that must start fast and rarely log."""
    from firebox.engine.log import set_up_later

    def set_up() -> None:
        from firebox.server.logs import set_up_logs

        set_up_logs(level, format_)

    set_up_later(set_up)
