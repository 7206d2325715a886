"""A real executor with the host's own tools; nothing is left of it afterwards."""

from __future__ import annotations

import os
import platform
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from firebox.domain.model import Event, File, Finished, Job, Result
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.settings.settings import load_settings
from tests.support.waiting import until

RUNTIMES = (
    Runtime(language="python", version="3.0.0", main_name="main.py", extensions=(".py",), run=("/usr/bin/python3", "{main}")),
    Runtime(language="bash", version="5.0.0", main_name="main.sh", extensions=(".sh",), run=("/bin/bash", "{main}")),
    Runtime(
        language="copied",
        version="1.0.0",
        main_name="main.sh",
        extensions=(".sh",),
        compile=(("/bin/sh", "{main}"),),
        run=("/bin/sh", "built.sh"),
    ),
    Runtime(
        language="kept",
        version="1.0.0",
        main_name="main.sh",
        extensions=(".sh",),
        compile=(("/bin/sh", "{main}"),),
        run=("/bin/sh", "built.sh"),
        cache="binary",
    ),
    Runtime(
        language="made",
        version="1.0.0",
        main_name="main.sh",
        extensions=(".sh",),
        compile=(("/bin/sh", "{main}"),),
        run=("./a.out",),
    ),
    Runtime(language="absent", version="1.0.0", main_name="main.x", extensions=(".x",), run=("/usr/bin/no-such-tool", "{main}")),
)
"""The compile stage of `copied`, `kept` and `made` is a shell script. What it leaves in `built.sh` is run, of `kept` also kept;
`made` runs `a.out` itself; the tool of `absent` is gone."""


WAITING_CALLS = {"0", "2", "202", "257"} if platform.machine() == "x86_64" else {"56", "63", "98"}
"""read, open, futex and openat by their numbers: where interpreters and compilers wait."""


ATTEMPTS = 50
"""Maximum runs until a stage of one is prestarted."""


def children_of(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        return []


def programs_that_wait(executor: LocalExecutor) -> set[int]:
    """Find the programs in the sandboxes of an executor that runs nothing now."""
    return {pid for launcher in executor.launchers.pids for init in children_of(launcher) for pid in children_of(init)}


def is_waiting(pid: int) -> bool:
    """Return whether a process is in a system call in which prestarted programs wait; an ended one is."""
    try:
        return Path(f"/proc/{pid}/syscall").read_text().split()[0] in WAITING_CALLS
    except (FileNotFoundError, ProcessLookupError):
        return True


@dataclass
class Engine:
    """An executor, and the two things that tests do with it."""

    executor: LocalExecutor

    async def events(self, job: Job) -> list[Event]:
        async with self.executor.submit(job) as run:
            return [event async for event in run.events()]

    async def result(self, job: Job) -> Result:
        last = (await self.events(job))[-1]
        assert isinstance(last, Finished)
        return last.result


class Warm(Engine):
    """An executor that starts programs ahead, and waits until one is there."""

    async def result(self, job: Job) -> Result:
        """Run a job of which a stage was prestarted."""
        for _ in range(ATTEMPTS):
            before = self.counted()
            result = await super().result(job)
            if self.counted() > before:
                return result
            await self.full()
            await until(self.all_wait, "every prestarted program waits")
        raise AssertionError(f"in {ATTEMPTS} runs nothing of {job.language} was prestarted: {self.executor.statistics()}")

    def counted(self) -> int:
        """Return how many programs began in the way that is wanted."""
        return self.executor.statistics().pool.prestarted

    def all_wait(self) -> bool:
        """Return whether every prestarted program has reached the place where it waits."""
        return all(map(is_waiting, programs_that_wait(self.executor)))

    async def full(self) -> None:
        """Wait until everything that is wanted ready is."""

        def is_full() -> bool:
            statistics = self.executor.statistics()
            return statistics.pool.ready >= statistics.pool.target

        await until(is_full, "as many ready sandboxes as are wanted")


class Restored(Warm):
    """An executor that restores programs from a template, and waits until one is there."""

    def counted(self) -> int:
        return self.executor.statistics().pool.restored


def job(language: str, code: str, **fields: Any) -> Job:
    """Make a job of one file."""
    name = {"python": "main.py"}.get(language, "main.sh")
    return Job(language=language, files=(File(name, code.encode()),), **fields)


@pytest.fixture
async def make_engine(tmp_path: Path) -> AsyncIterator[object]:
    """Make executors with given settings; each is closed at the end, and all its processes are gone."""
    async with AsyncExitStack() as stack:

        async def make(**flags: object) -> Engine:
            settings = load_settings(
                {"ready_sandboxes": 1, "launchers": 1, "data_dir": str(tmp_path / "data"), **flags}, environ={}
            )
            executor = LocalExecutor(settings, Registry(RUNTIMES))
            return Engine(await stack.enter_async_context(executor))

        yield make


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    settings = load_settings({"ready_sandboxes": 2, "slots": 4, "launchers": 1, "data_dir": str(tmp_path / "data")}, environ={})
    async with LocalExecutor(settings, Registry(RUNTIMES)) as executor:
        (launcher_pid,) = executor.launchers.pids
        yield Engine(executor)
    assert not os.path.exists(f"/proc/{launcher_pid}")
