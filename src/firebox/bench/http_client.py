"""A minimal HTTP client, so that the server is measured and not the client: it neither writes nor parses JSON meanwhile."""

from __future__ import annotations

import contextlib
import json
import random
import selectors
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, count
from typing import NamedTuple
from urllib.parse import urlsplit

from firebox.bench.contender import SETTLE_S, BenchmarkFailed, Contender
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
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def stdout_mark(expected: bytes) -> bytes:
    """Return the marker of a program's output line in JSON. expected: a line without characters that JSON escapes."""
    return b'"stdout":"' + expected + b'\\n"'


def execute_exchange(program: Program, url: str, door: str, stdin: str = "") -> Exchange:
    """Return the request for a run. door: one of `DOORS`."""
    path, limits = DOORS[door]
    files = [{"name": program.runtime.main_name, "content": program.source}]
    body = {"language": program.language, "version": program.runtime.version, "files": files, "stdin": stdin, **limits}
    return Exchange(post_request(url, path, body), stdout_mark(program.expected))


def first_exchanges(program: Program, url: str, door: str) -> Iterator[Exchange]:
    """Yield requests of a compiled program that was never compiled before."""
    for number in count(time.time_ns()):
        yield execute_exchange(never_compiled(program, number), url, door)


def never_compiled(program: Program, number: int) -> Program:
    """Return a program with a unique comment, which must be compiled again. number: never used before."""
    return replace(program, source=f"{program.source}// {number}\n")


_LIMITS = {"wall_ms": _WALL_MS, "cpu_ms": _WALL_MS}
DOORS: Mapping[str, tuple[str, dict[str, object]]] = {
    "piston": (
        "/api/v2/execute",
        dict.fromkeys(("run_timeout", "run_cpu_time", "compile_timeout", "compile_cpu_time"), _WALL_MS),
    ),
    "native": ("/api/v1/runs", {"limits": {"compile": _LIMITS, "run": _LIMITS}}),
}
"""HTTP APIs that run programs: the path, and the limits in the body."""


def http_runs(connection: Connection, exchanges: Iterator[Exchange], name: str = HTTP) -> Contender:
    """Return the contender that runs a program through a server. exchanges: one for each run."""

    def run() -> float:
        connection.refresh()
        exchange = next(exchanges)
        started = time.perf_counter()
        connection.send(exchange.request)
        while (body := connection.receive()) is None:
            pass
        elapsed_ms = (time.perf_counter() - started) * 1000
        _check(body, exchange)
        time.sleep(SETTLE_S)
        return elapsed_ms

    return Contender(name, run)


def run_with_callers(url: str, exchanges: Sequence[Exchange], callers: int) -> float:
    """Run programs in this order; each of `callers` connections sends the next request as soon as it has a response.

    Return the seconds from the first request to the last response.
    """
    return max(_exchange(url, exchanges, [0.0] * len(exchanges), callers)) / 1000


def run_at_rate(url: str, exchange: Exchange, runs: int, runs_per_s: float) -> list[float]:
    """Run a program `runs` times at random moments. Return the duration of each in milliseconds.

    Arrivals are a Poisson process, like independent clients of a site. Time spent waiting for a free connection counts.
    """
    pauses = random.Random(runs)  # noqa: S311 - reproducible
    moments_s = list(accumulate(pauses.expovariate(runs_per_s) for _ in range(runs)))
    return _exchange(url, [exchange] * runs, moments_s, _CLIENTS)


def _exchange(url: str, exchanges: Sequence[Exchange], moments_s: Sequence[float], clients: int) -> list[float]:
    """Send each request at its moment, or later when a connection is free. Return milliseconds from moments to responses."""
    runs = len(exchanges)
    free = [Connection(url) for _ in range(min(clients, runs))]
    asked: dict[Connection, int] = {}
    samples_ms: list[float] = []
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for connection in free:
            stack.enter_context(contextlib.closing(connection))
            selector.register(connection, selectors.EVENT_READ, connection)
        started = time.perf_counter()
        begun = 0

        def send_due() -> float | None:
            """Send what is due. Return the seconds until the next request is, None if it waits for a connection."""
            nonlocal begun
            while begun < runs and free:
                pause_s = moments_s[begun] - (time.perf_counter() - started)
                if pause_s > 0:
                    return pause_s
                connection = free.pop()
                asked[connection] = begun
                connection.send(exchanges[begun].request)
                begun += 1
            return None

        while len(samples_ms) < runs:
            for key, _events in selector.select(send_due()):
                body = key.data.receive()
                if body is not None:
                    number = asked.pop(key.data)
                    _check(body, exchanges[number])
                    samples_ms.append((time.perf_counter() - started - moments_s[number]) * 1000)
                    free.append(key.data)
                    send_due()
    return samples_ms


def _check(body: bytes, exchange: Exchange) -> None:
    if exchange.mark not in body:
        raise BenchmarkFailed(f"unexpected response: {body[:2000].decode(errors='replace')}")
