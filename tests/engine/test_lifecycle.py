"""From admission to the last event: waiting, turns, cancelling at each moment, what stages share, and what stays apart."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from firebox.domain.errors import ShuttingDown
from firebox.domain.limits import LimitRequest
from firebox.domain.model import (
    Cancel,
    Dispatched,
    Eof,
    Event,
    File,
    Finished,
    Job,
    Output,
    Queued,
    Resize,
    Result,
    Signal,
    StageExited,
    StageStarted,
    Stdin,
    Terminal,
    Verdict,
)
from firebox.engine.event_buffer import BUFFERED_BYTES
from firebox.engine.run import Run
from tests.engine.conftest import Engine, job
from tests.support.waiting import PATIENCE_S, until

MakeEngine = Callable[..., Awaitable[Engine]]


@contextlib.asynccontextmanager
async def occupied(engine: Engine) -> AsyncGenerator[None]:
    """Hold a slot with a program that waits."""
    async with engine.executor.submit(job("bash", "echo on; read line", interactive=True)) as run:
        async for event in run.events():
            if isinstance(event, Output):
                break
        yield


async def test_no_more_run_at_once_than_there_are_slots(make_engine: MakeEngine) -> None:
    engine = await make_engine(slots=2)
    results = [asyncio.create_task(engine.result(job("bash", "echo $$", client=str(number)))) for number in range(12)]
    most = 0
    async with asyncio.timeout(PATIENCE_S):
        while not all(result.done() for result in results):
            most = max(most, engine.executor.statistics().in_flight)
            await asyncio.sleep(0)
    assert most == 2
    assert {(await result).verdict for result in results} == {Verdict.OK}
    assert (engine.executor.statistics().in_flight, engine.executor.statistics().queued) == (0, 0)


async def test_attack_98_one_client_floods_and_another_is_served_in_turn(make_engine: MakeEngine) -> None:
    engine = await make_engine(slots=1, queue_length=100)
    order: list[str] = []
    engine.executor.runs.listeners.append(lambda _run, result: order.append(result.id))
    async with occupied(engine):
        flood = [asyncio.create_task(engine.result(job("bash", "true", client="flood", id=f"flood {n}"))) for n in range(10)]
        await until(lambda: engine.executor.statistics().queued == 10)
        small = asyncio.create_task(engine.result(job("bash", "true", client="small", id="small")))
        await until(lambda: engine.executor.statistics().queued == 11)
    await asyncio.gather(*flood, small)
    assert order.index("small") <= 2  # the one that held the slot, at most one of the flood
    assert [name for name in order if name.startswith("flood")] == [f"flood {number}" for number in range(10)]


async def test_long_runs_of_one_client_do_not_keep_another_waiting(make_engine: MakeEngine) -> None:
    engine = await make_engine(slots=3)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(engine.executor.submit(job("bash", "sleep 600", client="greedy")))
        more = asyncio.create_task(engine.result(job("bash", "true", client="greedy")))
        await until(lambda: engine.executor.statistics().queued == 1)
        async with asyncio.timeout(30):
            assert (await engine.result(job("bash", "true", client="other"))).verdict is Verdict.OK
        assert not more.done()
    assert (await more).verdict is Verdict.OK


async def test_giving_up_in_the_queue_leaves_no_trace(make_engine: MakeEngine) -> None:
    engine = await make_engine(slots=1)
    async with occupied(engine):
        waiting = asyncio.create_task(engine.result(job("bash", "true")))
        await until(lambda: engine.executor.statistics().queued == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert engine.executor.statistics().queued == 0
    assert (await engine.result(job("bash", "true"))).verdict is Verdict.OK


async def test_attack_96_a_client_that_goes_away_takes_its_job_with_it(make_engine: MakeEngine) -> None:
    """What a door does when the connection breaks: its task is cancelled in the middle of the events."""
    engine = await make_engine(slots=1)
    started = asyncio.Event()
    seen: list[Result] = []
    engine.executor.runs.listeners.append(lambda _run, result: seen.append(result))

    async def client() -> None:
        async with engine.executor.submit(job("bash", "echo on; sleep 600")) as run:
            async for event in run.events():
                if isinstance(event, Output):
                    started.set()

    connection = asyncio.create_task(client())
    await started.wait()
    connection.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connection
    assert [result.verdict for result in seen] == [Verdict.CANCELLED]
    assert engine.executor.statistics().in_flight == 0
    assert (await engine.result(job("bash", "true"))).verdict is Verdict.OK


async def test_cancel_before_anything_ran(engine: Engine) -> None:
    async with engine.executor.submit(job("bash", "sleep 600")) as run:
        await run.send(Cancel())
        events = [event async for event in run.events()]
    assert isinstance(events[-1], Finished)
    assert events[-1].result.verdict is Verdict.CANCELLED
    assert [event.sequence for event in events] == [0, *range(len(events) - 1)]


async def test_cancel_while_compiling_means_nothing_runs(engine: Engine) -> None:
    async with engine.executor.submit(job("copied", "echo on; sleep 600")) as run:
        async for event in run.events():
            if isinstance(event, Output):
                assert event.stage == "compile"
                await run.send(Cancel())
            elif isinstance(event, Finished):
                assert event.result.verdict is Verdict.CANCELLED
                assert event.result.compile is not None
                assert event.result.compile.verdict is Verdict.CANCELLED
                assert event.result.run is None


async def test_attack_101_cancels_from_everywhere_at_any_moment_give_one_result(engine: Engine) -> None:
    seen: list[str] = []
    engine.executor.runs.listeners.append(lambda _run, result: seen.append(result.id))
    for pauses in range(30):
        async with engine.executor.submit(job("copied", "echo 'exit 0' > built.sh", id=str(pauses))) as run:

            async def cancel_after(pauses: int, run: Run = run) -> None:
                for _ in range(pauses * 4):
                    await asyncio.sleep(0)
                await asyncio.gather(*(run.send(Cancel()) for _ in range(3)))

            cancelling = asyncio.create_task(cancel_after(pauses))
            events: list[Event] = [event async for event in run.events()]
            await cancelling
        finished = [event for event in events if isinstance(event, Finished)]
        assert finished == events[-1:]
        assert finished[0].result.verdict in {Verdict.OK, Verdict.CANCELLED}, finished[0].result.reason
    assert seen == [str(number) for number in range(30)]
    assert engine.executor.statistics().in_flight == 0


async def test_messages_after_the_end_are_ignored(engine: Engine) -> None:
    fields = {"interactive": True, "terminal": Terminal()}
    async with engine.executor.submit(job("bash", "exit 0", **fields)) as run:
        events = [event async for event in run.events()]
        for message in (Stdin(b"late"), Eof(), Eof(), Signal("SIGINT"), Resize(10, 10), Cancel()):
            await run.send(message)
    assert isinstance(events[-1], Finished)
    assert events[-1].result.verdict is Verdict.OK


async def test_input_of_the_job_comes_before_what_is_sent(engine: Engine) -> None:
    async with engine.executor.submit(job("bash", "cat", stdin=b"first ", interactive=True)) as run:
        await run.send(Stdin(b"second "))
        await run.send(Stdin(b"third"))
        await run.send(Eof())
        events = [event async for event in run.events()]
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.result.run is not None
    assert last.result.run.stdout == b"first second third"


async def test_input_is_for_the_run_and_not_for_the_compiler(engine: Engine) -> None:
    script = 'echo compiler got "$(cat)"; echo \'echo program got "$(cat)"\' > built.sh'
    result = await engine.result(job("copied", script, stdin=b"input"))
    assert result.compile is not None
    assert result.run is not None
    assert (result.compile.stdout, result.run.stdout) == (b"compiler got \n", b"program got input\n")


async def test_arguments_and_variables_are_for_the_program_as_they_are(engine: Engine) -> None:
    odd = ("$(id)", "`id`", "a b", "*", "", "-x", "%s", "new\nline", "ü")
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['ODD']]))"
    result = await engine.result(job("python", code, args=odd, env={"ODD": "$HOME"}))
    assert result.run is not None
    assert json.loads(result.run.stdout) == [list(odd), "$HOME"]


async def test_what_compiling_made_keeps_its_mode_and_its_folders(engine: Engine) -> None:
    tool = "mkdir -p deep/er; printf '#!/bin/sh\\necho tool ran\\n' > deep/er/tool; chmod 755 deep/er/tool"
    script = f"{tool}; echo deep/er/tool > built.sh"
    result = await engine.result(job("copied", script))
    assert result.run is not None
    assert result.run.stdout == b"tool ran\n", result


async def test_each_stage_has_limits_of_its_own(engine: Engine) -> None:
    script = "echo 'sleep 60' > built.sh; sleep 0.3"
    limits = {"compile_limits": LimitRequest(wall_ms=8000), "run_limits": LimitRequest(wall_ms=200)}
    result = await engine.result(job("copied", script, **limits))
    assert result.compile is not None
    assert result.run is not None
    assert (result.compile.verdict, result.run.verdict, result.verdict) == (Verdict.OK, Verdict.WALL_TIME, Verdict.WALL_TIME)
    assert result.compile.wall_ms > 200, "longer than the run may take"
    assert result.timings.compile_ms == result.compile.wall_ms
    assert result.timings.run_ms == result.run.wall_ms


@pytest.mark.parametrize(
    ("script", "limits", "verdict"),
    [
        ("exit 1", LimitRequest(), Verdict.COMPILE_ERROR),
        ("kill -SEGV $$", LimitRequest(), Verdict.COMPILE_ERROR),
        ("while :; do :; done", LimitRequest(cpu_ms=200), Verdict.CPU_TIME),
        ("x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}", LimitRequest(memory_bytes=32 << 20), Verdict.MEMORY),
    ],
)
async def test_a_compile_stage_that_fails_decides_the_job(
    engine: Engine, script: str, limits: LimitRequest, verdict: Verdict
) -> None:
    events = await engine.events(job("copied", script, compile_limits=limits))
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.result.verdict, last.result.run) == (verdict, None)
    assert last.result.compile is not None
    assert last.result.compile.verdict is not Verdict.COMPILE_ERROR  # of a job only
    assert last.result.reason
    assert [type(event) for event in events if not isinstance(event, Output)] == [
        Queued,
        Dispatched,
        StageStarted,
        StageExited,
        Finished,
    ]


async def test_events_and_result_tell_the_same_output(engine: Engine) -> None:
    code = "for n in $(seq 300); do echo out $n; echo err $n >&2; done"
    events = await engine.events(job("bash", code, run_limits=LimitRequest(output_bytes=1500)))
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.result.run is not None
    for stream, whole in (("stdout", last.result.run.stdout), ("stderr", last.result.run.stderr)):
        told = b"".join(event.data for event in events if isinstance(event, Output) and event.stream == stream)
        assert told == whole
        assert len(whole) == 1500
    assert all(event.data for event in events if isinstance(event, Output))


async def test_many_at_once_do_not_mix(make_engine: MakeEngine) -> None:
    engine = await make_engine(slots=6, queue_length=100)

    async def one(number: int) -> bool:
        code = f"cat; echo {number} > file; sleep 0.01; cat file; echo $1"
        result = await engine.result(job("bash", code, stdin=f"{number}\n".encode(), args=(str(number),), id=f"id {number}"))
        assert result.run is not None
        return (result.id, result.run.stdout) == (f"id {number}", f"{number}\n{number}\n{number}\n".encode())

    assert all(await asyncio.gather(*(one(number) for number in range(30))))


async def test_a_job_keeps_the_name_it_came_with_and_gets_one_otherwise(engine: Engine) -> None:
    assert (await engine.result(job("bash", "true", id="named"))).id == "named"
    first = await engine.result(job("bash", "true"))
    second = await engine.result(job("bash", "true"))
    assert len(first.id) == 26
    assert first.id[:10] <= second.id[:10]  # a ULID begins with the time


async def test_no_new_run_once_it_is_stopping(make_engine: MakeEngine) -> None:
    engine = await make_engine(slots=1)
    async with engine.executor.submit(job("bash", "echo on; sleep 600")) as run:
        waiting = asyncio.create_task(engine.result(job("bash", "true")))
        await until(lambda: engine.executor.statistics().queued == 1)
        await engine.executor.__aexit__()
        assert (await waiting).verdict is Verdict.CANCELLED
        with pytest.raises(ShuttingDown):
            await engine.result(job("bash", "true"))
        events = [event async for event in run.events()]
    assert isinstance(events[-1], Finished)
    assert events[-1].result.verdict is Verdict.CANCELLED


async def test_a_listener_that_fails_takes_no_result_with_it(engine: Engine) -> None:
    def fail(_run: Run, _result: Result) -> None:
        raise RuntimeError("a listener's own fault")

    engine.executor.runs.listeners.append(fail)
    for _ in range(3):
        events = await engine.events(job("bash", "true"))
        assert [type(event) for event in events] == [Queued, Dispatched, StageStarted, StageExited, Finished]
    await until(lambda: engine.executor.statistics().in_flight == 0)


async def test_attack_23_a_vanished_reader_frees_its_slot(make_engine: MakeEngine) -> None:
    """The program floods and its events are no longer read: leaving ends it all the same."""
    engine = await make_engine(slots=1)
    limits = LimitRequest(output_bytes=8 << 20, wall_ms=20_000)
    async with engine.executor.submit(job("bash", "yes", run_limits=limits)) as run:
        assert isinstance(run, Run)
        await until(lambda: run._events.buffered_bytes > 1 << 20)
    assert engine.executor.statistics().in_flight == 0
    assert (await engine.result(job("bash", "true"))).verdict is Verdict.OK


async def test_events_can_be_read_late(engine: Engine) -> None:
    """What fits into the buffer waits for its reader; the run does not."""
    async with engine.executor.submit(job("bash", "echo early")) as run:
        await until(lambda: engine.executor.statistics().in_flight == 0)
        events = [event async for event in run.events()]
    assert [type(event) for event in events] == [Queued, Dispatched, StageStarted, Output, StageExited, Finished]


async def test_files_beside_the_code_are_there(engine: Engine) -> None:
    files = (
        File("main.sh", b"cat data/in.txt lib.sh; ls"),
        File("lib.sh", b"# lib\n"),
        File("data/in.txt", b"data\n", source=False),
    )
    result = await engine.result(Job(language="bash", files=files))
    assert result.run is not None
    assert result.run.stdout == b"data\n# lib\ndata\nlib.sh\nmain.sh\n"


async def test_a_program_that_cannot_be_started_says_why(engine: Engine) -> None:
    """Arguments past what the kernel takes: the last event comes, with the reason."""
    events = await engine.events(job("bash", "true", args=("x" * 3_000_000,)))
    last = events[-1]
    assert isinstance(last, Finished)
    assert "too long together" in last.result.reason
    assert last.result.run is not None
    assert last.result.run.exit_code == 126
    assert (await engine.result(job("bash", "true"))).verdict is Verdict.OK


async def test_a_program_whose_events_nobody_reads_is_not_held_up(engine: Engine) -> None:
    written = 3 * BUFFERED_BYTES
    limits = LimitRequest(output_bytes=2 * written, wall_ms=20_000)
    async with engine.executor.submit(job("bash", f"head -c {written} /dev/zero", run_limits=limits)) as run:
        result = await run.result()
    assert result.verdict is Verdict.OK, result.reason
    assert result.run is not None
    assert len(result.run.stdout) == written


async def test_a_reader_that_stops_reading_keeps_no_program_and_no_slot(engine: Engine) -> None:
    limits = LimitRequest(output_bytes=6 * BUFFERED_BYTES, wall_ms=1000)
    async with engine.executor.submit(job("bash", "yes", run_limits=limits)) as run:
        assert isinstance(run, Run)
        await until(lambda: run._events.is_full)
        await until(lambda: engine.executor.statistics().in_flight == 0)
        result = await run.result()
    assert result.verdict is Verdict.WALL_TIME


async def test_what_was_held_up_goes_on_once_only_the_result_is_wanted(engine: Engine) -> None:
    written = 3 * BUFFERED_BYTES
    limits = LimitRequest(output_bytes=2 * written, wall_ms=20_000)
    async with engine.executor.submit(job("bash", f"head -c {written} /dev/zero", run_limits=limits)) as run:
        assert isinstance(run, Run)
        await until(lambda: run._events.buffered_bytes > BUFFERED_BYTES)
        result = await run.result()
    assert result.run is not None
    assert len(result.run.stdout) == written
