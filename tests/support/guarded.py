"""A service with its guardian, as a test holds it: opened, stopped, killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.guardian import START_S, STOP_S, abstract

GUARDIAN = Path(__file__).with_name("guardian.py")
ANSWER_S = START_S + STOP_S + 30
PORTS = range(15_000, 31_000)
"""Below the ports that the kernel gives to outgoing connections, so a service finds its port free when it starts again."""


class ServiceFailed(Exception):
    """A service did not start, stop or answer; its log is in the message."""


def new_folder(kind: str) -> Path:
    """Make a folder that other users may enter, as PostgreSQL runs as one of them."""
    folder = Path(tempfile.mkdtemp(prefix=f"firebox-{kind}-"))
    folder.chmod(0o711)
    return folder


def free_port(folder: Path) -> int:
    """Return a port of loopback that nothing uses now: the one that `folder` remembers if possible, else any.

    The guardian sees to it that no other guardian takes it.
    """
    memory = folder / "port"
    port = int(memory.read_text()) if memory.exists() else random.choice(PORTS)
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                port = random.choice(PORTS)
                continue
        memory.write_text(str(port))
        return port


def password_of(folder: Path) -> str:
    """Return the password of a service: the one that `folder` remembers, else a new one."""
    memory = folder / "password"
    if not memory.exists():
        memory.touch(mode=0o600)
        memory.write_text(secrets.token_urlsafe(12))
    return memory.read_text()


class Guarded:
    """A service with its guardian. shared: by all workers of this test run, under this kind's name.

    stay: it outlives its starter, until `end`; folder: where it keeps its data (default: a new temporary one).
    """

    kind: str

    def __init__(self, *, shared: str = "", stay: bool = False, folder: Path | None = None) -> None:
        self.shared = shared
        self.stay = stay
        self.folder = folder or Path()
        self.facts: dict[str, Any] = {}
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def recipe(self, folder: Path) -> dict[str, Any]:
        """Say how the service is made in `folder`: see `open` for what may be said."""
        raise NotImplementedError

    def namespaces(self) -> list[str]:
        """The command that starts the guardian in namespaces of its own, or nothing."""
        return []

    def open(self) -> None:
        """Start the service, or join the one that is shared; return when it answers."""
        while self._connection is None:
            if self.shared and self._join_running():
                return
            self._start_guardian()

    def _join_running(self) -> bool:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(abstract(self.shared))
            self._connection = connection
            self._join()
        except OSError:
            # No guardian, or it was about to end.
            self._connection = None
            connection.close()
            return False
        return True

    def _start_guardian(self) -> None:
        folder = self.folder if self.stay else new_folder(self.kind)
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        recipe = self.recipe(folder)
        spec = {
            "kind": self.kind,
            "folder": str(folder),
            "name": self.shared,
            "stay": self.stay,
            "prepare": [],
            "user": None,
            "ports": [],
            "finish": [],
            "hide": [],
            "cgroup": "",
            "orphans": False,
            "stop_signal": signal.SIGTERM,
            **recipe,
            "environment": {
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "LC_ALL": "C.UTF-8",
                **recipe.get("environment", {}),
            },
        }
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_S)
        command = [*self.namespaces(), sys.executable, "-I", "-S", str(GUARDIAN), str(theirs.fileno())]
        with theirs, (folder / "guardian.log").open("ab") as errors:
            # Not of our session: a key pressed at the terminal is for us, the guardian then sees us go.
            subprocess.run(
                ["setsid", "--fork", *command],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd="/",
                check=True,
            )
        self._connection = ours
        try:
            ours.sendall(json.dumps(spec).encode() + b"\n")
            taken = self._read_answer()["taken"]
        except OSError:
            self._forget()
            said = (folder / "guardian.log").read_text(errors="replace")
            if not self.stay:
                shutil.rmtree(folder, ignore_errors=True)
            raise ServiceFailed(f"the guardian of {self.kind} did not start: {said}") from None
        if taken is not None:
            self._forget()
            if taken == "port":
                (folder / "port").unlink(missing_ok=True)
            return
        self._join()

    def _join(self) -> None:
        answer = self._ask("join")
        self.facts = answer["facts"]
        self.folder = Path(self.facts["folder"])
        if "error" in answer:
            self.close()
            raise ServiceFailed(f"{answer['error']}; it wrote:\n{answer['log']}")

    def _ask(self, what: str) -> dict[str, Any]:
        assert self._connection is not None, f"{self.kind} is not open"
        self._connection.sendall(json.dumps({"do": what}).encode() + b"\n")
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        assert self._connection is not None
        received = b""
        while not received.endswith(b"\n"):
            data = self._connection.recv(65536)
            if not data:
                raise ConnectionResetError(f"the guardian of {self.kind} is gone")
            received += data
        answer: dict[str, Any] = json.loads(received)
        return answer

    def _tell(self, what: str) -> None:
        answer = self._ask(what)
        if "error" in answer:
            raise ServiceFailed(f"{answer['error']}; it wrote:\n{answer['log']}")

    def start(self) -> None:
        """Start it again, with the same data at the same address; return when it answers."""
        self._tell("start")

    def stop(self) -> None:
        """Stop it as an operator would; return when it has ended."""
        self._tell("stop")

    def kill(self) -> None:
        """Kill it (signal 9); return when it has ended."""
        self._tell("kill")

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        """The end of what the service wrote so far."""
        try:
            return (self.folder / "log").read_text(errors="replace")[-8000:]
        except OSError:
            return ""

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def end(self) -> bool:
        """End the service that stays, and return when nothing of it runs; False when there was none."""
        if not self._join_running():
            return False
        assert self._connection is not None
        with contextlib.suppress(OSError):
            self._connection.sendall(b'{"do": "end"}\n')
        self.close()
        return True

    def close(self) -> None:
        """Release it. The last user returns after it has ended and nothing of it is left."""
        if self._connection is None:
            return
        try:
            self._connection.shutdown(socket.SHUT_WR)
            while self._connection.recv(4096):
                pass
        except OSError:
            pass
        self._forget()
