"""Jobs through the real executor: verdicts, events, stages, input, artifacts, cancelling, backpressure, shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from firebox.domain.errors import InvalidRequest, LimitTooHigh, QueueFull, UnknownRuntime
from firebox.domain.limits import LimitRequest, OutputMode
from firebox.domain.model import (
    Cancel,
    Dispatched,
    Eof,
    File,
    Finished,
    Job,
    Output,
    Queued,
    Resize,
    Signal,
    StageExited,
    StageStarted,
    Stdin,
    Terminal,
    Verdict,
    interleave,
)
from firebox.engine.event_buffer import BUFFERED_BYTES
from firebox.engine.run import Run
from tests.engine.conftest import Engine, job
from tests.support.waiting import until

MakeEngine = Callable[..., Awaitable[Engine]]

MEMORY_EATER = "data = []\nwhile True: data.append(bytearray(1 << 20))"


@pytest.mark.parametrize(
    ("code", "limits", "verdict", "evidence"),
    [
        ("print(1)", LimitRequest(), Verdict.OK, ""),
        ("raise SystemExit(3)", LimitRequest(), Verdict.RUNTIME_ERROR, "exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", LimitRequest(), Verdict.SIGNAL, "SIGSEGV"),
        ("import time; time.sleep(60)", LimitRequest(wall_ms=200), Verdict.WALL_TIME, "of 200 ms"),
        ("while True: pass", LimitRequest(cpu_ms=200, wall_ms=20_000), Verdict.CPU_TIME, "of 200 ms"),
        (MEMORY_EATER, LimitRequest(memory_bytes=64 << 20, wall_ms=20_000), Verdict.MEMORY, "of 64 MiB"),
        (
            "print('x' * 100_000, flush=True)\nimport time; time.sleep(60)",
            LimitRequest(output_bytes=1000, output_mode=OutputMode.KILL),
            Verdict.OUTPUT,
            "stdout reached 1000 bytes",
        ),
        (
            "with open('big', 'wb') as big: big.write(b'x' * 5000)",
            LimitRequest(file_size_bytes=1000),
            Verdict.RUNTIME_ERROR,
            "exit code 1",
        ),
    ],
)
async def test_verdict_with_its_evidence(
    engine: Engine, code: str, limits: LimitRequest, verdict: Verdict, evidence: str
) -> None:
    result = await engine.result(job("python", code, run_limits=limits))
    assert (result.verdict, result.run and result.run.verdict) == (verdict, verdict)
    assert evidence in result.reason


async def test_cut_output_keeps_the_exit_code(engine: Engine) -> None:
    limits = LimitRequest(output_bytes=10)
    result = await engine.result(job("bash", "yes | head -c 1000000; echo err >&2; exit 5", run_limits=limits))
    assert result.run is not None
    assert (result.run.exit_code, result.run.stdout_truncated, result.run.stderr_truncated) == (5, True, False)
    assert result.run.stdout == b"y\ny\ny\ny\ny\n"


async def test_events_come_once_in_order_and_end_with_finished(engine: Engine) -> None:
    events = await engine.events(job("copied", "echo compiling; echo 'echo running; exit 4' > built.sh"))
    assert [event.sequence for event in events] == [0, *range(len(events) - 1)]
    kinds = [type(event) for event in events if not isinstance(event, Output)]
    assert kinds == [Queued, Dispatched, StageStarted, StageExited, StageStarted, StageExited, Finished]
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.result.compile is not None
    assert last.result.run is not None
    assert (last.result.compile.stdout, last.result.run.stdout) == (b"compiling\n", b"running\n")
    assert (last.result.verdict, last.result.run.exit_code) == (Verdict.RUNTIME_ERROR, 4)


async def test_a_failed_compile_stage_is_a_compile_error_and_nothing_runs(engine: Engine) -> None:
    result = await engine.result(job("copied", "echo 'no such thing' >&2; exit 1"))
    assert result.verdict is Verdict.COMPILE_ERROR
    assert result.run is None
    assert result.compile is not None
    assert result.compile.stderr == b"no such thing\n"


async def test_a_compile_stage_out_of_time_says_so(engine: Engine) -> None:
    result = await engine.result(job("copied", "sleep 60", compile_limits=LimitRequest(wall_ms=200)))
    assert (result.verdict, result.run) == (Verdict.WALL_TIME, None)


async def test_compile_and_run_share_only_regular_files(engine: Engine) -> None:
    script = "ln -s /etc/passwd link; mkfifo fifo; mkdir -p a/b; echo deep > a/b/c; sleep 300 & echo 'ls -R; ps' > built.sh"
    result = await engine.result(job("copied", script))
    assert result.run is not None
    listing = result.run.stdout.decode()
    assert "link" not in listing
    assert "fifo" not in listing
    assert "c\n" in listing
    assert "sleep" not in listing


async def test_a_command_replaces_both_stages(engine: Engine) -> None:
    result = await engine.result(job("copied", "exit 1", command='echo "$1" | tr a-z A-Z', args=("loud",)))
    assert result.compile is None
    assert result.run is not None
    assert result.run.stdout == b"LOUD\n"


async def test_a_character_split_over_two_writes_survives(engine: Engine) -> None:
    code = "import os, sys\nfor byte in 'é🌍'.encode():\n os.write(1, bytes([byte])); os.write(2, b'.')"
    result = await engine.result(job("python", code))
    assert result.run is not None
    assert result.run.stdout.decode() == "é🌍"
    assert interleave(result.run.chunks).replace(".", "") == "é🌍"


async def test_interactive_input_reaches_the_program_in_order(engine: Engine) -> None:
    async with engine.executor.submit(job("bash", "while read line; do echo got $line; done", interactive=True)) as run:
        heard = b""
        await run.send(Stdin(b"one\n"))
        async for event in run.events():
            if isinstance(event, Output):
                heard += event.data
                if heard == b"got one\n":
                    await run.send(Stdin(b"two\n"))
                elif heard.endswith(b"got two\n"):
                    await run.send(Eof())
            elif isinstance(event, Finished):
                assert event.result.verdict is Verdict.OK
    assert heard == b"got one\ngot two\n"


async def test_input_beyond_every_buffer_waits_and_ends_with_the_program(engine: Engine) -> None:
    """A program that reads nothing: the sender is held back, and let go when the program ends."""
    async with engine.executor.submit(job("bash", "sleep 0.3", interactive=True)) as run:

        async def pour() -> None:
            for _ in range(100):
                await run.send(Stdin(b"x" * BUFFERED_BYTES))

        pouring = asyncio.create_task(pour())
        events = [event async for event in run.events()]
        await asyncio.wait_for(pouring, 30)
    assert isinstance(events[-1], Finished)


async def test_a_signal_reaches_the_program(engine: Engine) -> None:
    code = "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.05; done"
    async with engine.executor.submit(job("bash", code, interactive=True)) as run:
        async for event in run.events():
            if isinstance(event, Output) and event.data == b"ready\n":
                await run.send(Signal("SIGUSR1"))
            elif isinstance(event, Finished):
                assert event.result.run is not None
                assert (event.result.run.stdout, event.result.run.exit_code) == (b"ready\ncaught\n", 7)


async def test_what_is_not_a_signal_or_a_size_is_refused(engine: Engine) -> None:
    async with engine.executor.submit(job("bash", "sleep 60", interactive=True, terminal=Terminal())) as run:
        with pytest.raises(InvalidRequest):
            await run.send(Signal("SIGNOTHING"))
        with pytest.raises(InvalidRequest):
            await run.send(Resize(0, 80))


async def test_a_terminal_has_the_size_that_was_asked_for(engine: Engine) -> None:
    result = await engine.result(job("bash", "tty; stty size", terminal=Terminal(rows=33, columns=77)))
    assert result.run is not None
    assert result.run.stdout.split(b"\r\n")[:2] == [b"/dev/pts/0", b"33 77"]


async def test_cancel_is_a_verdict(engine: Engine) -> None:
    async with engine.executor.submit(job("bash", "echo on; sleep 60")) as run:
        async for event in run.events():
            if isinstance(event, Output):
                await run.send(Cancel())
            elif isinstance(event, Finished):
                assert event.result.verdict is Verdict.CANCELLED


async def test_attack_101_cancel_racing_finish_gives_one_result(engine: Engine) -> None:
    for _ in range(20):
        async with engine.executor.submit(job("bash", "exit 0")) as run:
            events = []
            async for event in run.events():
                events.append(event)
                await run.send(Cancel())
        finished = [event for event in events if isinstance(event, Finished)]
        assert len(finished) == 1
        assert finished[0].result.verdict in {Verdict.OK, Verdict.CANCELLED}
    assert engine.executor.statistics().in_flight == 0


async def test_leaving_the_context_kills_the_program(engine: Engine) -> None:
    async with engine.executor.submit(job("bash", "echo on; sleep 60")) as run:
        async for event in run.events():
            if isinstance(event, Output):
                break
    assert engine.executor.statistics().in_flight == 0


async def test_attack_23_a_reader_that_stops_makes_the_program_wait(engine: Engine) -> None:
    """8 MiB are offered to a reader that looks away: no more than the buffer is held, and the wall clock still ends it."""
    limits = LimitRequest(output_bytes=8 << 20, wall_ms=700)
    held = 0
    async with engine.executor.submit(job("bash", "head -c 8388608 /dev/zero; echo done >&2", run_limits=limits)) as run:
        stream = run.events()
        async for event in stream:
            if isinstance(event, Output):
                break
        await asyncio.sleep(0.5)  # the reader is away: this is the attack, not a wait for something
        assert isinstance(run, Run)
        held = run._events.buffered_bytes
        events = [event async for event in stream]
    assert held <= BUFFERED_BYTES + (1 << 20)
    assert isinstance(events[-1], Finished)


async def test_artifacts_come_back_and_links_do_not(engine: Engine) -> None:
    code = "echo pixels > a.png; ln -s /etc/passwd b.png; mkfifo c.png; mkdir d; echo more > d/e.png; echo no > f.txt"
    result = await engine.result(job("bash", code, artifacts=("*.png",)))
    assert {file.name: file.content for file in result.artifacts} == {"a.png": b"pixels\n", "d/e.png": b"more\n"}


async def test_a_limit_above_the_maximum_is_refused_by_name(engine: Engine) -> None:
    with pytest.raises(LimitTooHigh) as refused:
        await engine.result(job("bash", "true", run_limits=LimitRequest(wall_ms=10**9)))
    assert refused.value.limit == "run.wall_ms"


async def test_files_larger_than_what_can_be_written_are_refused(engine: Engine) -> None:
    big = Job(
        language="bash",
        files=(File("main.sh", b"true"), File("data", b"x" * 100_000)),
        run_limits=LimitRequest(writable_bytes=50_000),
    )
    with pytest.raises(InvalidRequest):
        await engine.result(big)


async def test_an_unknown_runtime_is_refused(engine: Engine) -> None:
    with pytest.raises(UnknownRuntime):
        await engine.result(job("klingon", "true"))


async def test_a_full_queue_refuses_and_waiting_time_is_reported(make_engine: MakeEngine) -> None:
    engine = await make_engine(slots=1, queue_length=1)
    first = asyncio.create_task(engine.result(job("bash", "sleep 0.3")))
    await until(lambda: engine.executor.statistics().in_flight > 0)
    second = asyncio.create_task(engine.result(job("bash", "true")))
    await until(lambda: engine.executor.statistics().queued > 0)
    with pytest.raises(QueueFull):
        await engine.result(job("bash", "true"))
    await first
    assert (await second).timings.queue_ms > 0


async def test_shutdown_cancels_what_runs(make_engine: MakeEngine) -> None:
    engine = await make_engine()
    running = asyncio.create_task(engine.result(job("bash", "echo on; sleep 60")))
    await until(lambda: engine.executor.statistics().in_flight > 0)
    await engine.executor.__aexit__()
    assert (await running).verdict is Verdict.CANCELLED


async def test_a_killed_launcher_ends_runs_with_a_reason_and_comes_back(engine: Engine) -> None:
    async with engine.executor.submit(job("bash", "echo on; sleep 60")) as run:
        async for event in run.events():
            if isinstance(event, Output):
                (pid,) = engine.executor.launchers.pids
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            elif isinstance(event, Finished):
                assert event.result.verdict is Verdict.INTERNAL
                assert "sandbox" in event.result.reason
    again = await engine.result(job("bash", "echo back"))
    assert again.verdict is Verdict.OK
    assert engine.executor.statistics().pool.launcher_restarts == 1


async def test_isolation_layers_are_in_every_result(engine: Engine) -> None:
    result = await engine.result(job("bash", "true"))
    assert {"mount", "pid", "network", "seccomp", "capabilities"} <= set(result.isolation)
