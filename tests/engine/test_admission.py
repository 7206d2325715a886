"""Slots, the queue, turns."""

from __future__ import annotations

import asyncio

import pytest

from firebox.domain.errors import BodiesFull, QueueFull, ShuttingDown
from firebox.engine.admission import Admission, WaitingBytes


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
    for turn in range(len(waiting)):
        admission.release(order[turn - 1] if turn else "flood")
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
    admission.release("a")
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
    admission.release("a")
    admission.release("a")
    await asyncio.wait_for(asyncio.gather(waiting, other), 5)


async def test_who_gives_up_waiting_leaves_no_trace() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=10)
    await admission.acquire("a")
    waiting = asyncio.create_task(admission.acquire("b"))
    await settle()
    waiting.cancel()
    await settle()
    assert admission.statistics().queued == 0
    admission.release("a")
    assert admission.statistics().in_flight == 0


async def test_a_slot_that_comes_in_the_moment_of_giving_up_is_not_lost() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=10)
    await admission.acquire("a")
    waiting = asyncio.create_task(admission.acquire("b"))
    await settle()
    admission.release("a")
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


async def test_giving_up_in_the_moment_of_closing_returns_no_slot_that_was_never_taken() -> None:
    admission = Admission(slots=1, queue_length=4, queue_per_client=4)
    await admission.acquire("a")
    waiting = asyncio.create_task(admission.acquire("b"))
    await settle()
    admission.close()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert admission.statistics().in_flight == 1


async def test_a_client_never_takes_the_last_slot_while_another_may_come() -> None:
    admission = Admission(slots=3, queue_length=10, queue_per_client=10, reserved=1)
    await admission.acquire("a")
    await admission.acquire("a")
    third = asyncio.create_task(admission.acquire("a"))
    await settle()
    assert not third.done()
    await asyncio.wait_for(admission.acquire("b"), 5)
    assert admission.statistics().in_flight == 3
    admission.release("a")
    await settle()
    assert not third.done()  # the free slot is the last one again
    admission.release("b")
    await asyncio.wait_for(third, 5)


async def test_a_freed_slot_goes_to_the_client_that_holds_the_fewest() -> None:
    admission = Admission(slots=5, queue_length=10, queue_per_client=10)
    for client in ("a", "a", "a", "a", "b"):
        await admission.acquire(client)
    order: list[str] = []

    async def one(client: str) -> None:
        await admission.acquire(client)
        order.append(client)

    waiting: list[asyncio.Task[None]] = []
    for client in ("a", "b", "c"):
        waiting.append(asyncio.create_task(one(client)))
        await settle()
    for _ in range(3):
        admission.release("a")
        await settle()
    assert order == ["c", "b", "a"]
    await asyncio.gather(*waiting)


async def test_the_only_slot_is_not_reserved() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=10, reserved=1)
    await asyncio.wait_for(admission.acquire("a"), 5)
    waiting = asyncio.create_task(admission.acquire("a"))
    await settle()
    admission.release("a")
    await asyncio.wait_for(waiting, 5)


async def test_a_client_holds_no_more_than_its_slots() -> None:
    admission = Admission(slots=4, queue_length=0, queue_per_client=10, slots_per_client=2)
    await admission.acquire("a")
    await admission.acquire("a")
    with pytest.raises(QueueFull, match="2 of 4 slots"):
        await admission.acquire("a")
    await admission.acquire("b")


async def test_what_waiting_jobs_hold_is_bounded_for_each_client_and_in_all_queues_together() -> None:
    waiting_bytes = WaitingBytes(allowed=250, allowed_per_client=100)
    queues = [Admission(slots=1, queue_length=10, queue_per_client=10, waiting_bytes=waiting_bytes) for _ in range(2)]
    for queue in queues:
        await queue.acquire("runs", 1000)
    waiting = [asyncio.create_task(queues[0].acquire("a", 150)), asyncio.create_task(queues[1].acquire("b", 60))]
    await settle()
    for client, size_bytes in (("a", 1), ("b", 41), ("c", 41)):
        with pytest.raises(BodiesFull):
            await queues[1].acquire(client, size_bytes)
    waiting.append(asyncio.create_task(queues[0].acquire("b", 40)))
    await settle()
    queues[0].release("runs")  # to "a"
    waiting[2].cancel()
    await settle()
    waiting += [asyncio.create_task(queues[0].acquire(client, 90)) for client in ("a", "c")]
    await settle()
    assert [task.done() for task in waiting] == [True, False, True, False, False]
    for queue in queues:
        queue.close()
    await asyncio.gather(*waiting, return_exceptions=True)
