"""`firebox` as a process of its own that starts in hundredths of a second: a fork of one that has loaded everything.

What this cannot show is that a command loads all it needs; `tests/cli/test_main.py` starts each as a user would.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, AnyStr

ROOT = Path(__file__).resolve().parents[2]


@cache
def fork_server() -> socket.socket:
    """Start the process that forks, one for each process that runs tests, and return the socket to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FIREBOX_", "PISTON_"))}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            env={**kept, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
        )
    # The last one registered is called first.
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


class Command(subprocess.Popen[AnyStr]):
    """A `subprocess.Popen` whose process is such a fork. args: the module, then the arguments of its `main`."""

    _pipe: int
    """Where the status will come from."""
    # Of the standard library's class, where no stub names them.
    _close_pipe_fds: Callable[..., None]
    _waitpid_lock: Lock

    def _execute_child(  # in the place of fork and exec; the names are those of the standard library
        self, args: Sequence[str], executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Sequence[int], *more: Any
    ) -> None:
        cwd, env = more[:2]
        stdin, to_stdin, from_stdout, stdout, from_stderr, stderr = more[5:11]
        new_session = more[-2]
        module, *arguments = args
        message = {
            "module": module,
            "arguments": arguments,
            "env": dict(os.environ if env is None else env),
            "folder": str(cwd or os.getcwd()),
            "new_session": bool(new_session),
        }
        self._pipe, theirs = os.pipe()
        descriptors: list[int] = [own if own != -1 else inherited for inherited, own in enumerate((stdin, stdout, stderr))]
        try:
            socket.send_fds(fork_server(), [json.dumps(message).encode()], [*descriptors, theirs])
        finally:
            os.close(theirs)
        self._close_pipe_fds(stdin, to_stdin, from_stdout, stdout, from_stderr, stderr)
        pid = self._number()
        assert pid is not None, "the fork server has ended; why is on standard error"
        self.pid = pid
        self._child_created = True

    def _number(self) -> int | None:
        """Read a line of the pipe."""
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self._pipe, 1)
            if not byte:
                return None
            line += byte
        return int(line)

    def _internal_poll(self, *_arguments: Any, **_more: Any) -> int | None:
        self._end(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if not self._end(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return int(self.returncode)

    def _end(self, timeout: float | None) -> bool:
        """Tell whether the process has ended, or does so within `timeout` seconds."""
        if self.returncode is None and not select.select([self._pipe], [], [], timeout)[0]:
            return False
        with self._waitpid_lock:
            if self.returncode is None:
                status = self._number()
                assert status is not None, "the fork server has ended; why is on standard error"
                self.returncode = os.waitstatus_to_exitcode(status)
                os.close(self._pipe)
        return True


def run_command(
    args: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: str | bytes = b"",
    cwd: str | Path | None = None,
    timeout_s: float = 120,
    text: bool,
) -> subprocess.CompletedProcess[Any]:
    """Do what `subprocess.run` does, `capture_output` included."""
    with Command[Any](
        args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=cwd, text=text
    ) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout_s)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(args, process.returncode, stdout, stderr)
