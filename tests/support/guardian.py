"""The process between the tests and a service: it starts, stops and kills the service, and ends with everything it started.

Started by `services.py` as a script with the standard library alone. An open connection means that the service is used; when
the last one closes, for whatever reason a process can end, the guardian ends the service, all that came of it, its
mounts, its cgroups and its folder. Dies the guardian itself, the kernel kills the service.

A request is a line of JSON, `{"do": "join" | "start" | "stop" | "kill" | "end"}`; the answer is a line too: `{}`, or
`{"error": one sentence, "log": the end of what the service wrote}`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MNT_DETACH = 2

START_S = 150
STOP_S = 30
LOG_SHOWN = 6000

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The service did not do what was asked."""


def die_with_the_guardian() -> None:
    """Between fork and exec of the service."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def abstract(name: str) -> str:
    """The address of a socket that is a name and no file, so nothing is left of it."""
    return f"\0firebox-test-{name}"


class Guardian:
    """One service. spec: what `services.py` says of it; first: the connection of the guardian's starter."""

    def __init__(self, spec: dict[str, Any], first: socket.socket) -> None:
        self.spec = spec
        self.folder = Path(spec["folder"])
        self.log = (self.folder / "log").open("ab", buffering=0)
        self.process: subprocess.Popen[bytes] | None = None
        self.prepared = False
        self.ready = False
        self.heard = b""
        self.failure: dict[str, str] = {}
        self.ending = False
        self.claims: list[socket.socket] = []
        self.listener: socket.socket | None = None
        self.clients: dict[socket.socket, bytes] = {first: b""}
        # The service's own events can be waited for alone: requests of clients wait until the present one is answered.
        self.service_selector = selectors.DefaultSelector()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.service_selector.fileno(), selectors.EVENT_READ, lambda _: self.hear_service(0))
        self.selector.register(first, selectors.EVENT_READ, self.hear)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        self.service_selector.register(reader, selectors.EVENT_READ, self.wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, self.end)

    def claim(self) -> str | None:
        """Take names exclusively; return the first that is already taken."""
        for port in self.spec["ports"]:
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(abstract(f"port-{port}"))
            except OSError:
                return "port"
            self.claims.append(claim)
        if self.spec["name"]:
            self.listener = socket.socket(socket.AF_UNIX)
            try:
                self.listener.bind(abstract(self.spec["name"]))
            except OSError:
                return "name"
            self.listener.listen(64)
            self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        return None

    def run(self) -> None:
        """Serve until the last user has gone."""
        self.answer({"do": "start"})
        while not self.ending:
            for key, _ in self.selector.select():
                key.data(key.fileobj)

    def hear_service(self, seconds: float) -> None:
        for key, _ in self.service_selector.select(seconds):
            key.data(key.fileobj)

    def wake(self, reader: int) -> None:
        os.read(reader, 4096)
        self.reap()

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.process is not None and pid == self.process.pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.ready = False

    def accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", peer)[1] != os.getuid():
            client.close()
            return
        self.clients[client] = b""
        self.selector.register(client, selectors.EVENT_READ, self.hear)

    def hear(self, client: socket.socket) -> None:
        try:
            data = client.recv(4096)
        except OSError:
            data = b""
        if not data:
            self.leave(client)
            return
        *lines, self.clients[client] = (self.clients[client] + data).split(b"\n")
        for line in lines:
            answer = self.answer(json.loads(line))
            try:
                client.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                self.leave(client)
                return

    def leave(self, client: socket.socket) -> None:
        """Forget a client. The last one's socket stays open until all has ended: that is how it sees it."""
        self.selector.unregister(client)
        del self.clients[client]
        if not self.clients and not self.spec["stay"]:
            self.claims.append(client)
            self.ending = True
        else:
            # Closing is not enough: the parent of this process may hold the same socket.
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        asked = request["do"]
        if asked == "join":
            return {"facts": self.spec["facts"], "pid": os.getpid(), **self.failure}
        try:
            {"start": self.start, "stop": self.stop, "kill": self.kill, "end": self.end}[asked]()
        except (Refused, OSError) as error:
            failure = {"error": str(error), "log": self.end_of_log()}
        else:
            failure = {}
        if asked == "start":
            self.failure = failure
        return failure

    def end_of_log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-LOG_SHOWN:]

    def identity(self) -> dict[str, Any]:
        """Under which user the service runs, as arguments of `subprocess`."""
        if self.spec["user"] is None:
            return {}
        uid, gid = self.spec["user"]
        return {"user": uid, "group": gid, "extra_groups": []}

    def start(self) -> None:
        if self.process is not None and self.process.returncode is None:
            return
        if not self.prepared:
            for command in self.spec["prepare"]:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=self.log,
                    stderr=subprocess.STDOUT,
                    env=self.spec["environment"],
                    cwd="/",
                    timeout=START_S,
                    check=False,
                    **self.identity(),
                )
                if done.returncode != 0:
                    raise Refused(f"{command[0]} failed")
            self.prepared = True
        self.ready = False
        self.heard = b""
        arguments: dict[str, Any] = self.identity()
        self.process = subprocess.Popen[bytes](
            self.spec["command"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.spec["environment"],
            cwd="/",
            preexec_fn=die_with_the_guardian,
            start_new_session=True,
            **arguments,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.service_selector.register(self.process.stdout, selectors.EVENT_READ, self.listen)
        self.wait(lambda: self.ready, START_S, "is not ready")

    def listen(self, output: Any) -> None:
        """Pass on what the service writes, and notice that it says it is ready."""
        data = output.read(65536)
        if data is None:
            return
        if not data:
            self.service_selector.unregister(output)
            output.close()
            return
        self.log.write(data)
        if not self.ready:
            self.heard = (self.heard + data)[-65536:]
            self.ready = re.search(self.spec["ready"].encode(), self.heard) is not None

    def wait(self, condition: Any, seconds: float, complaint: str) -> None:
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise Refused(f"{self.spec['kind']} {complaint} after {seconds} s")
            if self.process.returncode is not None:
                raise Refused(f"{self.spec['kind']} ended with status {self.process.returncode}")
            self.hear_service(left)

    def stop(self) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        os.kill(self.process.pid, self.spec["stop_signal"])
        process = self.process
        deadline = time.monotonic() + STOP_S
        while process.returncode is None and time.monotonic() < deadline:
            self.hear_service(deadline - time.monotonic())
        if process.returncode is None:
            self.kill()
            raise Refused(f"{self.spec['kind']} did not stop in {STOP_S} s and was killed")

    def kill(self) -> None:
        """End the service without a word; what it started dies with it, unless its kind leaves its children behind."""
        if self.process is not None and self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGKILL)
            _, status = os.waitpid(self.process.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(status)
        if not self.spec["orphans"]:
            self.kill_everybody()

    def kill_everybody(self) -> None:
        """Kill all descendants: orphans become children of this process, so no generation escapes."""
        while True:
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and self.parent_of(entry) == os.getpid():
                    os.kill(int(entry.name), signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    @staticmethod
    def parent_of(entry: Path) -> int:
        try:
            return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return 0

    def end(self, *_: object) -> None:
        self.ending = True

    def clean(self) -> None:
        """Leave nothing of the service behind."""
        if self.listener is not None:
            self.listener.close()
        try:
            if self.spec["stay"] or not self.spec["orphans"]:
                self.stop()
        except Refused as error:
            self.log.write(f"{error}\n".encode())
        finally:
            self.kill()
            self.kill_everybody()
        if self.spec["finish"]:
            subprocess.run(self.spec["finish"], stdout=self.log, stderr=self.log, timeout=STOP_S, check=False)
        self.unmount()
        if self.spec["cgroup"]:
            self.remove_cgroups(self.spec["cgroup"])
        if not self.spec["stay"]:
            shutil.rmtree(self.folder, ignore_errors=True)

    def unmount(self) -> None:
        places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in reversed(places):
            if place.startswith(f"{self.folder}/"):
                libc.umount2(place.encode(), MNT_DETACH)

    def remove_cgroups(self, name: str) -> None:
        """The kernel frees the groups of dead processes a moment later: ask until it has."""
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            groups = [*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")]
            if not groups:
                return
            for group in groups:
                for folder, _, _ in os.walk(group, topdown=False):
                    try:
                        os.rmdir(folder)
                    except OSError:
                        self.hear_service(0.05)


def main() -> None:
    first = socket.socket(fileno=int(sys.argv[1]))
    spec = json.loads(first.makefile("rb").readline())
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for place in spec["hide"]:
        # The machine's own engine and its settings are not to be touched; the mounts live in this namespace only.
        if Path(place).is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "firebox-test", place], check=True)
    guardian = Guardian(spec, first)
    taken = guardian.claim()
    first.sendall(json.dumps({"taken": taken}).encode() + b"\n")
    if taken is None:
        try:
            guardian.run()
        finally:
            guardian.clean()
    elif not spec["stay"]:
        shutil.rmtree(spec["folder"], ignore_errors=True)


if __name__ == "__main__":
    main()
