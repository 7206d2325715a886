"""Start a launcher process without an event loop, so that it creates its first sandbox while a command still imports modules.

This module imports as little as possible, so it starts the process without the module `subprocess`.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping

TYPE_CHECKING = False  # type checkers know the name; importing `typing` would double the cost of this module
if TYPE_CHECKING:
    from firebox.sandbox.plan.plans import Plans
    from firebox.sandbox.spec import SandboxSpec

FIRST = 1
"""The number of the first sandbox."""

LAUNCHER = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "firebox-launcher")
"""The native program, compiled from native/ when Firebox is installed."""

_LINK = 3


class StartedLauncher:
    """A launcher process and our end of its link."""

    def __init__(self, pid: int, link: socket.socket, run_as: tuple[int, int] | None = None) -> None:
        self.pid = pid
        self.link = link
        self.pidfd = os.pidfd_open(pid)
        """Readable once the process has ended."""
        self.plans: Plans | None = None
        """Its plans; known once it is configured."""
        self.first: tuple[SandboxSpec, socket.socket] | None = None
        """The spec of sandbox `FIRST` and our end of its link, once requested."""
        self.prepared: list[int] = []
        """Numbers of the preparations for that sandbox."""
        self.first_is_smoke_test = False
        """Whether that sandbox is closed without a command."""
        self._run_as = run_as
        self._has_ended = False

    def configure(self, *, uid_base: int, hooks: Mapping[str, str]) -> None:
        """Send the settings. Raises: SandboxFailure, OSError."""
        from firebox.sandbox.plan.plans import Plans
        from firebox.sandbox.protocol import messages

        self.plans = Plans(self.pid, uid_base=uid_base, hooks=hooks, run_as=self._run_as)
        try:
            messages.send(self.link, *self.plans.configuration())
        finally:
            self.plans.forget_lock()

    def request_first(self, first: SandboxSpec, *, is_smoke_test: bool = False) -> None:
        """Request the first sandbox, for the process that takes over the launcher.

        is_smoke_test: the sandbox only shows that this host can create one, and is then closed. Raises: OSError.
        """
        from firebox.sandbox.protocol import messages

        assert self.plans is not None  # noqa: S101 - it has been configured
        for preparation in self.plans.prepare(first):
            messages.send(self.link, preparation.message())
            self.prepared.append(preparation.number)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            messages.send(self.link, self.plans.make(FIRST, first), (theirs.fileno(),))
        self.first = first, ours
        self.first_is_smoke_test = is_smoke_test

    def has_ended(self) -> bool:
        """Return whether the process has ended; reap it."""
        if not self._has_ended and os.waitpid(self.pid, os.WNOHANG) != (0, 0):
            self._has_ended = True
        return self._has_ended

    def wait(self) -> None:
        """Wait for the end of the process; reap it."""
        if not self._has_ended:
            os.waitpid(self.pid, 0)
            self._has_ended = True

    def kill(self) -> None:
        """Kill the process and wait until it is gone."""
        if not self.has_ended():
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.wait()

    def end(self) -> None:
        """Close the link, which ends the process, and wait until it is gone."""
        self.link.close()
        if self.pidfd >= 0:
            self.wait()
            self.close()

    def close(self) -> None:
        """Release a process that has ended, and its link."""
        self.link.close()
        if self.first is not None:
            self.first[1].close()
        if self.plans is not None:
            self.plans.forget_cgroups()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def start_launcher(*, run_as: tuple[int, int] | None = None) -> StartedLauncher:
    """Start the process. run_as: (uid, gid) of another user, only for root. Raises: OSError."""
    words = ["firebox-launcher"]  # no path: programs see it as the command line of their PID 1
    if run_as is not None:
        words.append(f"{run_as[0]}:{run_as[1]}")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            pid = os.posix_spawn(
                LAUNCHER,
                words,
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), _LINK),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
                setsigdef=[signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ],
            )
        except BaseException:
            ours.close()
            raise
    return StartedLauncher(pid, ours, run_as)
