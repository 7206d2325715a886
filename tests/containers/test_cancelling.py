"""A client that leaves a run at any moment leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from firebox.domain.model import Cancel, Dispatched, Eof, Finished, Queued, Signal, Stdin, Verdict
from tests.containers.conftest import Containers, name_of, output_of, own_containers, python, run
from tests.support.services import DockerEngine

ENDLESS = python("import time; print('first', flush=True); time.sleep(1000)")


async def test_leaving_the_context_removes_the_container(containers: Containers, docker_engine: DockerEngine) -> None:
    async with containers.submit(ENDLESS) as started:
        await anext(output_of(started))
        assert own_containers(docker_engine) == [name_of(started)]
    assert own_containers(docker_engine) == []


async def test_an_exception_removes_the_container(containers: Containers, docker_engine: DockerEngine) -> None:
    async def fail() -> None:
        async with containers.submit(ENDLESS) as started:
            await anext(output_of(started))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert own_containers(docker_engine) == []


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_a_cancelled_run_is_removed_however_far_it_was(
    containers: Containers, docker_engine: DockerEngine, steps: int
) -> None:
    task = asyncio.create_task(run(containers, ENDLESS))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert containers.in_flight == 0
    assert own_containers(docker_engine) == []


async def test_a_run_that_is_cancelled_while_it_is_read_is_removed(containers: Containers, docker_engine: DockerEngine) -> None:
    arrived = asyncio.Event()

    async def read() -> None:
        async with containers.submit(ENDLESS) as started:
            async for _ in output_of(started):
                arrived.set()

    task = asyncio.create_task(read())
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert own_containers(docker_engine) == []


async def test_a_run_that_is_cancelled_at_once_has_no_program(containers: Containers, docker_engine: DockerEngine) -> None:
    async with containers.submit(ENDLESS) as started:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await started.send(Cancel())
        events = [event async for event in started.events()]
    assert [type(event) for event in events] == [Queued, Dispatched, Finished]
    assert (await started.result()).verdict is Verdict.CANCELLED
    assert own_containers(docker_engine) == []


async def test_input_and_signals_reach_the_program(containers: Containers) -> None:
    code = """
import signal, sys
def stop(number, frame):
    print("caught", flush=True)
    sys.exit(5)
signal.signal(signal.SIGUSR1, stop)
for line in sys.stdin:
    print("got " + line, end="", flush=True)
while True: signal.pause()
"""
    async with containers.submit(replace(python(code), interactive=True)) as started:
        await started.send(Stdin(b"one\n"))
        heard = b""
        async for event in output_of(started):
            heard += event.data
            if heard == b"got one\n":
                await started.send(Stdin(b"two\n"))
                await started.send(Eof())
            elif heard.endswith(b"two\n"):
                await started.send(Signal("SIGUSR1"))
        result = await started.result()
    assert heard == b"got one\ngot two\ncaught\n"
    assert result.run is not None
    assert result.run.exit_code == 5
