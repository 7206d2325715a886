"""Fair scheduling of clients, and of new connections."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from firebox.doors.http.acceptor import Acceptor, Admitted
from firebox.doors.http.client_limits import ConnectionLimit
from firebox.doors.http.fair_scheduler import CLIENTS_A_TURN, FairScheduler
from firebox.settings.settings import load_settings
from tests.support.waiting import until

FLOODING, OTHER = "127.0.0.2", "127.0.0.3"


def beginning(turns: FairScheduler, client: str, begun: list[str]) -> Callable[[], bool]:
    """Return work that starts one thing."""

    def begin() -> bool:
        turns.take(client)
        begun.append(client)
        return False

    return begin


async def test_a_client_with_a_thousand_things_to_begin_delays_another_by_one() -> None:
    turns, begun = FairScheduler(), list[str]()
    for _ in range(1000):
        turns.join(FLOODING, beginning(turns, FLOODING, begun))
    await turns.wait(OTHER)
    assert len(begun) <= 2
    await until(lambda: len(begun) == 1000)


async def test_a_client_starts_one_thing_per_turn() -> None:
    turns, begun = FairScheduler(), list[str]()
    for _ in range(3):
        turns.join(FLOODING, beginning(turns, FLOODING, begun))
    for count in (1, 2, 3):
        assert len(begun) == count
        assert not turns.is_open(FLOODING)
        await asyncio.sleep(0)


async def test_of_very_many_clients_each_comes_once_before_any_comes_again() -> None:
    turns, begun = FairScheduler(), list[str]()
    clients = [f"192.0.2.{number}" for number in range(CLIENTS_A_TURN * 4)]
    for client in clients * 2:
        turns.join(client, beginning(turns, client, begun))
    assert len(begun) == CLIENTS_A_TURN
    await until(lambda: len(begun) == len(clients) * 2)
    assert set(begun[: len(clients)]) == set(clients)


async def test_a_cancelled_wait_takes_no_turn() -> None:
    turns, begun = FairScheduler(), list[str]()
    await turns.wait(FLOODING)
    waiting = [asyncio.ensure_future(turns.wait(FLOODING)) for _ in range(100)]
    await asyncio.sleep(0)
    for task in waiting[1:]:
        task.cancel()
    turns.join(FLOODING, beginning(turns, FLOODING, begun))
    await waiting[0]
    for _turn in range(20):  # a busy machine needs more than the next one, and those who wait no longer would take 99
        await asyncio.sleep(0)
    assert begun


async def test_work_that_fails_or_joins_further_work_takes_nothing_from_others() -> None:
    turns, begun, failures = FairScheduler(), list[str](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context["exception"]))
    failure = ValueError("a fault of ours")

    def fail() -> bool:
        raise failure

    def join_more() -> bool:
        turns.join(FLOODING, beginning(turns, FLOODING, begun))
        turns.join(OTHER, beginning(turns, OTHER, begun))
        return False

    turns.join(FLOODING, fail)
    turns.join(FLOODING, join_more)
    await turns.wait(OTHER)
    assert sorted(begun) == [FLOODING, OTHER]
    assert failures == [failure]


class Made(asyncio.Protocol):
    """An accepted connection."""

    def __init__(self, admitted: Admitted) -> None:
        self.admitted = admitted
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.admitted.close()


class Place:
    """A listening socket and its accepted connections."""

    def __init__(self, **settings: object) -> None:
        self.made: list[Made] = []
        self.refused: list[str] = []
        self.clients: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.connections = ConnectionLimit(
            load_settings({"data_dir": "/nowhere", **settings}, environ={}), lambda _address: False
        )

    def accept(self) -> Acceptor:
        return Acceptor(self.listener, FairScheduler(), self.connections, self._make, b"full", self.refused.append)

    def connect(self, address: str) -> socket.socket:
        client = socket.create_connection(self.listener.getsockname()[:2], source_address=(address, 0))
        self.clients.append(client)
        return client

    def _make(self, admitted: Admitted) -> Made:
        self.made.append(Made(admitted))
        return self.made[-1]

    async def close(self, acceptor: Acceptor) -> None:
        acceptor.close()
        await acceptor.wait_closed()
        for each in (*self.clients, self.listener):
            each.close()
        await until(lambda: all(made.transport is None or made.transport.is_closing() for made in self.made))


async def test_a_flood_of_connections_lets_others_come_first() -> None:
    place = Place()
    for _ in range(300):
        place.connect(FLOODING)
    place.connect(OTHER)
    acceptor = place.accept()
    try:
        await until(lambda: any(made.admitted.client == OTHER for made in place.made))
        assert [made.admitted.client for made in place.made].index(OTHER) < 20
        await until(lambda: len(place.made) == 301)
    finally:
        await place.close(acceptor)


def test_a_network_of_ipv6_counts_as_one_client_and_a_trusted_proxy_as_many() -> None:
    settings = load_settings({"data_dir": "/nowhere", "connections_per_client": 2}, environ={})
    connections = ConnectionLimit(settings, lambda address: address == "2001:db8::ff")
    close = connections.open("2001:db8::1")
    assert close is not None
    assert connections.open("2001:db8::2") is not None
    assert connections.open("2001:db8::3") is None
    assert connections.open("2001:db8:0:1::1") is not None
    assert connections.open("2001:db8::ff") is not None
    close()
    close()
    assert connections.open("2001:db8::3") is None, "the proxy's connection took the place"


async def test_what_there_is_no_room_for_is_refused_before_anything_is_made() -> None:
    place = Place(connections_per_client=2)
    for _ in range(10):
        place.connect(FLOODING)
    acceptor = place.accept()
    try:
        await until(lambda: len(place.made) == 2 and len(place.refused) == 8)
        assert [client.recv(10) for client in place.clients[2:]] == [b"full"] * 8
        for client in place.clients:
            client.close()
        await until(lambda: all(made.transport is not None and made.transport.is_closing() for made in place.made))
        place.connect(FLOODING)
        await until(lambda: len(place.made) == 3)
    finally:
        await place.close(acceptor)


async def test_a_client_that_disconnected_early_gets_no_connection_and_is_not_counted() -> None:
    place = Place(connections_per_client=5)
    for _ in range(5):
        place.connect(FLOODING).shutdown(socket.SHUT_WR)
    acceptor = place.accept()
    try:
        for client in place.clients:
            client.setblocking(False)
            assert not await asyncio.get_running_loop().sock_recv(client, 1)
        place.connect(FLOODING)
        await until(lambda: len(place.made) == 1)
    finally:
        await place.close(acceptor)


async def test_accepting_goes_on_after_descriptors_had_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    failures = [OSError(errno.EMFILE, "too many open files")]

    class Listener(socket.socket):
        def accept(self) -> Any:
            if failures:
                raise failures.pop()
            return super().accept()

    monkeypatch.setattr("firebox.doors.http.acceptor.PAUSE_S", 0.0)
    place.listener = Listener(fileno=place.listener.detach())
    place.connect(OTHER)
    acceptor = place.accept()
    try:
        await until(lambda: len(place.made) == 1)
    finally:
        await place.close(acceptor)
