"""Clients that break the rules get clean answers, and the log no traceback."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from firebox.doors.grounds.socketio_server import SESSIONS_PER_ADDRESS
from tests.grounds.conftest import PATIENCE_S, Place, connected, log_of, polling, text
from tests.support.server import RunningServer

POLICY = 1008
RUN = "42" + json.dumps(["run", {"language": "bash", "code": "echo fine"}])


@asynccontextmanager
async def raw(url: str, *, join: bool = True, **options: Any) -> AsyncGenerator[ClientConnection]:
    """A WebSocket to be spoken by hand."""
    address = url.replace("http://", "ws://") + "/socket.io/?EIO=4&transport=websocket"
    async with connect(address, proxy=None, max_size=None, open_timeout=PATIENCE_S, **options) as socket:
        assert (await hear(socket))[0] == "0"
        if join:
            await socket.send("40")
            assert (await hear(socket)).startswith('40{"sid":')
        yield socket


async def hear(socket: ClientConnection) -> str:
    packet = await asyncio.wait_for(socket.recv(), PATIENCE_S)
    assert isinstance(packet, str)
    return packet


async def close_of(socket: ClientConnection) -> tuple[int, str]:
    with suppress(ConnectionClosed):
        async with asyncio.timeout(PATIENCE_S):  # pings come for as long as it is open
            while True:
                await hear(socket)
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


@pytest.fixture
def quiet(server: RunningServer) -> RunningServer:
    """The server, whose log must hold no traceback: see `check`."""
    return server


def check(server: RunningServer) -> None:
    log = log_of(server)
    assert "Traceback" not in log
    assert "    | " not in log


MALFORMED = [
    "",
    "4",
    "x",
    "9",
    "0",
    "2",
    "2probe",
    "5",
    "6",
    "4x",
    "47",
    "4²",
    "42",
    "42{}",
    "42[]",
    "42[5]",
    "42[[]]",
    '42["connect"]',
    '42["connect",{"asgi.scope":{}}]',
    '42["disconnect"]',
    '42["run"',
    '42["run",NaN]',
    '42["run",{"language":"bash","language":"bash"}]',
    "42" + "[" * 100_000,
    '4299999999999999999999["run"]',
    '42/other["run",1]',
    '42/other{"a":1,"b":2}',
    '421-["run"]',
    '451-["connect",{"_placeholder":true,"num":0}]',
    '459999999999-["run",{"_placeholder":true,"num":0}]',
    '4511-["run"]',
    "44",
    "40[]",
    '40"token"',
    "b",
    "bAAAA",
    "4" + "2" * 1_000_001,
]


@pytest.mark.parametrize("packet", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_packet_closes_the_connection_with_words(server: RunningServer, packet: str) -> None:
    async with raw(server.url) as socket:
        await socket.send(packet)
        code, reason = await close_of(socket)
        assert code == POLICY
        assert reason
    async with polling(server.url) as poller:
        answer = await poller.send(packet)
        assert answer.status_code in {400, 413}
        assert answer.json()["message"]
        assert (await poller.send(RUN)).json() == {"code": 1, "message": "Session ID unknown"}
    check(server)


USELESS = ["3", "43[]", "430[1]", "40/other,", '42/other,["run",1]', '42["other",1]', '42["run"]', "41/other,"]


@pytest.mark.parametrize("packet", USELESS)
async def test_a_packet_of_no_use_changes_nothing(server: RunningServer, packet: str) -> None:
    async with raw(server.url) as socket:
        await socket.send(packet)
        await socket.send(RUN)
        heard = [await hear(socket)]
        async with asyncio.timeout(PATIENCE_S):
            while "status" not in heard[-1] and "Spam" not in heard[-1]:
                heard.append(await hear(socket))
    check(server)


async def test_binary_data_in_a_request_is_an_error(server: RunningServer) -> None:
    event = '451-["run",{"language":"bash","code":{"_placeholder":true,"num":0}}]'
    words = '42["run",{"stream":"error","chunk":"The code is not text."}]'
    async with raw(server.url) as socket:
        await socket.send(event)
        await socket.send(b"echo")
        assert await hear(socket) == words
    async with polling(server.url) as poller:
        await poller.post(event, "b" + base64.b64encode(b"echo").decode())
        assert await poller.poll() == [words]
    check(server)


async def test_binary_data_that_belongs_to_nothing_closes_the_connection(server: RunningServer) -> None:
    for packets in ([b"\x00"], ['451-["run",{"_placeholder":true,"num":0}]', RUN]):
        async with raw(server.url) as socket:
            for packet in packets:
                await socket.send(packet)
            assert (await close_of(socket))[0] == POLICY
    check(server)


async def test_a_lone_surrogate_is_an_error(server: RunningServer) -> None:
    async with raw(server.url) as socket:
        await socket.send('42["run",{"language":"bash","code":"\\ud800"}]')
        assert "lone surrogate" in await hear(socket)
    async with raw(server.url) as socket:
        await socket.send('42["run",{"language":"\\ud800\\n","code":""}]')
        assert '"error"' in await hear(socket)
    check(server)


@pytest.mark.parametrize("join", [True, False])
async def test_a_flood_of_packets_closes_the_connection(server: RunningServer, join: bool) -> None:
    packet = RUN if join else "40/x,"
    async with raw(server.url, join=join) as socket:
        # Who takes no answers is not read from either: only one that reads can flood.
        reading = asyncio.create_task(close_of(socket))
        async with asyncio.timeout(PATIENCE_S):
            while not reading.done():
                with suppress(ConnectionClosed):
                    await socket.send(packet)
                await asyncio.sleep(0)
        code, reason = await reading
        assert code == POLICY
        assert reason == ("too many packets" if join else "too many attempts to connect")
    async with polling(server.url, join=join) as poller:
        answers = [await poller.send("\x1e".join([packet] * 50)) for _ in range(5)]
        assert answers[-1].status_code == 400
    check(server)


async def test_a_broken_frame_amid_output_ends_the_connection(server: RunningServer) -> None:
    for number in range(10):
        # From several addresses: each may ask for few runs at a time.
        async with raw(server.url, local_addr=(f"127.0.7.{number + 1}", 0)) as socket:
            await socket.send("42" + json.dumps(["run", {"language": "bash", "code": "while :; do echo more; done"}]))
            while "more" not in await hear(socket):
                pass
            socket.transport.write(b"\x8f\x80abcd")  # a reserved opcode
            assert (await close_of(socket))[0] in {1002, 1006}  # the reason, unless the end overtakes it
    check(server)


async def test_more_packets_than_one_post_may_hold_are_refused(server: RunningServer) -> None:
    async with polling(server.url) as poller:
        answer = await poller.send("\x1e".join(["3"] * 65))
        assert answer.json() == {"code": 3, "message": "too many packets"}
    check(server)


@pytest.mark.parametrize(
    ("method", "query", "status", "code"),
    [
        ("GET", "", 400, 5),
        ("GET", "EIO=2&transport=polling", 400, 5),
        ("GET", "EIO=5&transport=polling", 400, 5),
        ("GET", "EIO=3&EIO=4&transport=polling", 400, 5),
        ("GET", "EIO=4&EIO=4&transport=polling", 400, 5),
        ("GET", "EIO=4&transport=pigeon", 400, 0),
        ("GET", "EIO=4&transport=websocket", 400, 0),
        ("GET", "EIO=4&transport=polling&sid=nobody", 400, 1),
        ("GET", "EIO=4&transport=polling&sid=a&sid=b", 400, 3),
        ("GET", "EIO=4&transport=polling&j=0", 400, 3),
        ("POST", "EIO=4&transport=polling", 400, 2),
        ("POST", "EIO=4&transport=polling&sid=nobody", 400, 1),
        ("PUT", "EIO=4&transport=polling", 405, 2),
        ("GET", "EIO=4&transport=polling" + "&a=b" * 100, 400, 3),
        ("GET", "%ff=%ff", 400, 5),
    ],
)
async def test_a_request_that_is_none_of_the_protocol_is_refused(
    server: RunningServer, method: str, query: str, status: int, code: int
) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE_S) as http:
        answer = await http.request(method, f"/socket.io/?{query}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert (await http.get("/socket.io/below/?EIO=4")).status_code == 404
    check(server)


async def test_a_body_that_is_too_large_or_not_text_is_refused(server: RunningServer) -> None:
    for body, status in ((b"4" * 1_000_001, 413), (b"4\xff", 400)):
        async with polling(server.url) as poller:
            assert (await poller.send(body)).status_code == status
    check(server)


async def test_polls_and_posts_that_overlap_end_the_session(place: Place) -> None:
    async with polling(place.url) as poller:
        hang_up = await poller.begin_poll()
        await poller.post("3")
        assert (await poller.ask_for_packets()).json()["message"] == "overlapping polls"
        assert (await poller.ask_for_packets()).json()["message"] == "Session ID unknown"
        await hang_up()


async def test_a_handover_that_is_none_leaves_the_session_polling(server: RunningServer) -> None:
    async with polling(server.url) as poller:
        address = f"{server.url}/socket.io/?EIO=4&transport=websocket&sid={poller.sid}".replace("http:", "ws:")
        for packets in (["42[]"], ["2probe", RUN], []):
            async with connect(address, proxy=None) as socket:
                for packet in packets:
                    await socket.send(packet)
                if packets:
                    assert (await close_of(socket))[0] == POLICY
        await poller.post(RUN)
        assert any("fine" in packet for packet in await poller.poll_until('"status"'))
    check(server)


@pytest.mark.slow
async def test_one_client_may_have_so_many_connections(place: Place) -> None:
    async with httpx.AsyncClient(base_url=place.url, trust_env=False, timeout=PATIENCE_S) as http:
        address = "/socket.io/?EIO=4&transport=polling"
        opened = [json.loads((await http.get(address)).text[1:])["sid"] for _ in range(SESSIONS_PER_ADDRESS)]
        refused = await http.get(address)
        assert (refused.status_code, refused.json()["message"]) == (429, "too many connections")
        with pytest.raises(InvalidStatus):
            async with raw(place.url):
                pass
        assert (await http.post(f"{address}&sid={opened[0]}", content="1")).status_code == 200
        assert (await http.get(address)).status_code == 200


@pytest.mark.slow
async def test_requests_of_many_connections_are_bounded_together(place: Place) -> None:
    async with connected(place.url) as first:
        refused = 0
        for _ in range(25):
            async with polling(place.url) as poller:
                await poller.post('42["run",{"language":"sh","code":""}]')
                heard = await poller.poll_until('"status"', '"error"')
                refused += "Spam prevention." in heard[-1]
        assert refused == 5
        place.clock.pass_by(0.5)
        assert text(await first.run("sh", "echo later")) == "later\n"


async def test_a_second_request_within_half_a_second_is_refused(place: Place) -> None:
    async with connected(place.url) as client:
        await client.run("sh", "")
        place.clock.pass_by(0.49)
        assert await client.run("sh", "") == [{"stream": "error", "chunk": "Spam prevention."}]
        place.clock.pass_by(0.01)
        assert (await client.run("sh", ""))[-1] == {"stream": "status", "chunk": 0}
        assert await client.run("sh", "") == [{"stream": "error", "chunk": "Spam prevention."}]


async def test_an_empty_request_counts_as_one(place: Place) -> None:
    async with connected(place.url) as client:
        await client.io.emit("run")
        assert (await client.hear_all())[-1]["chunk"] == "Request is empty."
        assert (await client.run("sh", ""))[-1]["chunk"] == "Spam prevention."


async def test_a_session_without_a_joined_client_runs_nothing(server: RunningServer) -> None:
    async with raw(server.url, join=False) as socket:
        await socket.send(RUN)
        await socket.send("40")
        assert (await hear(socket)).startswith('40{"sid":')
    check(server)
