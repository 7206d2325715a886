"""The start of a launcher process, without an event loop: a command can have it load while its own modules load.

For that this module imports the least it can.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from firebox.sandbox.seccomp import Filters

_PROGRAM = """
import gc, os, sys
gc.disable()
sys.path.insert(0, sys.argv[1])
from firebox.sandbox.launcher import main
main(int(sys.argv[2]))
os._exit(0)  # nothing is left to clean up, and somebody waits for our end
"""


class StartedLauncher(NamedTuple):
    """A launcher process that has not been told its settings, and our end of its link."""

    process: subprocess.Popen[bytes]
    link: socket.socket

    def configure(self, filters: Filters, *, uid_base: int, hooks: Mapping[str, str]) -> None:
        """Send the settings. The launcher then proves that it can make a sandbox, and answers. Raises: OSError."""
        from firebox.sandbox.spec import send

        programs = {
            "seccomp": filters.programs,
            "supervised": filters.supervised,
            "supervised_uncounted": filters.supervised_uncounted,
        }
        texts = {name: [program.hex() for program in each] for name, each in programs.items()}
        send(self.link, {**texts, "uid_base": uid_base, "hooks": dict(hooks)})


def start_launcher(
    *, run_as: tuple[int, int] | None = None, python: str | None = None, source: str | None = None
) -> StartedLauncher:
    """Start the process. Arguments as of `LauncherProcess`. Raises: OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    user, group = run_as or (None, None)
    python = python or os.path.realpath(sys.executable)
    source = source or os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    with theirs:
        try:
            process = subprocess.Popen(
                [python, "-I", "-S", "-X", "utf8", "-c", _PROGRAM, source, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                cwd="/",
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=None if run_as is None else [],
            )
        except BaseException:
            ours.close()
            raise
    return StartedLauncher(process, ours)


def compiled_filters() -> Filters:
    """Compile the filters of system calls. Raises: SandboxFailure when libseccomp is missing."""
    from firebox.sandbox.seccomp import compile_filters
    from firebox.sandbox.spec import SandboxFailure

    try:
        return compile_filters()
    except (ImportError, RuntimeError) as error:
        hint = "install libseccomp (Debian: apt install libseccomp2)"
        raise SandboxFailure("seccomp", detail=str(error), hint=hint) from None
