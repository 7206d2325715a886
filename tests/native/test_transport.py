"""Bodies and connections of hostile or unlucky clients. Raw sockets: client libraries are too polite."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx
import pytest

from firebox.doors.http.refusals import BodyTimeout, BodyTooLarge, ClientGone
from firebox.doors.http.requests import read_body
from tests.support.server import RunningServer
from tests.support.waiting import wait_until

JSON = "Content-Type: application/json\r\n"
LIMIT_BYTES = 4 << 20


def request(body: bytes, headers: str = JSON, *, path: str = "/api/v1/runs") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def program(code: str) -> bytes:
    return json.dumps({"language": "bash", "code": code}).encode()


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    reader = connection.makefile("rb")
    status = int(reader.readline().split()[1])
    headers = dict(iter(lambda: _header(reader.readline()), ("", "")))
    return status, headers, reader.read(int(headers.get("content-length", 0)))


def _header(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode().strip().partition(":")
    return name.lower(), value.strip()


def in_flight(client: httpx.Client) -> int:
    return int(client.get("/health").json()["in_flight"])


def ended(client: httpx.Client, verdict: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    name = f'firebox_runs_total{{language="bash",verdict="{verdict}"}} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def test_a_disconnected_client_cancels_its_run(server: RunningServer, client: httpx.Client) -> None:
    before = ended(client, "cancelled")
    with server.connect() as connection:
        connection.sendall(request(program("sleep 50")))
        wait_until(lambda: in_flight(client) == 1)
    wait_until(lambda: in_flight(client) == 0)
    assert ended(client, "cancelled") == before + 1


def test_a_client_that_resets_its_connection_cancels_its_run(server: RunningServer, client: httpx.Client) -> None:
    connection = server.connect()
    connection.sendall(request(program("sleep 50")))
    wait_until(lambda: in_flight(client) == 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    wait_until(lambda: in_flight(client) == 0)


def test_a_half_closed_connection_counts_as_gone(server: RunningServer, client: httpx.Client) -> None:
    with server.connect() as connection:
        connection.sendall(request(program("sleep 50")))
        wait_until(lambda: in_flight(client) == 1)
        connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: in_flight(client) == 0)


def test_disconnecting_within_a_body_leaves_nothing_behind(server: RunningServer, client: httpx.Client) -> None:
    with server.connect() as connection:
        connection.sendall(request(program("true"))[:-3])
    assert client.get("/health").json()["in_flight"] == 0


def test_a_connection_serves_one_run_after_another(server: RunningServer) -> None:
    with server.connect() as connection:
        for number in range(3):
            connection.sendall(request(program(f"echo {number}")))
            status, _, body = read_answer(connection)
            assert status == 200
            assert json.loads(body)["run"]["stdout"] == f"{number}\n"


def test_a_body_in_single_bytes_is_read(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request(program("echo slow")):
            connection.sendall(bytes([byte]))
        assert json.loads(read_answer(connection)[2])["run"]["stdout"] == "slow\n"


def test_a_chunked_body_is_read(client: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        for byte in program("echo parts"):
            yield bytes([byte])

    answer = client.post("/runs", content=parts(), headers={"content-type": "application/json"})
    assert answer.json()["run"]["stdout"] == "parts\n"


@pytest.mark.parametrize("size_bytes", [LIMIT_BYTES + 1, 3 * LIMIT_BYTES])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_huge_body_is_413(client: httpx.Client, size_bytes: int, announced: bool) -> None:
    def parts() -> Iterator[bytes]:
        for start in range(0, size_bytes, 1 << 16):
            yield b"x" * min(1 << 16, size_bytes - start)

    content: Any = b"x" * size_bytes if announced else parts()
    answer = client.post("/runs", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "http.body_too_large"
    assert str(LIMIT_BYTES) in answer.json()["error"]["message"]


def test_an_announced_huge_body_is_refused_before_it_is_sent(server: RunningServer) -> None:
    with server.connect() as connection:
        head = f"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\n{JSON}Expect: 100-continue\r\nContent-Length: {10**15}\r\n\r\n"
        connection.sendall(head.encode())
        assert read_answer(connection)[0] == 413


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30, "1, 2"])
def test_a_nonsense_length_gets_an_answer(server: RunningServer, client: httpx.Client, length: str) -> None:
    with server.connect() as connection:
        connection.sendall(f"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {length}\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1000)[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 413", b""}
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
    ],
    ids=["gzip", "text", "form", "none"],
)
def test_other_bodies_are_415(client: httpx.Client, headers: dict[str, str]) -> None:
    body = program("true")
    answer = client.post("/runs", content=gzip.compress(body) if "content-encoding" in headers else body, headers=headers)
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "http.unsupported_body"


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_by_any_spelling_is_taken(client: httpx.Client, content_type: str) -> None:
    assert client.post("/runs", content=program("true"), headers={"content-type": content_type}).status_code == 200


@pytest.mark.parametrize("line", [b"\0\1\2\3\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n"])
def test_nonsense_instead_of_http_gets_an_answer(server: RunningServer, client: httpx.Client, line: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert client.get("/health").status_code == 200


def test_forwarded_headers_are_not_trusted_by_default(server: RunningServer) -> None:
    with server.client() as client:
        answer = client.post("/runs", json={"language": "bash", "code": "true"}, headers={"X-Forwarded-For": "\n6.6.6.6"[1:]})
    assert answer.status_code == 200
    assert "6.6.6.6" not in server.log.read_text()


async def _messages(*parts: bytes, more: bool) -> AsyncIterator[dict[str, Any]]:
    for index, part in enumerate(parts):
        yield {"type": "http.request", "body": part, "more_body": more or index < len(parts) - 1}
    yield {"type": "http.disconnect"}


async def test_a_body_that_stops_coming_times_out() -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(BodyTimeout):
        await read_body(receive, {}, 100, timeout_s=0.01)


async def test_a_body_is_limited_whatever_its_content_length() -> None:
    messages = _messages(b"x" * 60, b"x" * 60, more=False)
    with pytest.raises(BodyTooLarge):
        await read_body(cast(Any, messages.__anext__), {"content-length": "5"}, 100)


async def test_a_client_that_leaves_within_its_body_is_noticed() -> None:
    messages = _messages(b"x", more=True)
    with pytest.raises(ClientGone):
        await read_body(cast(Any, messages.__anext__), {}, 100)


async def test_no_more_than_some_of_a_huge_body_is_read() -> None:
    taken = 0

    async def receive() -> Any:
        nonlocal taken
        taken += 1000
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    with pytest.raises(BodyTooLarge):
        await read_body(receive, {}, 10_000)
    assert taken == 41_000
