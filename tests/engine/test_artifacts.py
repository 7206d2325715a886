"""Files that are handed back, those that are not and why, and what looking for them may cost."""

from __future__ import annotations

import asyncio

import pytest

from firebox.domain.limits import LimitRequest, OutputMode
from firebox.domain.model import Cancel, Finished, Output, Result, Verdict
from tests.engine.conftest import Engine, job
from tests.engine.test_cache import MakeEngine

FILL = """
import os, time
made = 0
try:
    while True:
        os.mknod(f"{made:a>240}")
        made += 1
except OSError:
    print(made, time.process_time() * 1000)
"""
"""Makes as many files as may be made, each with a long name of one letter."""


def left_out(result: Result) -> dict[str, str]:
    return {each.name: each.reason for each in result.left_out}


def contents(result: Result) -> dict[str, bytes]:
    return {file.name: file.content for file in result.artifacts}


async def test_what_is_left_out_is_named_with_the_reason(make_engine: MakeEngine) -> None:
    engine = await make_engine(max_artifact_bytes=5000, max_artifact_files=3)
    code = """
head -c 4000 /dev/zero > a; head -c 4000 /dev/zero > b
for n in 1 2 3 4 5; do echo $n > c$n; done
ln -s a link; echo secret > locked; chmod 0 locked; mkdir folder; echo x > folder/x
printf x > "$(printf 'odd\\033[31m\\377')"
"""
    patterns = ("a", "b", "c?", "link", "locked", "folder", "odd*", "missing.png")
    result = await engine.result(job("bash", code, artifacts=patterns))
    assert result.verdict is Verdict.OK
    assert contents(result).keys() == {"a", "c1", "c2"}
    assert left_out(result) == {
        "b": "too large: all files together may have 5000 bytes",
        "c3": "too many: at most 3 files are taken",
        "c4": "too many: at most 3 files are taken",
        "c5": "too many: at most 3 files are taken",
        "link": "not a regular file",
        "locked": "Permission denied",
        "folder": "a folder; folder/* means its files",
        "missing.png": "no such file",
        "odd\\x1b[31m\\udcff": "too many: at most 3 files are taken",
    }


async def test_a_name_that_cannot_be_shown_is_left_out(engine: Engine) -> None:
    result = await engine.result(job("bash", "printf x > \"$(printf 'odd\\033[31m\\377')\"", artifacts=("odd*",)))
    assert (result.artifacts, left_out(result)) == ((), {"odd\\x1b[31m\\udcff": "its name is not printable"})


async def test_nothing_is_left_out_where_everything_came(engine: Engine) -> None:
    result = await engine.result(job("bash", "echo 1 > a; mkdir d; echo 2 > d/b", artifacts=("*", "a", "d/[ab]")))
    assert contents(result).items() >= {"a": b"1\n", "d/b": b"2\n"}.items()
    assert result.left_out == ()


@pytest.mark.parametrize(
    ("code", "limits", "verdict"),
    [
        ("exit 3", LimitRequest(), Verdict.RUNTIME_ERROR),
        ("kill -SEGV $$", LimitRequest(), Verdict.SIGNAL),
        ("sleep 60", LimitRequest(wall_ms=300), Verdict.WALL_TIME),
        ("while :; do :; done", LimitRequest(cpu_ms=300, wall_ms=60_000), Verdict.CPU_TIME),
        ("exec python3 -c 'x = bytearray(1 << 30)'", LimitRequest(memory_bytes=64 << 20), Verdict.MEMORY),
        ("yes", LimitRequest(output_bytes=10, output_mode=OutputMode.KILL), Verdict.OUTPUT),
    ],
)
async def test_artifacts_come_however_the_program_ended(
    engine: Engine, code: str, limits: LimitRequest, verdict: Verdict
) -> None:
    result = await engine.result(job("bash", f"echo log > log\n{code}", artifacts=("log", "none"), run_limits=limits))
    assert (result.verdict, contents(result), left_out(result)) == (verdict, {"log": b"log\n"}, {"none": "no such file"})


async def test_artifacts_of_processes_that_multiply_come_after_their_end(engine: Engine) -> None:
    code = "echo log > log; bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 60"
    limits = LimitRequest(wall_ms=500, processes=40)
    result = await engine.result(job("bash", code, artifacts=("log",), run_limits=limits))
    assert (result.verdict, contents(result)) == (Verdict.WALL_TIME, {"log": b"log\n"})


async def test_a_cancelled_run_says_that_its_files_are_gone(engine: Engine) -> None:
    result: Result | None = None
    async with engine.executor.submit(job("bash", "echo on; sleep 60", artifacts=("log",))) as run:
        async for event in run.events():
            if isinstance(event, Output):
                await run.send(Cancel())
            elif isinstance(event, Finished):
                result = event.result
    assert result is not None
    assert (result.verdict, left_out(result)) == (Verdict.CANCELLED, {"log": "the program was killed together with its files"})


@pytest.mark.parametrize("inodes", [18_000, 210_000])
async def test_attack_looking_for_files_in_a_hostile_folder_is_bounded(engine: Engine, inodes: int) -> None:
    """Slow patterns over many long names: the verdict stays the program's, and the time is the run's."""
    patterns = tuple(f"*{'a' * 120}b{number}*" for number in range(100))
    limits = LimitRequest(writable_inodes=inodes, wall_ms=60_000, cpu_ms=60_000, memory_bytes=1 << 30)
    async with asyncio.timeout(120):
        result = await engine.result(job("python", FILL, artifacts=patterns, run_limits=limits))
    assert result.verdict is Verdict.OK
    assert set(left_out(result).values()) == {"the time to look for files was over"}
    assert result.run is not None
    made, program_cpu_ms = map(float, result.run.stdout.split())
    assert made > inodes * 0.9
    assert result.run.cpu_ms > program_cpu_ms + 50


async def test_what_a_compile_stage_makes_too_much_of_is_its_own_fault(engine: Engine) -> None:
    code = "truncate -s 3000 a b"
    result = await engine.result(job("copied", code, compile_limits=LimitRequest(writable_bytes=5000)))
    assert result.verdict is Verdict.COMPILE_ERROR
    assert "too large" in result.reason
