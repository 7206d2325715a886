"""Repairs inherited process state before anything else runs."""

from __future__ import annotations

import os
import signal
import sys


def repair_inherited_state() -> None:
    """Open closed standard streams, and restore SIGCHLD.

    Otherwise the next file we open would become standard output, and a program's output would go to the launcher. With SIGCHLD
    ignored, children could not be waited for. Source: wait(2), NOTES.
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
