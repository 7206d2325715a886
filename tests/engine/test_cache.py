"""Cached work is not repeated, which only its duration shows, and nothing of one job gets into another's."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from firebox.domain.model import CacheLevel, File, Job, Output, Result, StageExited, StageStarted, Verdict
from firebox.engine.executor import CACHE
from firebox.engine.job_cache import JobCache
from tests.engine.conftest import RUNTIMES, Engine, job

NEW = "cp /proc/sys/kernel/random/uuid number; echo 'cat number' > built.sh; echo compiled; echo odd >&2"
"""A compile stage that creates another program each time: the same number means that the cache was used."""
FRESH = "cat /proc/sys/kernel/random/uuid"
"""A program that prints something else each time."""
BASH, KEPT = (next(runtime for runtime in RUNTIMES if runtime.language == name) for name in ("bash", "kept"))

BOOT = 32
"""Where in an entry the start of the machine stands on which it was written."""

MakeEngine = Callable[..., Awaitable[Engine]]


def kept_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / CACHE).rglob("*") if path.is_file())


def output_of(result: Result) -> bytes:
    assert result.run is not None
    return result.run.stdout


async def written(engine: Engine) -> None:
    """Wait until what is to be kept is on the disk."""
    await engine.executor.cache.written()


class TestCompiledPrograms:
    async def test_second_job_runs_what_the_first_compiled(self, engine: Engine) -> None:
        first = await engine.result(job("kept", NEW))
        await written(engine)
        second = await engine.result(job("kept", NEW))
        assert output_of(first) == output_of(second) != b""
        assert (first.cache, second.cache) == ("none", "binary")

    async def test_compilers_words_come_again_and_cost_nothing(self, engine: Engine) -> None:
        first = await engine.result(job("kept", NEW))
        await written(engine)
        events = await engine.events(job("kept", NEW))
        stages = [event.stage for event in events if isinstance(event, StageStarted)]
        words = [(event.stream, event.data) for event in events if isinstance(event, Output) and event.stage == "compile"]
        ended = next(event.result for event in events if isinstance(event, StageExited))
        assert stages == ["compile", "run"]
        assert sorted(words) == [("stderr", b"odd\n"), ("stdout", b"compiled\n")]
        assert first.compile is not None
        assert ended == replace(first.compile, wall_ms=0.0, cpu_ms=0.0, memory_peak_bytes=0)
        assert [event.sequence for event in events] == [0, *range(len(events) - 1)]

    @pytest.mark.parametrize(
        "change",
        [
            {"files": (File("main.sh", NEW.encode() + b" "),)},
            {"files": (File("main.sh", NEW.encode()), File("data", b"", source=False))},
            {"files": (File("other.sh", NEW.encode()),)},
            {"env": {"NAME": "value"}},
            {"compile_limits": {"wall_ms": 9_999}},
        ],
        ids=["source", "data", "name", "variable", "limit"],
    )
    async def test_whatever_a_compiler_sees_makes_another_program(self, engine: Engine, change: dict[str, Any]) -> None:
        wanted = msgspec.convert({**msgspec.to_builtins(job("kept", NEW)), **msgspec.to_builtins(change)}, Job)
        first = await engine.result(job("kept", NEW))
        await written(engine)
        other = await engine.result(wanted)
        assert other.cache == "none"
        assert output_of(other) != output_of(first)

    async def test_arguments_and_input_do_not_matter_to_the_compiler(self, engine: Engine) -> None:
        await engine.result(job("kept", NEW))
        await written(engine)
        assert (await engine.result(job("kept", NEW, args=("a",), stdin=b"b"))).cache == "binary"

    async def test_job_that_wants_nothing_kept_neither_reads_nor_writes(self, engine: Engine, tmp_path: Path) -> None:
        await engine.result(job("kept", NEW, cache="none"))
        await written(engine)
        assert kept_files(tmp_path / "data") == []
        first = await engine.result(job("kept", NEW))
        await written(engine)
        again = await engine.result(job("kept", NEW, cache="none"))
        assert again.cache == "none"
        assert output_of(again) != output_of(first)

    async def test_compile_error_is_kept_too(self, engine: Engine) -> None:
        broken = job("kept", "cat /proc/sys/kernel/random/uuid; exit 3")
        first = await engine.result(broken)
        await written(engine)
        second = await engine.result(broken)
        assert first.verdict is second.verdict is Verdict.COMPILE_ERROR
        assert first.compile is not None
        assert second.compile is not None
        assert first.compile.stdout == second.compile.stdout != b""
        assert second.cache == "binary"

    async def test_compiler_that_was_stopped_is_asked_again(self, engine: Engine, tmp_path: Path) -> None:
        endless = job("kept", "while :; do :; done", compile_limits=replace(Job(language="").compile_limits, wall_ms=200))
        assert (await engine.result(endless)).verdict is Verdict.WALL_TIME
        await written(engine)
        assert kept_files(tmp_path / "data") == []

    async def test_many_at_once_compile_once(self, engine: Engine) -> None:
        results = await asyncio.gather(*(engine.result(job("kept", NEW)) for _ in range(8)))
        assert len({output_of(result) for result in results}) == 1
        assert sorted(result.cache for result in results) == ["binary"] * 7 + ["none"]

    @pytest.mark.parametrize("turns", [0, 10], ids=["before it waits", "while it waits"])
    async def test_who_waits_for_anothers_compiler_can_be_cancelled(self, engine: Engine, turns: int) -> None:
        slow = job("kept", "echo begun; sleep 60")
        async with engine.executor.submit(slow) as first:
            events = first.events()
            while not isinstance(await anext(events), Output):
                pass
            next_event = asyncio.ensure_future(anext(events))
            async with engine.executor.submit(slow) as second:
                for _ in range(turns):
                    await asyncio.sleep(0)
                # Leaving cancels.
            assert not next_event.done(), "the first one compiles still"
            next_event.cancel()
            last = [event async for event in second.events()][-1]
            assert getattr(last, "result").verdict is Verdict.CANCELLED  # noqa: B009 - the type of the last event is the promise
        assert (await engine.result(job("kept", NEW))).verdict is Verdict.OK

    async def test_next_one_compiles_when_the_first_gives_up(self, engine: Engine) -> None:
        waits = "echo begun; read line < /dev/null; sleep 1; " + NEW
        async with engine.executor.submit(job("kept", waits)) as first:
            async for event in first.events():
                if isinstance(event, Output):
                    break
            second = asyncio.create_task(engine.result(job("kept", waits)))
            await asyncio.sleep(0)
        assert (await second).verdict is Verdict.OK

    async def test_restart_keeps_what_was_compiled(self, make_engine: MakeEngine) -> None:
        first, second = await make_engine(), await make_engine()
        result = await first.result(job("kept", NEW))
        await written(first)
        assert output_of(await second.result(job("kept", NEW))) == output_of(result)


class TestOutcomes:
    async def test_outcome_is_kept_only_for_who_asks(self, engine: Engine) -> None:
        results: list[Result] = []
        levels: list[CacheLevel | None] = [None, "binary", "output", "output", None]
        for level in levels:
            results.append(await engine.result(job("bash", FRESH, cache=level)))
            await written(engine)
        outputs = [output_of(result) for result in results]
        assert outputs[2] == outputs[3]
        assert len(set(outputs)) == 4
        assert [result.cache for result in results] == ["none", "none", "none", "output", "none"]

    @pytest.mark.parametrize(
        "change",
        [{"stdin": b"x"}, {"args": ("x",)}, {"env": {"A": "x"}}, {"artifacts": ("x",)}],
        ids=lambda change: next(iter(change)),
    )
    async def test_whatever_a_program_sees_makes_another_outcome(self, engine: Engine, change: dict[str, Any]) -> None:
        first = await engine.result(job("bash", FRESH, cache="output"))
        await written(engine)
        other = await engine.result(job("bash", FRESH, cache="output", **change))
        assert other.cache == "none"
        assert output_of(other) != output_of(first)

    async def test_it_is_the_same_in_everything_but_its_name_and_its_cost(self, engine: Engine) -> None:
        wanted = job(
            "copied", "echo 'echo out; echo err >&2; echo kept > file; exit 3' > built.sh", cache="output", artifacts=("file",)
        )
        first = await engine.result(wanted)
        await written(engine)
        second = await engine.result(wanted)
        assert second.id != first.id
        assert second.cache == "output"
        assert (second.verdict, second.reason, second.artifacts) == (
            Verdict.RUNTIME_ERROR,
            "exit code 3",
            (File("file", b"kept\n"),),
        )
        assert first.run is not None
        assert second.run == replace(first.run, wall_ms=0.0, cpu_ms=0.0, memory_peak_bytes=0)

    async def test_person_at_the_keyboard_is_never_served_from_it(self, engine: Engine, tmp_path: Path) -> None:
        async with engine.executor.submit(job("bash", FRESH, cache="output", interactive=True)) as run:
            events = [event async for event in run.events()]
        await written(engine)
        assert events
        assert kept_files(tmp_path / "data") == []

    async def test_outcome_that_a_clock_decided_is_not_kept(self, engine: Engine, tmp_path: Path) -> None:
        limits = replace(Job(language="").run_limits, wall_ms=200)
        assert (await engine.result(job("bash", "sleep 60", cache="output", run_limits=limits))).verdict is Verdict.WALL_TIME
        await written(engine)
        assert kept_files(tmp_path / "data") == []


class TestFolder:
    async def test_old_entries_are_not_served(self, make_engine: MakeEngine, tmp_path: Path) -> None:
        engine = await make_engine(job_cache_s=0)
        first = await engine.result(job("kept", NEW))
        await written(engine)
        assert output_of(await engine.result(job("kept", NEW))) != output_of(first)

    async def test_what_was_used_least_lately_makes_room(self, make_engine: MakeEngine, tmp_path: Path) -> None:
        engine = await make_engine(job_cache_bytes=400_000)
        big = "head -c 100000 /dev/urandom > data; echo true > built.sh; : %d"
        for number in range(3):
            await engine.result(job("kept", big % number))
            await written(engine)
        oldest = min(kept_files(tmp_path / "data"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(oldest, (time.time() + 60, time.time() + 60))
        for number in range(3, 6):
            await engine.result(job("kept", big % number))
            await written(engine)
        assert sum(path.stat().st_size for path in kept_files(tmp_path / "data")) <= 400_000
        assert oldest.exists()

    async def test_larger_than_everything_is_not_kept(self, make_engine: MakeEngine, tmp_path: Path) -> None:
        engine = await make_engine(job_cache_bytes=100)
        assert (await engine.result(job("kept", NEW))).verdict is Verdict.OK
        await written(engine)
        assert kept_files(tmp_path / "data") == []

    @pytest.mark.parametrize(
        "damage", [b"", b"firebox2", b"firebox2" + b"\xff" * 40, bytes(100)], ids=["empty", "cut", "huge", "zeros"]
    )
    async def test_damaged_entry_is_made_anew(self, engine: Engine, tmp_path: Path, damage: bytes) -> None:
        await engine.result(job("kept", NEW))
        await written(engine)
        [entry] = kept_files(tmp_path / "data")
        entry.write_bytes(damage)
        result = await engine.result(job("kept", NEW))
        await written(engine)
        assert (result.verdict, result.cache) == (Verdict.OK, "none")
        assert (await engine.result(job("kept", NEW))).cache == "binary"

    async def test_entry_without_its_end_is_not_served(self, engine: Engine, tmp_path: Path) -> None:
        await engine.result(job("kept", NEW))
        await written(engine)
        [entry] = kept_files(tmp_path / "data")
        os.truncate(entry, entry.stat().st_size - 1)
        assert (await engine.result(job("kept", NEW))).verdict is Verdict.OK
        await written(engine)
        assert (await engine.result(job("kept", NEW))).cache == "binary"

    async def test_entry_from_before_a_crash_is_served_only_if_it_is_whole(self, engine: Engine, tmp_path: Path) -> None:
        await engine.result(job("kept", NEW))
        await written(engine)
        [entry] = kept_files(tmp_path / "data")
        whole = entry.read_bytes()
        entry.write_bytes(whole[:BOOT] + bytes(16) + whole[BOOT + 16 :])
        assert (await engine.result(job("kept", NEW))).cache == "binary"
        assert entry.read_bytes() == whole  # and it is not looked through again

        entry.write_bytes(whole[:BOOT] + bytes(16) + whole[BOOT + 16 : -1] + b"\0")
        assert (await engine.result(job("kept", NEW))).cache == "none"
        await written(engine)
        assert (await engine.result(job("kept", NEW))).cache == "binary"

    async def test_large_entry_is_kept_whole_too(self, engine: Engine) -> None:
        large = "head -c 3000000 /dev/urandom > data; echo 'cksum data' > built.sh"
        first = await engine.result(job("kept", large))
        await written(engine)
        second = await engine.result(job("kept", large))
        assert (second.cache, output_of(second)) == ("binary", output_of(first))

    async def test_nothing_unfinished_stays(self, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        await engine.result(job("kept", NEW))
        await written(engine)

        def fail(_source: str, _target: str) -> None:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "link", fail)
        assert (await engine.result(job("kept", NEW + " "))).verdict is Verdict.OK
        await written(engine)
        assert len(kept_files(tmp_path / "data")) == 1

    async def test_purge_forgets_one_runtime(self, engine: Engine) -> None:
        await engine.result(job("kept", NEW))
        await engine.result(job("bash", FRESH, cache="output"))
        await written(engine)
        assert await engine.executor.cache.purge(KEPT) == 1
        assert await engine.executor.cache.purge(KEPT) == 0
        assert (await engine.result(job("kept", NEW))).cache == "none"
        assert (await engine.result(job("bash", FRESH, cache="output"))).cache == "output"

    async def test_purge_forgets_what_is_being_written_too(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        write, may_write = JobCache._write, threading.Event()

        def wait_and_write(cache: JobCache, *what: Any) -> None:
            may_write.wait(10)
            write(cache, *what)

        monkeypatch.setattr(JobCache, "_write", wait_and_write)
        await engine.result(job("bash", FRESH, cache="output"))
        asyncio.get_running_loop().call_later(0.05, may_write.set)
        assert await engine.executor.cache.purge(BASH) == 1
        assert (await engine.result(job("bash", FRESH, cache="output"))).cache == "none"

    async def test_folder_that_cannot_be_written_only_costs_time(self, make_engine: MakeEngine, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / CACHE).write_text("in the way")
        engine = await make_engine()
        assert (await engine.result(job("kept", NEW))).verdict is Verdict.OK
        await written(engine)
        assert (await engine.result(job("kept", NEW))).cache == "none"

    async def test_nobody_else_may_look_into_it(self, engine: Engine, tmp_path: Path) -> None:
        await engine.result(job("kept", NEW))
        await written(engine)
        assert {path.stat().st_mode & 0o077 for path in kept_files(tmp_path / "data")} == {0}

    async def test_program_finds_nothing_of_it(self, engine: Engine, tmp_path: Path) -> None:
        await engine.result(job("kept", NEW))
        await written(engine)
        found = await engine.result(
            job("bash", f"ls {tmp_path}/data; ls /proc/self/fd | wc -l; find / -name '{CACHE}' 2>/dev/null")
        )
        assert found.run is not None
        assert CACHE.encode() not in found.run.stdout
