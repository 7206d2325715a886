"""A client of the server that costs next to nothing, so that what is measured is the server: requests are made beforehand,
answers are searched for what they must hold and not parsed.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from firebox.cli.benchmark.contender import SETTLE_S, BenchmarkFailed
from firebox.cli.benchmark.processes import Load
from firebox.cli.benchmark.programs import Program

HTTP = "http"
PATH = "/api/v2/execute"
_PATIENCE_S = 120.0
_READ_BYTES = 65_536
_WALL_MS = 60_000


class Connection:
    """One connection that is kept alive, with one request under way at most. Close it."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._socket = socket.create_connection((place.hostname, place.port), timeout=_PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, request: bytes) -> None:
        self._received = b""
        self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """Read once. Returns the body of the answer when it is complete, else None.

        Raises: BenchmarkFailed when it is not 200, or the server closed the connection.
        """
        data = self._socket.recv(_READ_BYTES)
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and not head.startswith(b"HTTP/1.1 200"):
            raise BenchmarkFailed(f"the server answered {head.splitlines()[0].decode()}: {body.decode(errors='replace')}")
        if not data:
            raise BenchmarkFailed("the server closed the connection")
        return body if found and len(body) == _content_length(head) else None

    def close(self) -> None:
        self._socket.close()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise BenchmarkFailed("an answer without content-length")


def execute_request(program: Program, url: str) -> bytes:
    """Write the whole request of one run."""
    body = json.dumps(
        {
            "language": program.language,
            "version": program.runtime.version,
            "files": [{"name": program.runtime.main_name, "content": program.source}],
            "run_timeout": _WALL_MS,
            "run_cpu_time": _WALL_MS,
            "compile_timeout": _WALL_MS,
            "compile_cpu_time": _WALL_MS,
        }
    ).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class HttpRuns:
    """Runs one program through the server."""

    connection: Connection
    request: bytes
    expected: bytes
    name: str = HTTP
    every: int = 1

    def run(self) -> float:
        """Run the program once; see `Contender.run`."""
        started = time.perf_counter()
        self.connection.send(self.request)
        while (body := self.connection.receive()) is None:
            pass
        elapsed_ms = (time.perf_counter() - started) * 1000
        _check(body, self.expected)
        time.sleep(SETTLE_S)
        return elapsed_ms


def run_with_callers(url: str, request: bytes, expected: bytes, runs: int, callers: int) -> Load:
    """Run a program `runs` times; each of `callers` connections asks again as soon as it has its answer.

    The load's processor time is 0: the server knows its own.
    """
    connections = [Connection(url) for _ in range(min(callers, runs))]
    try:
        with selectors.DefaultSelector() as selector:
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ, connection)
            started = time.perf_counter()
            for connection in connections:
                connection.send(request)
            begun, ended = len(connections), 0
            while ended < runs:
                for key, _events in selector.select():
                    connection = key.data
                    body = connection.receive()
                    if body is None:
                        continue
                    _check(body, expected)
                    ended += 1
                    if begun < runs:
                        connection.send(request)
                        begun += 1
            return Load(runs, time.perf_counter() - started, 0.0)
    finally:
        for connection in connections:
            connection.close()


def _check(body: bytes, expected: bytes) -> None:
    if b'"stdout":"' + expected + b'\\n"' not in body:
        raise BenchmarkFailed(f"the server's answer is not the expected one: {body[:2000].decode(errors='replace')}")
