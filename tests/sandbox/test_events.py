"""A run as a stream of events: the pull interface of a sandbox."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from firebox.sandbox.spec import Command, CommandRefused, Exit, Output, Started
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, Box

MIB = 1 << 20


def command(*argv: str, **fields: Any) -> Command:
    return Command(argv=argv, env=ENVIRONMENT, wall_ms=20_000, cpu_ms=20_000)._replace(**fields)


async def test_events_come_in_order(box: Box) -> None:
    sandbox = await box.make()
    try:
        events = [event async for event in sandbox.events(command("/bin/sh", "-c", "cat; exit 3", stdin=b"typed"))]
    finally:
        sandbox.close()
    assert events[:-1] == [Started(prestarted=False), Output("stdout", b"typed")]
    ended = events[-1]
    assert isinstance(ended, Exit)
    assert (ended.status, ended.killed_by) == (3, "")


async def test_a_slow_consumer_blocks_the_program_and_loses_nothing(box: Box) -> None:
    code = "import os\nfor _ in range(64): os.write(1, b'x' * 65536)\nos.write(2, b'done')"
    sandbox = await box.make()
    received = {"stdout": 0, "stderr": 0}
    try:
        async with aclosing(sandbox.events(command(PYTHON, "-c", code, output_bytes=8 * MIB))) as events:
            async for event in events:
                if isinstance(event, Output):
                    if not received["stdout"]:
                        await asyncio.sleep(0.3)  # the program fills what is held and its pipe meanwhile, and blocks
                        assert received["stderr"] == 0
                    received[event.stream] += len(event.data)
    finally:
        sandbox.close()
    assert received == {"stdout": 4 * MIB, "stderr": 4}


async def test_leaving_the_events_kills_the_program(box: Box, nothing_left: None) -> None:
    sandbox = await box.make()
    async with aclosing(sandbox.events(command("/bin/sh", "-c", "echo up; sleep 600"))) as events:
        async for event in events:
            if isinstance(event, Output):
                break
    sandbox.close()
    await asyncio.wait_for(box.launcher.ended(sandbox.number), 20)


async def test_cancelling_the_consumer_kills_the_program(box: Box, nothing_left: None) -> None:
    sandbox = await box.make()
    is_up = asyncio.Event()

    async def consume() -> None:
        async for event in sandbox.events(command("/bin/sh", "-c", "echo up; sleep 600")):
            if isinstance(event, Output):
                is_up.set()

    consumer = asyncio.create_task(consume())
    await asyncio.wait_for(is_up.wait(), 20)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    sandbox.close()
    await asyncio.wait_for(box.launcher.ended(sandbox.number), 20)


async def test_a_command_that_cannot_start_raises_before_the_first_event(box: Box) -> None:
    sandbox = await box.make()
    try:
        with pytest.raises(CommandRefused, match="No such file"):
            await anext(sandbox.events(command("/nowhere/at/all")))
    finally:
        sandbox.close()
