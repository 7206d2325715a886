"""A minimal HTTP client, so that the server is measured and not the client: requests are prepared in advance, and responses are
searched for a marker instead of parsed.
"""

from __future__ import annotations

import json
import random
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count
from typing import NamedTuple
from urllib.parse import urlsplit

from firebox.bench.contender import SETTLE_S, BenchmarkFailed
from firebox.bench.processes import Load
from firebox.bench.programs import Program

HTTP = "http"
FIRST = "http, first"
_CLIENTS = 32
_PATIENCE_S = 120.0
_SILENT_AT_MOST_S = 2.0
_READ_BYTES = 65_536
_WALL_MS = 60_000


class Connection:
    """A keep-alive connection with at most one request in flight. Close it."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._address = place.hostname, place.port
        self._received = b""
        self._connect()

    def refresh(self) -> None:
        """Reconnect if the connection has been idle for so long that the server may close it."""
        if time.monotonic() - self._heard_at > _SILENT_AT_MOST_S:
            self._socket.close()
            self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=_PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._heard_at = time.monotonic()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, request: bytes) -> None:
        self._received = b""
        self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """Read once. Return the body of the response once it is complete, otherwise None.

        Raises: BenchmarkFailed for an error response, or when the server closes the connection.
        """
        data = self._socket.recv(_READ_BYTES)
        self._heard_at = time.monotonic()
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and not head.startswith(b"HTTP/1.1 20"):
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
    raise BenchmarkFailed("a response without content-length")


class Exchange(NamedTuple):
    """A complete request, and a part of its response that shows success."""

    request: bytes
    mark: bytes


def post_request(url: str, path: str, body: Mapping[str, object]) -> bytes:
    """Return a complete request."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def stdout_mark(expected: bytes) -> bytes:
    """Return the marker of a program's output line in JSON. expected: a line without characters that JSON escapes."""
    return b'"stdout":"' + expected + b'\\n"'


def execute_exchange(program: Program, url: str, door: str, stdin: str = "") -> Exchange:
    """Return the request for a run. door: one of `DOORS`."""
    path, translate = DOORS[door]
    return Exchange(post_request(url, path, {**translate(program), "stdin": stdin}), stdout_mark(program.expected))


def first_exchanges(program: Program, url: str, door: str) -> Iterator[Exchange]:
    """Yield requests of a compiled program that was never compiled before."""
    for number in count(time.time_ns()):
        yield execute_exchange(never_compiled(program, number), url, door)


def never_compiled(program: Program, number: int) -> Program:
    """Return a program with a unique comment, which must be compiled again. number: never used before."""
    return replace(program, source=f"{program.source}// {number}\n")


def _for_piston(program: Program) -> dict[str, object]:
    limits = ("run_timeout", "run_cpu_time", "compile_timeout", "compile_cpu_time")
    return {**_what_to_run(program), **dict.fromkeys(limits, _WALL_MS)}


def _for_native(program: Program) -> dict[str, object]:
    limits = {"wall_ms": _WALL_MS, "cpu_ms": _WALL_MS}
    return {**_what_to_run(program), "limits": {"compile": limits, "run": limits}}


def _what_to_run(program: Program) -> dict[str, object]:
    files = [{"name": program.runtime.main_name, "content": program.source}]
    return {"language": program.language, "version": program.runtime.version, "files": files}


DOORS: Mapping[str, tuple[str, Callable[[Program], dict[str, object]]]] = {
    "piston": ("/api/v2/execute", _for_piston),
    "native": ("/api/v1/runs", _for_native),
}
"""HTTP APIs that run programs: the path and the body."""


@dataclass(frozen=True, slots=True)
class HttpRuns:
    """Runs a program through a server. exchanges: one for each run."""

    connection: Connection
    exchanges: Iterator[Exchange]
    name: str = HTTP
    every: int = 1

    def run(self) -> float:
        """Run the program once; see `Contender.run`."""
        self.connection.refresh()
        exchange = next(self.exchanges)
        started = time.perf_counter()
        self.connection.send(exchange.request)
        while (body := self.connection.receive()) is None:
            pass
        elapsed_ms = (time.perf_counter() - started) * 1000
        _check(body, exchange)
        time.sleep(SETTLE_S)
        return elapsed_ms


def run_with_callers(url: str, exchanges: Sequence[Exchange], callers: int) -> Load:
    """Run programs in this order; each of `callers` connections sends the next request as soon as it has a response.

    The CPU time of the load is 0: the server's own is measured elsewhere.
    """
    runs = len(exchanges)
    connections = [Connection(url) for _ in range(min(callers, runs))]
    waiting = iter(exchanges)
    asked: dict[Connection, Exchange] = {}
    try:
        with selectors.DefaultSelector() as selector:
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ, connection)
            started = time.perf_counter()
            for connection in connections:
                asked[connection] = next(waiting)
                connection.send(asked[connection].request)
            while asked:
                for key, _events in selector.select():
                    connection = key.data
                    body = connection.receive()
                    if body is None:
                        continue
                    _check(body, asked.pop(connection))
                    following = next(waiting, None)
                    if following is not None:
                        asked[connection] = following
                        connection.send(following.request)
            return Load(runs, time.perf_counter() - started, 0.0)
    finally:
        for connection in connections:
            connection.close()


def run_at_rate(url: str, exchange: Exchange, runs: int, runs_per_s: float) -> list[float]:
    """Run a program `runs` times at random moments. Return the duration of each in milliseconds.

    Arrivals are a Poisson process, like independent clients of a site. Time spent waiting for a free connection counts.
    """
    pauses = random.Random(runs)  # noqa: S311 - reproducible
    moments_s = list(accumulate(pauses.expovariate(runs_per_s) for _ in range(runs)))
    free = [Connection(url) for _ in range(min(_CLIENTS, runs))]
    asked_s: dict[Connection, float] = {}
    samples_ms: list[float] = []
    try:
        with selectors.DefaultSelector() as selector:
            for connection in free:
                selector.register(connection, selectors.EVENT_READ, connection)
            started = time.perf_counter()
            begun = 0
            while len(samples_ms) < runs:
                now_s = time.perf_counter() - started
                while begun < runs and free and moments_s[begun] <= now_s:
                    connection = free.pop()
                    asked_s[connection] = moments_s[begun]
                    connection.send(exchange.request)
                    begun += 1
                pause_s = max(moments_s[begun] - now_s, 0) if begun < runs and free else None
                for key, _events in selector.select(pause_s):
                    connection = key.data
                    body = connection.receive()
                    if body is not None:
                        _check(body, exchange)
                        samples_ms.append((time.perf_counter() - started - asked_s.pop(connection)) * 1000)
                        free.append(connection)
            return samples_ms
    finally:
        for connection in (*free, *asked_s):
            connection.close()


def _check(body: bytes, exchange: Exchange) -> None:
    if exchange.mark not in body:
        raise BenchmarkFailed(f"unexpected response: {body[:2000].decode(errors='replace')}")
