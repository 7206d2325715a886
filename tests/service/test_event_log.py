"""The event log: order, merging, resumption, and memory."""

from __future__ import annotations

import asyncio

from firebox.domain.limits import StageName
from firebox.domain.model import Event, Finished, Output, StageStarted, StreamName
from firebox.service.event_log import EventLog
from tests.support.results import result_with

RESULT = result_with()


def output(sequence: int, data: bytes, stream: StreamName = "stdout", stage: StageName = "run") -> Output:
    return Output(sequence=sequence, stage=stage, stream=stream, data=data)


def filled(*events: Event) -> EventLog:
    log = EventLog()
    for event in events:
        log.append(event)
    log.append(Finished(sequence=log.last_sequence + 1, result=RESULT))
    return log


async def read(log: EventLog, split_after: int = -1) -> list[tuple[int, object]]:
    return [(event.sequence, getattr(event, "data", type(event))) async for event in log.read(split_after=split_after)]


async def test_what_follows_on_itself_comes_in_one_piece() -> None:
    log = filled(
        StageStarted(sequence=1, stage="run"), output(2, b"a"), output(3, b"b"), output(4, b"c", "stderr"), output(5, b"d")
    )
    assert await read(log) == [(1, StageStarted), (3, b"ab"), (4, b"c"), (5, b"d"), (6, Finished)]


async def test_no_piece_reaches_over_the_place_where_another_reader_stopped() -> None:
    log = filled(output(1, b"a"), output(2, b"b"), output(5, b"c"), output(6, b"d"))
    assert await read(log, split_after=2) == [(2, b"ab"), (6, b"cd"), (7, Finished)]
    assert await read(log, split_after=4) == [(2, b"ab"), (6, b"cd"), (7, Finished)]
    assert await read(log, split_after=5) == [(5, b"abc"), (6, b"d"), (7, Finished)]


async def test_stages_are_told_apart() -> None:
    log = filled(output(1, b"a", stage="compile"), output(2, b"b"))
    assert await read(log) == [(1, b"a"), (2, b"b"), (3, Finished)]


async def test_pieces_are_bounded() -> None:
    log = filled(*(output(number, b"x" * 50_000) for number in range(1, 4)))
    assert [sequence for sequence, _ in await read(log)] == [1, 2, 3, 4]


async def test_readers_wait_for_what_is_to_come() -> None:
    log = EventLog()
    readers = [asyncio.create_task(read(log)) for _ in range(3)]
    for number in range(1, 100):
        log.append(output(number, b"x", "stderr" if number % 2 else "stdout"))
        if number % 7 == 0:
            await asyncio.sleep(0)
    log.append(Finished(sequence=100, result=RESULT))
    for heard in await asyncio.gather(*readers):
        assert [sequence for sequence, _ in heard] == list(range(1, 101))


def test_a_million_single_bytes_take_little_memory() -> None:
    log = EventLog()
    for number in range(100_000):
        log.append(output(number, b"x", "stderr" if number % 2 else "stdout"))
    assert log.kept_bytes < 2_000_000
