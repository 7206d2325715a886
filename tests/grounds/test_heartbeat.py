"""Clients that fall silent lose their sessions, in either protocol; those that do as it says keep them."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect

from firebox.doors.grounds import socketio_session
from tests.grounds.conftest import PATIENCE_S, Place, polling


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ping five times a second, and wait a second for the pong."""
    monkeypatch.setattr(socketio_session, "PING_INTERVAL_S", 0.2)
    monkeypatch.setattr(socketio_session, "PING_TIMEOUT_S", 1.0)


@pytest.mark.usefixtures("quick")
async def test_a_client_of_today_is_pinged_and_has_to_answer(place: Place) -> None:
    async with polling(place.url) as poller:
        for _ in range(8):  # longer than one ping may go unanswered
            assert await poller.poll() == ["2"]
            await poller.post("3")
        await poller.post('42["run",{"language":"sh","code":"sleep 600"}]')
        heard = await poller.poll_until("1")
        assert heard[-1] == "1"
        assert (await poller.ask_for_packets()).json()["message"] == "Session ID unknown"
    await place.is_idle()


@pytest.mark.usefixtures("quick")
async def test_pongs_before_a_ping_do_not_count(place: Place) -> None:
    async with polling(place.url) as poller:
        assert await poller.poll() == ["2"]
        await poller.post("3", "3", "3")
        assert await poller.poll() == ["2"]
        assert await poller.poll() == ["1"]


@pytest.mark.usefixtures("quick")
async def test_an_old_client_pings_and_is_answered(place: Place) -> None:
    async with polling(place.url, revision=3) as poller:
        for _ in range(8):
            await asyncio.sleep(0.2)  # the protocol's own interval
            await poller.post("2")
            assert await poller.poll() == ["3"]
        await poller.post('42["run",{"language":"sh","code":"sleep 600"}]')
        assert (await poller.poll_until("1"))[-1] == "1"
        assert (await poller.ask_for_packets()).json()["message"] == "Session ID unknown"
    await place.is_idle()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("revision", [3, 4])
async def test_a_silent_websocket_is_closed(place: Place, revision: int) -> None:
    address = place.url.replace("http", "ws") + f"/socket.io/?EIO={revision}&transport=websocket"
    async with connect(address, proxy=None) as socket, asyncio.timeout(PATIENCE_S):
        heard = [packet async for packet in socket]
    assert heard[-1] == "1"
    assert socket.close_code == 1000


async def test_a_session_without_a_client_in_it_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socketio_session, "JOIN_WITHIN_S", 0.1)
    async with polling(place.url, join=False) as poller:
        assert await poller.poll() == ["1"]
    async with polling(place.url, revision=3) as poller:
        await poller.post("41")
        assert await poller.poll() == ["1"]
    monkeypatch.setattr(socketio_session, "JOIN_WITHIN_S", 1.5)
    async with polling(place.url) as poller:
        await poller.post('42["run",{"language":"sh","code":"sleep 2"}]')
        assert "status" in (await poller.poll_until('"status"', "1"))[-1]
