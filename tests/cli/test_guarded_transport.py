"""Joined writes: the head of a response with its body, and everything in order."""

from __future__ import annotations

import asyncio

import pytest

from firebox.doors.http.acceptor import Admitted
from firebox.server.connection import JOINED_BYTES, GuardedTransport


class Recording(asyncio.Transport):
    """Records what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.written.append(b"closed")


@pytest.fixture
def transport() -> Recording:
    return Recording()


@pytest.fixture
def guarded(transport: Recording) -> GuardedTransport:
    return GuardedTransport(transport, Admitted("127.0.0.1", "client", lambda: None))


async def test_a_head_and_the_body_that_follows_at_once_leave_together(guarded: GuardedTransport, transport: Recording) -> None:
    guarded.join_writes()
    guarded.write(b"head ")
    guarded.write(b"body")
    guarded.write(b"more")
    assert transport.written == [b"head body", b"more"]


async def test_a_head_does_not_wait_for_a_body_that_comes_later(guarded: GuardedTransport, transport: Recording) -> None:
    guarded.join_writes()
    guarded.write(b"head")
    await asyncio.sleep(0)
    assert transport.written == [b"head"]
    guarded.write(b"body")
    assert transport.written == [b"head", b"body"]


async def test_a_large_body_is_not_copied(guarded: GuardedTransport, transport: Recording) -> None:
    guarded.join_writes()
    guarded.write(b"head")
    guarded.write(bytes(JOINED_BYTES + 1))
    assert [len(data) for data in transport.written] == [4, JOINED_BYTES + 1]


async def test_answers_keep_their_order(guarded: GuardedTransport, transport: Recording) -> None:
    for name in (b"one", b"two"):
        guarded.join_writes()
        guarded.write(name)
    assert transport.written == [b"one"]
    guarded.close()
    assert transport.written == [b"one", b"two", b"closed"]
