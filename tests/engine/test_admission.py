"""Slots, the queue, turns."""

from __future__ import annotations

import asyncio

import pytest

from firebox.engine.admission import Admission
from firebox.errors import QueueFull, ShuttingDown


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_slots_are_given_at_once_while_there_are_some() -> None:
    admission = Admission(slots=2, queue_length=4, queue_per_client=4)
    await admission.acquire("a")
    await admission.acquire("a")
    assert admission.statistics().in_flight == 2


async def test_attack_98_a_flood_of_one_client_delays_another_by_one_turn() -> None:
    admission = Admission(slots=1, queue_length=100, queue_per_client=100)
    await admission.acquire("flood")
    order: list[str] = []

    async def one(client: str) -> None:
        await admission.acquire(client)
        order.append(client)

    waiting = [asyncio.create_task(one("flood")) for _ in range(20)]
    await settle()
    waiting.append(asyncio.create_task(one("small")))
    await settle()
    for _ in waiting:
        admission.release()
        await settle()
    assert order.index("small") <= 1
    assert len(order) == 21


async def test_a_full_queue_says_when_to_come_back() -> None:
    admission = Admission(slots=1, queue_length=1, queue_per_client=1)
    await admission.acquire("a")
    waiting = asyncio.create_task(admission.acquire("b"))
    await settle()
    with pytest.raises(QueueFull) as full:
        await admission.acquire("c")
    assert full.value.retry_after_s > 0
    admission.release()
    await waiting


async def test_a_client_has_its_share_of_the_queue() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=1)
    await admission.acquire("a")
    waiting = asyncio.create_task(admission.acquire("a"))
    await settle()
    with pytest.raises(QueueFull):
        await admission.acquire("a")
    other = asyncio.create_task(admission.acquire("b"))
    await settle()
    admission.release()
    admission.release()
    await asyncio.gather(waiting, other)


async def test_who_gives_up_waiting_leaves_no_trace() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=10)
    await admission.acquire("a")
    waiting = asyncio.create_task(admission.acquire("b"))
    await settle()
    waiting.cancel()
    await settle()
    assert admission.statistics().queued == 0
    admission.release()
    assert admission.statistics().in_flight == 0


async def test_a_slot_that_comes_in_the_moment_of_giving_up_is_not_lost() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=10)
    await admission.acquire("a")
    waiting = asyncio.create_task(admission.acquire("b"))
    await settle()
    admission.release()
    waiting.cancel()
    await settle()
    assert admission.statistics().in_flight == 0
    await admission.acquire("c")


async def test_closing_refuses_those_who_wait_and_those_who_come() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=10)
    await admission.acquire("a")
    waiting = asyncio.create_task(admission.acquire("b"))
    await settle()
    admission.close()
    with pytest.raises(ShuttingDown):
        await waiting
    with pytest.raises(ShuttingDown):
        await admission.acquire("c")
