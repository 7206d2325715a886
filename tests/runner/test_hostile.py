"""What a hostile gRPC client cannot do to the server and to other clients."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog.testing

from firebox.doors.runner import grpc_messages, guard
from firebox.doors.runner.grpc_logs import SparingLog
from firebox.doors.runner.proto.runner_pb2 import CodeRequest
from firebox.doors.runner.servicer import add_reflection
from firebox.settings.settings import load_settings
from tests.runner.conftest import CONNECTIONS_OF_A_CLIENT
from tests.runner.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    call,
    field,
    frame,
    head,
)
from tests.support.server import RunningServer
from tests.support.waiting import wait_until

MIB = 1024 * 1024
INVALID_ARGUMENT, RESOURCE_EXHAUSTED = 3, 8
ECHO = CodeRequest(code="echo served", language="bash").SerializeToString()
OTHER = "127.0.0.2"
LIST_SERVICES = b"\x3a\x00"
"""A question of reflection: field 7, empty."""

METHODS = [
    "/runner.Runner/RunCode",
    "/runner.Runner/DeleteCode",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
]


@pytest.fixture
def place(server: RunningServer) -> str:
    return str(server.ready["grpc"])


def memory_bytes(server: RunningServer) -> int:
    status = (Path("/proc") / str(server.ready["pid"]) / "status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def is_served(place: str, source: str = OTHER) -> bool:
    with Connection(place, source) as connection:
        connection.send(call(1, ECHO))
        return next(connection.ends())[1] == 0


async def test_invalid_messages_get_our_error_and_are_logged_once(server: RunningServer, channel: grpc.aio.Channel) -> None:
    before = len(server.log.read_text())
    for method in METHODS * 5:
        ask: Any = channel.stream_stream(method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in ask(iter([b"\xff\xff\xff"])):
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "the message is not a valid protocol buffer of its type"
    logged = server.log.read_text()[before:]
    assert "Traceback" not in logged
    assert "DecodeError" not in logged
    assert logged.count("gRPC calls rejected") <= 1


@pytest.mark.parametrize("sent", [b"", b"\0\0\0\0\x05ab"], ids=["none", "cut off"])
def test_a_call_without_a_whole_message_ends(place: str, sent: bytes) -> None:
    with Connection(place) as connection:
        connection.send(call(1) + frame(0, END_STREAM, 1, sent))
        assert next(connection.ends()) == (1, INVALID_ARGUMENT, "the call has no message")


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        pytest.param(b"", b"".join(field(b"x%d" % number, b"y" * 8) for number in range(1000)), id="fields"),
        pytest.param(field(b"x", b"y" * 3900, remembered=True), b"\xbe" * 16000, id="references to a long field"),
        pytest.param(b"\x00\x7f\x81\xc2\xd7\x2f", b"y" * 16000, id="a long name"),
        pytest.param(b"\x00\x01x\x7f\x81\xc2\xd7\x2f", b"y" * 16000, id="a long value"),
        pytest.param(b"", b"", id="empty frames"),
    ],
)
def test_a_head_without_an_end_is_cut_off(server: RunningServer, place: str, begin: bytes, more: bytes) -> None:
    before = memory_bytes(server)
    with Connection(place) as connection:
        connection.send(frame(HEADERS, 0, 1, head(more=begin)))
        assert connection.is_closed_by(frame(CONTINUATION, 0, 1, more) * 100, times=1000)
    assert is_served(place)
    assert memory_bytes(server) - before < 40 * MIB


@pytest.mark.parametrize("sent", [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0), frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")])
def test_frames_without_an_end_are_cut_off(place: str, sent: bytes) -> None:
    with Connection(place, "127.0.0.4") as connection:  # whose others are cut off as well for a moment
        assert connection.is_closed_by(sent * 1000, times=1000)
    assert is_served(place)


def test_metadata_is_bounded(place: str) -> None:
    large, many = field(b"x", b"y" * 10_000), field(b"x", b"y")
    with Connection(place) as connection:
        connection.send(call(1, ECHO, more=large * 5) + call(3, ECHO, more=many * 90))
        assert [status for _, (_, status, _) in zip(range(2), connection.ends(), strict=False)] == [0, 0]
        connection.send(call(5, ECHO, more=many * 101))
        assert next(connection.ends()) == (5, INVALID_ARGUMENT, "metadata: there are more than 100 fields")
        # Packed it is small: the long value is sent once.
        connection.send(call(7, ECHO, more=field(b"x", b"y" * 3900, remembered=True) + b"\xbe" * 30))
        assert next(connection.ends()) == (7, INVALID_ARGUMENT, "metadata: the fields have more than 65536 bytes")
        connection.send(call(9, ECHO, more=large * 7))
        assert list(connection.ends()) == []


def test_calls_without_messages_do_not_keep_others_out(place: str) -> None:
    """One client opens as many calls as possible and sends no message for any of them."""
    with Connection(place) as first, Connection(place) as second:
        first.send(b"".join(call(stream) for stream in range(1, 2 * grpc_messages.CALLS_OF_AN_ADDRESS, 2)))
        # A call that came between them would wait for as long as they do.
        first.send(frame(PING, 0, 0, b"12345678"))
        assert PING in (kind for kind, *_ in first.frames())
        end = (0, 0, "")
        for stream in count(1, 2):  # until the server has come to the last one of the first connection
            second.send(call(stream, ECHO))
            if (end := next(second.ends()))[1:] != (0, ""):
                break
        assert end[1:] == (RESOURCE_EXHAUSTED, "this client already has 256 calls in progress")
        assert is_served(place)
    wait_until(lambda: is_served(place, "127.0.0.1"), "the server notices that the calls are gone")


def test_connections_of_one_client_do_not_keep_others_out(place: str) -> None:
    opened = [Connection(place, "127.0.0.3") for _ in range(CONNECTIONS_OF_A_CLIENT)]
    for connection in opened:
        assert next(connection.frames())[0] == SETTINGS  # the server has begun to serve it
    with Connection(place, "127.0.0.3") as refused:
        assert list(refused.frames()) == []
    assert is_served(place)
    for connection in opened:
        connection.__exit__()


def test_another_protocol_is_cut_off(place: str) -> None:
    with Connection(place, begin=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        assert list(connection.frames()) == []


async def test_only_so_many_messages_come_in_at_once() -> None:
    limits = {"max_body_bytes": MIB, "held_bytes_per_client": 2 * MIB, "held_bytes": 8 * MIB}
    intake = grpc_messages.Intake(load_settings(limits, environ={}))
    reading: list[str] = []
    done = asyncio.Event()

    async def read(address: str) -> None:
        async with intake.place(address):
            reading.append(address)
            await done.wait()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for address in ["greedy"] * 20 + [f"other {number}" for number in range(6)]:
            group.create_task(read(address))
        while len(reading) < 8:
            await asyncio.sleep(0)
        assert reading.count("greedy") == 2
        done.set()
    assert len(reading) == 26
    assert intake._addresses == {}


async def test_an_idle_stream_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep a place for as long as its client likes."""

    async def refuse(context: Any, error: Exception) -> None:
        await context.abort(grpc.StatusCode.INTERNAL, str(error))

    monkeypatch.setattr(grpc_messages, "PAUSE_S", 0.1)
    alone = {"max_body_bytes": MIB, "held_bytes_per_client": MIB}
    server = grpc.aio.server(interceptors=[grpc_messages.Messages(load_settings(alone, environ={}), refuse)])
    add_reflection(server, [])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask: Any = channel.stream_stream(METHODS[-1])
        silent, other = ask(), ask(iter([LIST_SERVICES]))
        await silent.write(LIST_SERVICES)
        assert b"ServerReflection" in await silent.read()
        async with asyncio.timeout(30):
            assert b"ServerReflection" in await other.read()
            assert await silent.read() == grpc.aio.EOF
            assert await silent.code() is grpc.StatusCode.OK
    await server.stop(None)


def test_heads_are_followed_wherever_the_pieces_of_a_connection_end() -> None:
    sent = call(1, ECHO, more=field(b"x", b"y" * 40_000)) * 3
    whole = guard.Frames(OTHER, guard.FrameRate())
    for index in range(len(sent)):
        assert b"".join(whole.feed(sent[index : index + 1])) == sent[index : index + 1]
    list(whole.feed(frame(HEADERS, 0, 1, b"x" * guard.HEAD_BYTES)))
    with pytest.raises(guard.OutOfBounds):
        list(whole.feed(frame(CONTINUATION, END_HEADERS, 1, b"x")))


def test_calls_and_many_frames_are_passed_on_in_parts() -> None:
    pings = frame(PING, 0, 0, b"12345678")
    frames = guard.Frames(OTHER, guard.FrameRate())
    sent = call(1, ECHO) * 3 + pings * guard.FRAMES_A_TURN * 2
    parts = list(frames.feed(sent))
    assert b"".join(parts) == sent
    assert len(parts) > 3 + 2
    assert max(part.count(pings) for part in parts) <= guard.FRAMES_A_TURN


def test_frames_of_a_client_are_counted_together_and_anew_every_second() -> None:
    now = 0.0
    rate = guard.FrameRate(lambda: now)

    def connect_and_send(client: str, frames: int) -> None:
        list(guard.Frames(client, rate).feed(frame(PING, 0, 0, b"12345678") * frames))

    for _ in range(2):
        connect_and_send("192.0.2.1", guard.FRAMES_A_SECOND - 1)
        connect_and_send("192.0.2.1", 1)
        with pytest.raises(guard.OutOfBounds):
            connect_and_send("192.0.2.1", 1)
        connect_and_send("192.0.2.2", 1)
        now += 1.0


def test_what_happens_again_and_again_is_logged_once() -> None:
    with structlog.testing.capture_logs() as lines:
        log = SparingLog("test")
        for _ in range(1000):
            log.info("refused", reason="one", address="192.0.2.1")
        log.info("refused", reason="another", address="192.0.2.1")
    assert [(line["reason"], line["left_out"]) for line in lines] == [("one", 0), ("another", 0)]
