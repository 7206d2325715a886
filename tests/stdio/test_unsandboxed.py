"""The executor without isolation: same protocol, time and output limits, and rejection of unsupported limits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from firebox.domain.errors import InvalidRequest, LimitNotEnforceable, UnknownRuntime
from firebox.domain.limits import LimitRequest, OutputMode
from firebox.domain.model import (
    Cancel,
    Dispatched,
    Eof,
    Event,
    Executor,
    File,
    Finished,
    Job,
    Output,
    Queued,
    Result,
    Signal,
    StageExited,
    StageStarted,
    Stdin,
    Terminal,
    Verdict,
)
from firebox.engine.event_buffer import BUFFERED_BYTES
from firebox.engine.unsandboxed import UnsandboxedExecutor
from firebox.runtimes.definition import shipped_definitions
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.registry import Registry
from firebox.settings.limit_policy import NO_MAXIMA
from firebox.settings.settings import Settings, load_settings
from tests.support.waiting import until


@pytest.fixture(scope="module")
def registry() -> Registry:
    wanted = {"bash", "python", "c"}
    definitions = [definition for definition in shipped_definitions() if definition.language in wanted and definition.rank == 0]
    return Registry(scan_host(os.environ["PATH"], definitions).runtimes)


@pytest.fixture
def settings() -> Settings:
    return load_settings(NO_MAXIMA, environ={})


@pytest.fixture
def executor(registry: Registry, settings: Settings, tmp_path: Path) -> Executor:
    return UnsandboxedExecutor(settings, registry, tmp_path)


def bash(code: str, **more: object) -> Job:
    return msgspec.structs.replace(Job(language="bash", files=(File("main.sh", code.encode()),)), **more)


async def run(executor: Executor, job: Job) -> tuple[list[Event], Result]:
    async with executor.submit(job) as started:
        events = [event async for event in started.events()]
    assert isinstance(events[-1], Finished)
    return events, events[-1].result


def alive(marker: Path) -> bool:
    """Check whether the process whose id is in a file is running."""
    status = Path(f"/proc/{marker.read_text().strip()}/status")
    try:
        return "\nState:\tZ" not in status.read_text()
    except FileNotFoundError:
        return False


async def gone(marker: Path) -> bool:
    """Wait until a killed process has been reaped by its current parent."""
    await until(lambda: not alive(marker))
    return True


async def test_events_come_in_order_and_the_result_last(executor: Executor) -> None:
    job = Job(language="c", files=(File("main.c", b'#include <stdio.h>\nint main() { puts("x"); return 2; }'),))
    events, result = await run(executor, job)
    kinds = [type(event) for event in events]
    assert kinds == [Queued, Dispatched, StageStarted, StageExited, StageStarted, Output, StageExited, Finished]
    assert [event.sequence for event in events] == [0, 0, 1, 2, 3, 4, 5, 6]
    assert result.verdict is Verdict.RUNTIME_ERROR
    assert result.run is not None
    assert (result.run.exit_code, result.run.stdout) == (2, b"x\n")
    assert result.isolation == ()
    assert result.compile is not None
    assert result.compile.cpu_ms > 0
    assert result.run.memory_peak_bytes > 0


async def test_compile_error(executor: Executor) -> None:
    _events, result = await run(executor, Job(language="c", files=(File("main.c", b"no"),)))
    assert result.verdict is Verdict.COMPILE_ERROR
    assert result.run is None


async def test_wall_clock_kills_the_group(executor: Executor, tmp_path: Path) -> None:
    job = bash("sleep 300 & echo $! > child; wait", run_limits=LimitRequest(wall_ms=300))
    _events, result = await run(executor, job)
    assert result.verdict is Verdict.WALL_TIME
    assert await gone(tmp_path / "child")


async def test_what_a_program_leaves_behind_is_killed(executor: Executor, tmp_path: Path) -> None:
    _events, result = await run(executor, bash("sleep 300 > /dev/null 2>&1 & echo $! > child; echo left"))
    assert (result.verdict, result.run and result.run.stdout) == (Verdict.OK, b"left\n")
    assert await gone(tmp_path / "child")


async def test_a_process_that_left_the_group_cannot_hold_up_the_end(executor: Executor, tmp_path: Path) -> None:
    _events, result = await run(
        executor, bash("setsid sh -c 'echo $$ > child; exec sleep 30' & while [ ! -s child ]; do :; done")
    )
    assert result.verdict is Verdict.OK
    os.kill(int((tmp_path / "child").read_text()), 9)
    assert await gone(tmp_path / "child")


@pytest.mark.parametrize(("mode", "verdict"), [(OutputMode.CUT, Verdict.OK), (OutputMode.KILL, Verdict.OUTPUT)])
async def test_output_is_capped(executor: Executor, mode: OutputMode, verdict: Verdict) -> None:
    limits = LimitRequest(output_bytes=1000, output_mode=mode)
    _events, result = await run(executor, bash("head -c 300000 /dev/zero; echo done >&2", run_limits=limits))
    assert result.verdict is verdict
    assert result.run is not None
    assert (len(result.run.stdout), result.run.stdout_truncated) == (1000, True)
    assert (result.run.stderr == b"done\n") == (mode is OutputMode.CUT)


async def test_endless_output_ends_at_the_cap(executor: Executor) -> None:
    _events, result = await run(executor, bash("yes", run_limits=LimitRequest(output_bytes=100_000, output_mode=OutputMode.KILL)))
    assert result.verdict is Verdict.OUTPUT


async def test_a_slow_reader_makes_the_program_wait_and_loses_nothing(executor: Executor) -> None:
    total = 6 * BUFFERED_BYTES
    job = bash(f"head -c {total} /dev/zero", run_limits=LimitRequest(output_bytes=2 * total))
    async with executor.submit(job) as started:
        received = 0
        async for event in started.events():
            for _turn in range(3):
                await asyncio.sleep(0)
            received += len(event.data) if isinstance(event, Output) else 0
    assert received == total


async def test_leaving_without_reading_ends_the_program(executor: Executor, tmp_path: Path) -> None:
    async with executor.submit(bash("echo $$ > own; exec yes")) as started:
        async for event in started.events():
            if isinstance(event, Output):
                break
    assert await gone(tmp_path / "own")


async def test_cancel(executor: Executor) -> None:
    async with executor.submit(bash("echo on; sleep 300")) as started:
        async for event in started.events():
            if isinstance(event, Output):
                await started.send(Cancel())
            if isinstance(event, Finished):
                assert event.result.verdict is Verdict.CANCELLED


async def test_interactive_input(executor: Executor) -> None:
    said: list[bytes] = []
    async with executor.submit(
        bash("while read line; do echo got $line; done; echo end", interactive=True, stdin=b"a\n")
    ) as started:
        async for event in started.events():
            if isinstance(event, Output):
                said.append(event.data)
                if b"got a" in event.data:
                    await started.send(Stdin(b"b\n"))
                elif b"got b" in event.data:
                    await started.send(Eof())
        await asyncio.wait_for(started.send(Stdin(b"late")), 30)
    assert b"".join(said) == b"got a\ngot b\nend\n"


async def test_signals_reach_the_program(executor: Executor) -> None:
    async with executor.submit(bash("trap 'echo caught; exit 5' USR1; echo on; while :; do sleep 0.01; done")) as started:
        async for event in started.events():
            if isinstance(event, Output) and event.data == b"on\n":
                await started.send(Signal("SIGUSR1"))
            if isinstance(event, Finished):
                assert event.result.run is not None
                assert event.result.run.exit_code == 5
        with pytest.raises(InvalidRequest):
            await started.send(Signal("SIGNONE"))


async def test_large_input_that_nobody_reads(executor: Executor) -> None:
    _events, result = await run(executor, bash("exec 0<&-; echo done", stdin=b"x" * (4 << 20)))
    assert result.verdict is Verdict.OK


async def test_program_that_cannot_start_is_in_the_result(registry: Registry, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    job = bash("echo x", env={"A": "x" * (3 << 20)})
    _events, result = await run(UnsandboxedExecutor(settings, registry, folder), job)
    assert result.verdict is Verdict.RUNTIME_ERROR
    assert "too long together" in result.reason


@pytest.mark.parametrize(
    "name", [name for name in LimitRequest.__struct_fields__ if name not in {"wall_ms", "output_bytes", "output_mode"}]
)
async def test_limits_that_it_cannot_hold_are_refused(executor: Executor, name: str) -> None:
    with pytest.raises(LimitNotEnforceable, match=name):
        async with executor.submit(bash("echo x", run_limits=msgspec.convert({name: 1000}, LimitRequest))):
            pass


async def test_what_needs_the_sandbox_is_refused(executor: Executor) -> None:
    refused: Sequence[Job] = (bash("ls", terminal=Terminal()), bash("ls", artifacts=("*",)))
    for job in refused:
        with pytest.raises(InvalidRequest):
            async with executor.submit(job):
                pass
    with pytest.raises(UnknownRuntime):
        async with executor.submit(Job(language="klingon", files=(File("a", b"b"),))):
            pass


async def test_runs_wait_for_each_other_as_they_share_a_folder(executor: Executor) -> None:
    job = bash("[ -e busy ] && echo not alone; touch busy; sleep 0.05; rm busy")
    results = await asyncio.gather(*(run(executor, job) for _number in range(4)))
    assert [result.run and result.run.stdout for _events, result in results] == [b""] * 4


async def test_no_descriptor_and_no_process_is_left(executor: Executor) -> None:
    await run(executor, bash("echo x"))
    before = sorted(os.listdir("/proc/self/fd"))
    for _number in range(20):
        await run(executor, bash("cat; echo x >&2", stdin=b"abc"))
    assert sorted(os.listdir("/proc/self/fd")) == before
