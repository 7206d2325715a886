"""The start of a launcher process, without an event loop: a command can have it load while its own modules load.

For that this module imports the least it can, which is why the process is started without the standard library's `subprocess`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Mapping

TYPE_CHECKING = False  # type checkers know the name; to load `typing` would be half of what this module costs
if TYPE_CHECKING:
    from firebox.sandbox.spec import SandboxSpec

FIRST = 1
"""The number of the first sandbox."""

_LINK = 3
_PROGRAM = f"""
import gc, os, sys
os.closerange({_LINK + 1}, 1 << 20)
os.chdir("/")
gc.disable()
sys.path.insert(0, sys.argv[1])
from firebox.sandbox.launcher import main
main({_LINK})
os._exit(0)  # nothing is left to clean up, and somebody waits for our end
"""
_PROGRAM_AS_ANOTHER_USER = """
import os, sys
user, group = map(int, sys.argv[1:3])
os.setgroups([])
os.setresgid(group, group, group)
os.setresuid(user, user, user)
os.execv(sys.argv[3], sys.argv[3:])
"""
_OPTIONS = ("-I", "-S", "-X", "utf8", "-c")


class StartedLauncher:
    """A launcher process that has not been told its settings, and our end of its link."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self.link = link
        self.pidfd = os.pidfd_open(pid)
        """Readable once it has ended."""
        self.first: SandboxSpec | None = None
        """What sandbox `FIRST` is, where it has been asked for."""
        self._has_ended = False

    def configure(self, *, uid_base: int, hooks: Mapping[str, str], prove: bool = True) -> None:
        """Send the settings.

        prove: the launcher proves at once that it can make a sandbox, and answers; else the first one that is asked for is its
        proof. Raises: OSError.
        """
        from firebox.sandbox.spec import send

        send(self.link, {"uid_base": uid_base, "hooks": dict(hooks), "prove": prove})

    def ask(self, first: SandboxSpec) -> None:
        """Ask for the first sandbox. Who takes the launcher over will find it made. Raises: OSError."""
        from firebox.sandbox.spec import send, spec_to_message

        send(self.link, {"make": FIRST, "spec": spec_to_message(first)})
        self.first = first

    def has_ended(self) -> bool:
        """Tell whether the process has ended, and reap it."""
        if not self._has_ended and os.waitpid(self.pid, os.WNOHANG) != (0, 0):
            self._has_ended = True
        return self._has_ended

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end. False when that did not come in time."""
        if not self.has_ended():
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            poll.poll(None if timeout_s is None else timeout_s * 1000)
        return self.has_ended()

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        if not self.has_ended():
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.wait()

    def end(self) -> None:
        """Close the link, which ends the process, and wait for that."""
        self.link.close()
        if self.pidfd >= 0:
            self.wait()
            self.close()

    def close(self) -> None:
        """Let go of the process, which has ended, and of its link."""
        self.link.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def start_launcher(
    *, run_as: tuple[int, int] | None = None, python: str | None = None, source: str | None = None
) -> StartedLauncher:
    """Start the process. Arguments as of `LauncherProcess`. Raises: OSError."""
    python = python or os.path.realpath(sys.executable)
    source = source or os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    words = [python, *_OPTIONS, _PROGRAM, source]
    if run_as is not None:
        words = [os.path.realpath(sys.executable), *_OPTIONS, _PROGRAM_AS_ANOTHER_USER, *map(str, run_as), *words]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            pid = os.posix_spawn(
                words[0],
                words,
                {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), _LINK),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except BaseException:
            ours.close()
            raise
    return StartedLauncher(pid, ours)
