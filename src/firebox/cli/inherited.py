"""What a command finds as its caller left it, put in order before anything else."""

from __future__ import annotations

import os
import signal
import sys


def put_in_order() -> None:
    """Open the standard streams that are closed, and have the ends of children reported.

    What we open would else take the number of a closed stream: a program's output would go to the launcher. Without reports
    (SIGCHLD ignored) nobody could wait for a child. Source: wait(2), NOTES.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
