"""Limits on what one client can make a listener do: endless heads, unfinished bodies and messages, floods of small pieces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, cast

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode

from firebox.domain.errors import BodiesFull
from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.doors.http.hosts_and_proxies import RequestGuard
from firebox.doors.http.requests import read_body
from firebox.server.connection import HEAD_BYTES, HEAD_FIELDS, SLICE_BYTES, BoundedConnection
from firebox.server.http_server import HttpServer
from firebox.server.metrics import serve_metrics
from firebox.server.websocket_connection import FRAME_CHARACTERS, BoundedWebSocket
from firebox.settings.settings import load_settings
from tests.support.waiting import until

FLOODING = "127.0.0.2"
MOST_SENT_BYTES = 64 << 20
"""More than the kernel keeps for a receiver that has stopped; far less than what an endless head would send."""
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Listening:
    """A server in this process whose application reads bodies like a door, and records its requests."""

    def __init__(self, settings: dict[str, object]) -> None:
        self.settings = load_settings({"data_dir": "/nowhere", **settings}, environ={})
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.refusals: list[str] = []
        self.guard = RequestGuard(cast(Any, self._serve), self.settings)
        self.turns = FairScheduler()
        self.server = HttpServer(self.guard, self.guard.limits, self.turns, lifespan="off")
        self.port = 0
        self._clients: list[asyncio.StreamWriter] = []

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                self.bodies.append(message.get("bytes") or message["text"].encode())
                answer = "x" * int(self.bodies[-1][4:]) if self.bodies[-1].startswith(b"big ") else str(len(self.bodies[-1]))
                await send({"type": "websocket.send", "text": answer})
            return
        status, body = 200, scope["path"].encode()
        try:
            self.bodies.append(await read_body(receive, {}, self.settings.max_body_bytes))
        except BodiesFull as error:
            self.refusals.append(error.message)
            status, body = 429, b""
        if scope["path"].startswith("/big/"):
            body = b"x" * int(scope["path"].removeprefix("/big/"))
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def connect(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))
        self._clients.append(writer)
        return reader, writer

    async def hang_up(self) -> None:
        """Close the remaining connections."""
        for writer in self._clients:
            writer.transport.abort()
        await until(lambda: not self.server.server_state.connections)

    async def ask(self, request: bytes) -> bytes:
        """Send something and read until the server closes the connection."""
        reader, writer = await self.connect()
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def listening(**settings: object) -> AsyncGenerator[Listening]:
    place = Listening(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place.port = listener.getsockname()[1]
        place.server.config.load()
        place.server.lifespan = place.server.config.lifespan_class(place.server.config)
        await place.server.startup(sockets=[listener])
        try:
            yield place
        finally:
            await place.hang_up()
            place.server.force_exit = True
            await place.server.shutdown(sockets=[listener])


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pieces: Callable[[int], bytes]) -> bytes:
    """Send pieces until the server stops reading. Return its response."""
    sent = 0
    try:
        for start in count(step=1000):
            data = b"".join(pieces(number) for number in range(start, start + 1000))
            sent += len(data)
            assert sent < MOST_SENT_BYTES, "the other end takes it all"
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def field(number: int) -> bytes:
    return b"x%d: yyyyyyyy\r\n" % number


ENDLESS: dict[str, tuple[bytes, Callable[[int], bytes]]] = {
    "fields": (POST, field),
    "a value": (POST + b"x: ", lambda _: b"y" * 50),
    "a name": (POST, lambda _: b"y" * 50),
    "a target": (b"GET /", lambda _: b"y" * 50),
    "empty lines": (b"", lambda _: b"\r\n"),
    "trailers": (CHUNKED + b"0\r\n", field),
    "a trailer": (CHUNKED + b"0\r\nx: ", lambda _: b"y" * 50),
    "a chunk extension": (CHUNKED + b"1;", lambda _: b"y" * 50),
    "a chunk size": (CHUNKED, lambda _: b"0" * 50),
    "fields of a WebSocket's handshake": (UPGRADE, field),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_heads_without_end_are_refused(what: str) -> None:
    first, pieces = ENDLESS[what]
    async with listening() as place:
        reader, writer = await place.connect()
        writer.write(first)
        answer = await flood(reader, writer, pieces)
        assert answer[:12] in {b"HTTP/1.1 431", b""}
        assert place.bodies == []


async def test_the_listener_of_metrics_refuses_heads_without_end() -> None:
    settings = load_settings({"data_dir": "/nowhere", "metrics_port": 0}, environ={})
    async with serve_metrics(cast(Any, None), settings, FairScheduler()) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        writer.write(b"GET /metrics HTTP/1.1\r\n")
        assert (await flood(reader, writer, field))[:12] in {b"HTTP/1.1 431", b""}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (POST + b"".join(field(number) for number in range(HEAD_FIELDS - 2)), b"200"),
        (POST + b"".join(field(number) for number in range(HEAD_FIELDS)), b"431"),
        (POST + b"x: " + b"y" * (HEAD_BYTES - 200) + b"\r\n", b"200"),
        (POST + b"x: " + b"y" * HEAD_BYTES + b"\r\n", b"431"),
        (b"GET /" + b"y" * HEAD_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n", b"431"),
        (UPGRADE + b"Cookie: " + b"y" * 10_000 + b"\r\n", b"431"),
    ],
    ids=["fields", "more fields", "bytes", "more bytes", "target", "a line of a WebSocket's handshake"],
)
async def test_the_head_of_a_request_is_bounded(head: bytes, status: bytes) -> None:
    async with listening() as place:
        answer = await place.ask(head + (b"" if head.startswith(UPGRADE) else b"Connection: close\r\n") + b"\r\n")
        assert answer.split()[1] == status
        if status == b"431" and not head.startswith(UPGRADE):
            assert b'"http.head_too_large"' in answer


async def test_a_trailer_is_no_header() -> None:
    async with listening() as place:
        await place.ask(POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nAuthorization: me\r\n\r\n")
        assert place.bodies == [b"x"]
        assert b"authorization" not in dict(place.scopes[0]["headers"])


async def test_requests_that_were_sent_ahead_are_answered_one_after_the_other() -> None:
    async with listening() as place:
        requests = [b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(2000)]
        reader, writer = await place.connect()
        writer.write(b"".join(requests))
        for number in range(len(requests)):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(len(f"/{number}")) == f"/{number}".encode()
            (protocol,) = place.server.server_state.connections
            assert len(cast(BoundedConnection, protocol).pipelined) < SLICE_BYTES // len(requests[0])
        writer.close()


async def test_a_body_in_a_hundred_thousand_chunks_arrives_whole() -> None:
    async with listening() as place:
        chunks = b"1\r\nx\r\n" * 100_000
        await place.ask(POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert place.bodies == [b"x" * 100_000]


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        (b"Content-Length: 0\r\n", b""),
        (b"", b""),
    ],
    ids=["length", "chunks", "empty", "none"],
)
@pytest.mark.parametrize("is_split", [False, True])
async def test_an_unsupported_upgrade_is_ignored(framing: bytes, body: bytes, is_split: bool) -> None:
    requests = [
        POST + H2C + framing + b"\r\n" + body,
        POST + H2C + framing + b"\r\n" + body,
        POST + b"Connection: close\r\nContent-Length: 3\r\n\r\nend",
    ]
    async with listening() as place:
        if not is_split:
            await place.ask(b"".join(requests))
        else:
            reader, writer = await place.connect()
            for byte in b"".join(requests):
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            await reader.read()
        sent = b"hello" if body else b""
        assert place.bodies == [sent, sent, b"end"]


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True, extensions=[])


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def open_socket(place: Listening, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket for hand-written frames."""
    reader, writer = await place.connect(address)
    writer.write(UPGRADE + b"\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


async def test_a_fragmented_message_is_kept_in_one_buffer() -> None:
    async with listening() as place:
        reader, writer = await open_socket(place)
        parts = [frame(Opcode.TEXT, b"a", fin=False), *[frame(Opcode.CONT, b"b", fin=False)] * 20_000]
        parts += [frame(Opcode.CONT, b"", fin=False)] * 20_000
        writer.write(b"".join(parts))
        (protocol,) = place.server.server_state.connections
        writer.write(frame(Opcode.PING, b"all of it?"))
        assert (await reader.readexactly(12)).endswith(b"all of it?")
        assert len(cast(BoundedWebSocket, protocol).frames) == 1
        writer.write(frame(Opcode.CONT, b"c"))
        assert (await reader.readexactly(7)).endswith(b"20002")
        assert place.bodies == [b"a" + b"b" * 20_000 + b"c"]
        writer.close()


async def test_messages_that_the_application_does_not_take_are_not_parsed() -> None:
    async with listening() as place:
        reader, writer = await open_socket(place)
        writer.write(frame(Opcode.TEXT, b"x") * 10_000)
        (protocol,) = place.server.server_state.connections
        for _ in range(10_000):
            assert await reader.readexactly(3) == b"\x81\x011"
            assert cast(BoundedWebSocket, protocol).queue.qsize() < 1000
        writer.close()


async def test_a_message_that_is_not_utf8_ends_the_connection_without_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as place:
        reader, writer = await open_socket(place)
        writer.write(frame(Opcode.TEXT, b"\xff"))
        assert await reader.read() == b"\x88\x02\x03\xef"
        writer.close()
    assert not caplog.records


async def test_pings_without_end_do_not_fill_the_memory_with_pongs() -> None:
    async with listening() as place:
        _, writer = await open_socket(place)
        cast(asyncio.Transport, writer.transport).pause_reading()
        (protocol,) = place.server.server_state.connections
        transport = cast(BoundedWebSocket, protocol).transport
        pings, sent = frame(Opcode.PING, b"x" * 125) * 500, 0
        while transport.get_write_buffer_size() < 64 * 1024:
            writer.write(pings)
            sent += len(pings)
            assert sent < MOST_SENT_BYTES
            await asyncio.sleep(0)
        for _ in range(200):
            writer.write(pings)
            await asyncio.sleep(0)
        assert transport.get_write_buffer_size() < 256 * 1024
        writer.transport.abort()


FEW: dict[str, object] = {"max_body_bytes": 200_000, "held_bytes": 600_000, "held_bytes_per_client": 400_000}


async def test_unfinished_bodies_of_a_client_are_bounded_together() -> None:
    async with listening(**FEW) as place:
        head = POST + b"Content-Length: 200000\r\n\r\n"
        held = [await place.connect() for _ in range(2)]
        for _, writer in held:
            writer.write(head + b"x" * 199_999)
        await until(lambda: place.guard.limits.memory.used_bytes == 2 * 199_999)
        reader, writer = await place.connect()
        writer.write(head + b"x" * 100_000)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 429")
        assert place.refusals == ["data held for this client would be more than 400000 bytes"]
        # A small one always fits, and abandoned ones free their space.
        assert (await place.ask(POST + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")).startswith(b"HTTP/1.1 200")
        for _, other in held:
            other.close()
        await until(lambda: place.guard.limits.memory.used_bytes == 0)
        answer = await place.ask(POST + b"Connection: close\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
        assert answer.startswith(b"HTTP/1.1 200")
        assert not place.guard.limits.memory.per_client
        writer.close()


async def test_clients_behind_a_trusted_proxy_have_bounds_of_their_own() -> None:
    async with listening(**FEW, trusted_proxies="127.0.0.1", connections_per_client=1) as place:
        held = [await place.connect() for _ in range(4)]
        for number, (_, writer) in enumerate(held):
            named = b"X-Forwarded-For: 192.0.2.%d\r\n" % number
            writer.write(POST + named + b"Content-Length: 200000\r\n\r\n" + b"x" * 199_000)
        # Three of four fit into what all of them may take.
        await until(lambda: len(place.refusals) == 1)
        assert place.refusals == ["data held for all clients would be more than 600000 bytes"]
        assert place.guard.limits.memory.per_client.keys() < {f"192.0.2.{number}" for number in range(4)}
        for _, writer in held:
            writer.close()


async def test_unfinished_messages_of_a_client_are_bounded_together() -> None:
    async with listening(**FEW) as place:
        whole = frame(Opcode.TEXT, b"x" * 199_000)
        held = [await open_socket(place) for _ in range(2)]
        for _, writer in held:
            writer.write(whole[:-1])
        await until(lambda: place.guard.limits.memory.used_bytes > 390_000)
        async with connect(place.url, proxy=None) as third:
            await third.send("x" * 90_000)
            with pytest.raises(ConnectionClosedError) as closed:
                await third.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, "would be more than" in closed.value.rcvd.reason) == (1013, True)
        for _, writer in held:
            writer.write(whole[-1:])
        for reader, writer in held:
            assert (await reader.readexactly(8)).endswith(b"199000")
            writer.close()
        await until(lambda: place.guard.limits.memory.used_bytes == 0)


@pytest.mark.parametrize("rest", [frame(Opcode.TEXT, b"x" * 190_000)[:-1], frame(Opcode.TEXT, b"x" * 190_000, fin=False)])
async def test_disconnecting_within_a_message_releases_memory(rest: bytes) -> None:
    async with listening(**FEW) as place:
        _, writer = await open_socket(place)
        writer.write(frame(Opcode.TEXT, b"before") + rest)
        await until(lambda: place.guard.limits.memory.used_bytes > 180_000)
        writer.transport.abort()
        await until(lambda: not place.server.server_state.tasks and not place.server.server_state.connections)
        assert (place.bodies, place.guard.limits.memory.used_bytes) == ([b"before"], 0)


LARGE = 20_000_000
"""More than the kernel takes for a client that does not read."""


async def test_answers_that_a_client_does_not_take_are_bounded_together() -> None:
    async with listening(**FEW) as place:
        request = b"GET /big/%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        reader, writer = await place.connect()
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(request % LARGE)
        # An answer may be of any size while nothing else is held.
        await until(lambda: place.guard.limits.memory.used_bytes == LARGE)
        refused = await place.ask(request % 100_000)
        assert refused.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 1" in refused
        assert b'"capacity.bodies_full"' in refused
        assert (await place.ask(request % 1000)).endswith(b"x" * 1000)
        cast(asyncio.Transport, writer.transport).resume_reading()
        assert (await reader.read()).endswith(b"x" * LARGE)
        await until(lambda: place.guard.limits.memory.used_bytes == 0)
        assert (await place.ask(request % 100_000)).endswith(b"x" * 100_000)


async def test_messages_that_a_client_does_not_take_are_bounded_together() -> None:
    async with listening(**FEW) as place:
        ask = frame(Opcode.TEXT, b"big %d" % LARGE)
        _, first = await open_socket(place)
        cast(asyncio.Transport, first.transport).pause_reading()
        first.write(ask)
        await until(lambda: place.guard.limits.memory.used_bytes > LARGE // 2)
        reader, second = await open_socket(place)
        cast(asyncio.Transport, second.transport).pause_reading()
        second.write(ask)
        await until(lambda: len(place.server.server_state.connections) == 1)
        cast(asyncio.Transport, second.transport).resume_reading()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(LARGE)
        first.transport.abort()
        await until(lambda: place.guard.limits.memory.used_bytes == 0)


async def test_connections_of_a_client_are_bounded() -> None:
    async with listening(connections_per_client=2) as place:
        first, (_, second) = await open_socket(place), await place.connect()
        await until(lambda: len(place.server.server_state.connections) == 2)
        answer = await place.ask(b"")
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"http.too_many_connections"' in answer
        with pytest.raises(InvalidStatus):
            await connect(place.url, proxy=None)
        first[1].close()
        second.close()
        await until(lambda: not place.server.server_state.connections)
        assert (await place.ask(POST + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_requests_without_end_let_others_come_first() -> None:
    connections, requests = 40, 10
    async with listening() as place:
        flooding = [(await place.connect(FLOODING))[1] for _ in range(connections)]
        reader, writer = await place.connect()
        for number, each in enumerate(flooding):
            each.write(b"".join(get(b"/%d/%d" % (number, index)) for index in range(requests)))
        writer.write(get(b"/other"))
        await reader.readuntil(b"/other")
        assert len(place.scopes) < connections // 2, "those of the others were served first"
        await until(lambda: len(place.scopes) == connections * requests + 1)


async def test_messages_without_end_let_others_come_first() -> None:
    connections, messages = 20, 50
    async with listening() as place:
        flooding = [(await open_socket(place, FLOODING))[1] for _ in range(connections)]
        reader, writer = await open_socket(place)
        for each in flooding:
            each.write(frame(Opcode.TEXT, b"12345") * messages)
        writer.write(frame(Opcode.TEXT, b"1"))
        await reader.readexactly(3)
        assert len(place.bodies) < messages // 2, "those of the others were served first"
        await until(lambda: len(place.bodies) == connections * messages + 1)


async def test_a_large_message_goes_out_in_frames_as_its_reader_takes_them() -> None:
    size = 16 << 20
    async with listening() as place:
        reader, writer = await open_socket(place)
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(frame(Opcode.TEXT, b"big %d" % size))
        await until(lambda: place.guard.limits.memory.used_bytes > size // 2)
        (protocol,) = place.server.server_state.connections
        assert cast(BoundedWebSocket, protocol).transport.get_write_buffer_size() < 2 * FRAME_CHARACTERS
        cast(asyncio.Transport, writer.transport).resume_reading()
        received, frames, is_last = 0, 0, False
        while not is_last:
            head = await reader.readexactly(10)
            is_last, length = bool(head[0] & 0x80), int.from_bytes(head[2:])
            assert (head[0] & 0xF, head[1]) == (Opcode.CONT if frames else Opcode.TEXT, 127)
            assert await reader.readexactly(length) == b"x" * length
            received, frames = received + length, frames + 1
        assert (received, frames) == (size, size // FRAME_CHARACTERS)
        await until(lambda: place.guard.limits.memory.used_bytes == 0)


async def test_a_connection_is_cut_off_when_the_application_gives_up_within_a_message() -> None:
    async with listening() as place:
        reader, writer = await open_socket(place)
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(frame(Opcode.TEXT, b"big %d" % (16 << 20)))
        await until(lambda: place.guard.limits.memory.used_bytes > 0)
        for task in place.server.server_state.tasks:
            task.cancel()
        cast(asyncio.Transport, writer.transport).resume_reading()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(16 << 20)
        await until(lambda: place.guard.limits.memory.used_bytes == 0)
