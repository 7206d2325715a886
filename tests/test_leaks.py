"""After many runs everything is as before: memory, file descriptors, mounts, cgroups, processes, folders."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Finished, Job
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.registry import Registry
from firebox.settings.settings import load_settings
from tests.engine.conftest import RUNTIMES
from tests.sandbox.leftovers import own_mounts_of
from tests.support.waiting import until

JOBS = (
    Job(language="bash", files=(File("main.sh", b"echo hello"),)),
    Job(language="copied", files=(File("main.sh", b"echo 'echo built' > built.sh"),)),
    Job(language="bash", files=(File("main.sh", b"sleep 60"),), run_limits=LimitRequest(wall_ms=30)),
    Job(language="bash", files=(File("main.sh", b"exit 3"),), artifacts=("*",)),
    Job(language="nothing", files=(File("main.sh", b""),)),
)
"""Ends of every kind: well, in two stages, killed, failed with files taken, refused."""


@dataclass(frozen=True)
class Footprint:
    """What this process and its launcher hold. memory: resident pages of both, KiB."""

    descriptors: int
    launcher_descriptors: int
    launcher_children: int
    mounts: int
    groups: int
    folders: int
    memory_kib: int


def footprint(launcher_pid: int) -> Footprint:
    gc.collect()
    children = Path(f"/proc/{launcher_pid}/task/{launcher_pid}/children").read_text().split()
    return Footprint(
        descriptors=len(os.listdir("/proc/self/fd")),
        launcher_descriptors=len(os.listdir(f"/proc/{launcher_pid}/fd")),
        launcher_children=len(children),
        mounts=own_mounts_of(launcher_pid),
        groups=sum(len(names) for folder, names, _ in os.walk("/sys/fs/cgroup") if f"-{launcher_pid}-" in Path(folder).name),
        folders=len(os.listdir(tempfile.gettempdir())),
        memory_kib=sum(_resident_kib(pid) for pid in (os.getpid(), launcher_pid)),
    )


def _resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


async def run_many(executor: LocalExecutor, count: int) -> None:
    """Run the jobs in turn, four at a time."""
    room = asyncio.Semaphore(4)

    async def one(job: Job) -> None:
        async with room:
            if job.language == "nothing":
                with pytest.raises(Exception, match="nothing"):
                    await executor.submit(job).__aenter__()
                return
            async with executor.submit(job) as run:
                assert [event async for event in run.events() if isinstance(event, Finished)]

    await asyncio.gather(*(one(JOBS[number % len(JOBS)]) for number in range(count)))


async def settled(executor: LocalExecutor, launcher_pid: int) -> Footprint:
    """Wait until the pool is full again and ended sandboxes are removed, then measure."""

    def is_settled() -> bool:
        statistics = executor.statistics()
        children = footprint(launcher_pid).launcher_children
        return statistics.pool.ready == statistics.pool.target == children and not statistics.in_flight

    await until(is_settled, "the pool is full and ended sandboxes are removed")
    return footprint(launcher_pid)


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for temporary files that no one else writes to: everything in it is ours."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)


async def check(runs: int, data_folder: Path) -> None:
    settings = load_settings({"ready_sandboxes": 2, "slots": 4, "launchers": 1, "data_dir": str(data_folder)}, environ={})
    async with LocalExecutor(settings, Registry(RUNTIMES)) as executor:
        (launcher_pid,) = executor.launchers.pids
        await run_many(executor, 50)  # caches, pools and arenas take their size
        before = await settled(executor, launcher_pid)
        await run_many(executor, runs)
        after = await settled(executor, launcher_pid)
    assert after.descriptors <= before.descriptors
    assert after.launcher_descriptors <= before.launcher_descriptors
    # Fewer may be left: a mount of the host disappears here too when its folder is removed.
    assert after.mounts <= before.mounts
    assert (after.groups, after.folders) == (before.groups, before.folders)
    assert after.memory_kib <= before.memory_kib + 2048 + runs // 2  # 3 KiB a run would be a leak


async def test_fifty_runs_leave_nothing(tmp_path: Path) -> None:
    await check(50, tmp_path)


@pytest.mark.slow
async def test_a_thousand_runs_leave_nothing(tmp_path: Path) -> None:
    await check(1000, tmp_path)
