"""Engine.IO 3 by hand: what clients of versions 1 and 2 may do, and what no client may."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.grounds.conftest import PATIENCE_S, Place, polling
from tests.support.server import RunningServer

RUN = '42["run",{"language":"sh","code":"echo fine"}]'
POLICY = 1008
REFUSED = '42["run",{"stream":"error","chunk":"The code is not text."}]'


def socket_address(url: str, sid: str = "") -> str:
    return f"{url.replace('http', 'ws')}/socket.io/?EIO=3&transport=websocket" + (f"&sid={sid}" if sid else "")


async def hear(socket: ClientConnection) -> str:
    packet = await asyncio.wait_for(socket.recv(), PATIENCE_S)
    assert isinstance(packet, str)
    return packet


async def close_code(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionClosed):
            while True:
                await hear(socket)
    return socket.close_code


async def test_a_client_is_connected_from_the_start(place: Place) -> None:
    async with polling(place.url, revision=3) as poller:
        await poller.post(RUN)
        assert any("fine" in packet for packet in await poller.poll_until('"status"'))
    async with connect(socket_address(place.url), proxy=None) as socket:
        greeting = json.loads((await hear(socket))[1:])
        assert greeting["upgrades"] == []
        assert await hear(socket) == "40"
        await socket.send("2")
        assert await hear(socket) == "3"
        place.clock.pass_by(1)
        await socket.send('427["run",{"language":"nothing","code":""}]')
        assert await hear(socket) == "437[]"
        assert '"error"' in await hear(socket)


async def test_an_upgrade_ends_the_waiting_poll(place: Place) -> None:
    async with polling(place.url, revision=3) as poller:
        waiting = asyncio.create_task(poller.poll())
        async with connect(socket_address(place.url, poller.sid), proxy=None) as socket:
            await socket.send("2probe")
            assert await hear(socket) == "3probe"
            assert await waiting == ["6"]
            assert await poller.poll() == ["6"], "polls are answered at once while the client changes over"
            await socket.send("5")
            await socket.send(RUN)
            heard = [await hear(socket)]
            while '"status"' not in heard[-1]:
                heard.append(await hear(socket))
            assert any("fine" in packet for packet in heard)
            for request in (poller.ask_for_packets(), poller.send("1:2")):
                assert (await request).json() == {"code": 3, "message": "Bad request"}
        # The end of the WebSocket is the end of the session.
        async with asyncio.timeout(PATIENCE_S):
            while (await poller.ask_for_packets()).json()["message"] != "Session ID unknown":
                pass


async def test_an_upgrade_without_a_pause_ends_the_waiting_poll(place: Place) -> None:
    async with polling(place.url, revision=3) as poller:
        waiting = asyncio.create_task(poller.poll())
        async with connect(socket_address(place.url, poller.sid), proxy=None) as socket:
            await socket.send("2probe")
            await socket.send("5")
            await socket.send(RUN)
            assert await hear(socket) == "3probe"
            while '"status"' not in await hear(socket):
                pass
            assert await waiting == ["6"]


async def test_pages_may_read_why_a_transport_is_refused(place: Place) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{place.url}/socket.io/?EIO=3&transport=websocket", headers={"Origin": place.url})
    assert answer.json() == {"code": 0, "message": "Transport unknown"}
    assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("revision", [3, 4])
async def test_a_session_upgrades_once(place: Place, revision: int) -> None:
    async with polling(place.url, revision=revision) as poller:
        address = socket_address(place.url, poller.sid)
        async with connect(address, proxy=None) as socket:
            await socket.send("2probe")
            assert await hear(socket) == "3probe"
            for wait_for in ("before", "after"):
                with pytest.raises(Exception, match="HTTP 403"):
                    await connect(address, proxy=None)
                if wait_for == "before":
                    await socket.send("5")
                    await socket.send(RUN)
                    while '"status"' not in await hear(socket):
                        pass


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"abc",
        b"9999999:2",
        b"-1:2",
        "²:2a".encode(),
        b"1:2" * 65,
        b"2:2x",
        b"1:3",
        b"1:5",
        b"1:0",
        b"1:6",
        b"6:2probe",
        b"2:47",
        b"1:b",
        b"3:4\xff\xff",
        b"100002:42" + b"[" * 100_000,
        b'16:451-["connect"] ',
        b"4" * 1_000_001,
    ],
    ids=range(18),
)
async def test_a_malformed_payload_ends_the_session_and_its_run(place: Place, body: bytes) -> None:
    async with polling(place.url, revision=3) as poller:
        await poller.post('42["run",{"language":"sh","code":"sleep 600"}]')
        await poller.poll_until('"start"')
        answer = await poller.send(body)
        assert answer.status_code in {400, 413}
        assert answer.json()["message"]
        assert (await poller.send("1:2")).json() == {"code": 1, "message": "Session ID unknown"}
        await place.is_idle()


async def test_a_flood_of_pings_closes_the_connection(place: Place) -> None:
    async with connect(socket_address(place.url), proxy=None) as socket:
        closed = asyncio.create_task(close_code(socket))
        while not closed.done():
            try:
                await socket.send("2")
            except ConnectionClosed:
                break
        assert await closed == POLICY
    async with polling(place.url, revision=3) as poller:
        answers = [await poller.send("1:2" * 50) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [400]


async def test_binary_data_in_a_request_is_an_error(place: Place) -> None:
    event = '451-["run",{"language":"sh","code":{"_placeholder":true,"num":0}}]'
    async with connect(socket_address(place.url), proxy=None) as socket:
        assert [(await hear(socket))[:1], await hear(socket)] == ["0", "40"]
        await socket.send(event)
        await socket.send(b"\x04echo")
        assert await hear(socket) == REFUSED
    async with polling(place.url, revision=3) as poller:
        await poller.post(event, "b4" + base64.b64encode(b"echo").decode())
        assert await poller.poll() == [REFUSED]
    async with polling(place.url, revision=3) as poller:
        digits = bytes(map(int, str(len(event))))
        body = bytes([0, *digits, 255]) + event.encode() + bytes([1, 5, 255]) + b"\x04echo"
        assert (await poller.send(body, "application/octet-stream")).text == "ok"
        assert await poller.poll() == [REFUSED]


@pytest.mark.parametrize("revision", [3, 4])
@pytest.mark.parametrize("j", ["0", "0);alert(1);//", "<script>alert(1)</script>"])
async def test_jsonp_is_refused_without_repeating_it(server: RunningServer, revision: int, j: str) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE_S) as http:
        query = {"EIO": str(revision), "transport": "polling", "j": j}
        answer = await http.get("/socket.io/", params=query)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
        assert answer.json() == {"code": 3, "message": "JSONP is not supported"}


async def test_polls_that_overlap_end_the_session(place: Place) -> None:
    async with polling(place.url, revision=3) as poller:
        hang_up = await poller.begin_poll()
        await poller.post("430[]")  # answered after the server has seen the poll
        assert (await poller.ask_for_packets()).json()["message"] == "overlapping polls"
        assert (await poller.ask_for_packets()).json()["message"] == "Session ID unknown"
        await hang_up()


async def test_pages_of_allowed_sites_may_read_answers_to_requests_with_credentials(
    start_server: Callable[..., RunningServer],
) -> None:
    """The clients of a browser ask so, and it would keep the answer from them. Those of versions 3 and 4 do not."""
    server = start_server("--cors-origins", "https://pages.test")
    expected: list[Any] = [(3, "https://pages.test", "true"), (4, "https://pages.test", None), (3, "https://other.test", None)]
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        for revision, origin, allowed in expected:
            answer = await http.get(f"/socket.io/?EIO={revision}&transport=polling", headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-credentials") == allowed
            assert answer.headers["cache-control"] == "no-store"
        again = await http.get("/socket.io/?EIO=3&sid=nobody", headers={"Origin": "https://pages.test"})
        assert (again.status_code, again.headers["access-control-allow-credentials"]) == (400, "true")
