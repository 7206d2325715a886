"""Slots, the queue, turns."""

from __future__ import annotations

import pytest

from firebox.domain.errors import BodiesFull, QueueFull, ShuttingDown
from firebox.engine.admission import Admission, Place, WaitingBytes


class Entered:
    """A job that was admitted. order: to which it adds its client when it gets its slot."""

    def __init__(self, admission: Admission, client: str, size_bytes: int = 0, order: list[str] | None = None) -> None:
        self.client = client
        self.place: Place | None = admission.enter(client, size_bytes)
        self.has_slot = self.place is None
        self._order = order
        if self.place is not None:
            self.place.dispatch = self._take

    def _take(self) -> None:
        assert not self.has_slot
        self.has_slot = True
        if self._order is not None:
            self._order.append(self.client)


def leave(admission: Admission, waiting: Entered) -> None:
    assert waiting.place is not None
    assert not waiting.has_slot
    admission.leave(waiting.place)


def test_slots_are_assigned_at_once_while_there_are_some() -> None:
    admission = Admission(slots=2, queue_length=4, queue_per_client=4)
    assert Entered(admission, "a").has_slot
    assert Entered(admission, "a").has_slot
    assert not Entered(admission, "a").has_slot
    assert admission.statistics() == (2, 2, 1)


def test_attack_98_a_flood_of_one_client_delays_another_by_one_turn() -> None:
    admission = Admission(slots=1, queue_length=100, queue_per_client=100)
    order: list[str] = []
    Entered(admission, "flood")
    for client in [*["flood"] * 20, "small"]:
        Entered(admission, client, order=order)
    for turn in range(21):
        admission.release(order[turn - 1] if turn else "flood")
    assert order.index("small") <= 1
    assert len(order) == 21


def test_a_full_queue_says_when_to_come_back() -> None:
    admission = Admission(slots=1, queue_length=1, queue_per_client=1)
    Entered(admission, "a")
    waiting = Entered(admission, "b")
    with pytest.raises(QueueFull) as full:
        admission.enter("c")
    assert full.value.retry_after_s > 0
    admission.release("a")
    assert waiting.has_slot


def test_a_client_has_its_share_of_the_queue() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=1)
    Entered(admission, "a")
    waiting = Entered(admission, "a")
    with pytest.raises(QueueFull):
        admission.enter("a")
    other = Entered(admission, "b")
    admission.release("a")
    admission.release("a" if waiting.has_slot else "b")
    assert waiting.has_slot
    assert other.has_slot


def test_leaving_the_queue_leaves_no_trace() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=10)
    Entered(admission, "a")
    waiting = Entered(admission, "b")
    leave(admission, waiting)
    assert admission.statistics().queued == 0
    admission.release("a")
    assert not waiting.has_slot
    assert admission.statistics().in_flight == 0
    assert Entered(admission, "c").has_slot


def test_closing_refuses_new_jobs_and_dispatches_none_that_wait() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=10)
    Entered(admission, "a")
    waiting = Entered(admission, "b")
    admission.close()
    with pytest.raises(ShuttingDown):
        admission.enter("c")
    admission.release("a")
    assert not waiting.has_slot
    leave(admission, waiting)
    assert admission.statistics() == (1, 0, 0)


def test_a_client_never_takes_the_last_slot_while_another_may_come() -> None:
    admission = Admission(slots=3, queue_length=10, queue_per_client=10, reserved=1)
    Entered(admission, "a")
    Entered(admission, "a")
    third = Entered(admission, "a")
    assert not third.has_slot
    assert Entered(admission, "b").has_slot
    assert admission.statistics().in_flight == 3
    admission.release("a")
    assert not third.has_slot  # the free slot is the last one again
    admission.release("b")
    assert third.has_slot


def test_a_freed_slot_goes_to_the_client_that_holds_the_fewest() -> None:
    admission = Admission(slots=5, queue_length=10, queue_per_client=10)
    order: list[str] = []
    for client in ("a", "a", "a", "a", "b"):
        assert Entered(admission, client).has_slot
    for client in ("a", "b", "c"):
        Entered(admission, client, order=order)
    for _ in range(3):
        admission.release("a")
    assert order == ["c", "b", "a"]


def test_the_only_slot_is_not_reserved() -> None:
    admission = Admission(slots=1, queue_length=10, queue_per_client=10, reserved=1)
    assert Entered(admission, "a").has_slot
    waiting = Entered(admission, "a")
    admission.release("a")
    assert waiting.has_slot


def test_a_client_holds_no_more_than_its_slots() -> None:
    admission = Admission(slots=4, queue_length=0, queue_per_client=10, slots_per_client=2)
    Entered(admission, "a")
    Entered(admission, "a")
    with pytest.raises(QueueFull, match="2 of 4 slots"):
        admission.enter("a")
    assert Entered(admission, "b").has_slot


def test_memory_of_waiting_jobs_is_bounded_for_each_client_and_in_all_queues_together() -> None:
    waiting_bytes = WaitingBytes(allowed=250, allowed_per_client=100)
    queues = [Admission(slots=1, queue_length=10, queue_per_client=10, waiting_bytes=waiting_bytes) for _ in range(2)]
    for queue in queues:
        assert Entered(queue, "runs", 1000).has_slot
    waiting = [Entered(queues[0], "a", 150), Entered(queues[1], "b", 60)]
    for client, size_bytes in (("a", 1), ("b", 41), ("c", 41)):
        with pytest.raises(BodiesFull):
            queues[1].enter(client, size_bytes)
    waiting.append(Entered(queues[0], "b", 40))
    queues[0].release("runs")  # to "a"
    leave(queues[0], waiting[2])
    waiting += [Entered(queues[0], client, 90) for client in ("a", "c")]
    assert [each.has_slot for each in waiting] == [True, False, False, False, False]
