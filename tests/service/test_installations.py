"""Installations in progress: watchers see the progress, and disconnecting does not cancel them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from firebox.domain.errors import DownloadFailed, ShuttingDown
from firebox.packages.entry import Entry, Progress, Report, Step
from firebox.packages.installed.store import Installed
from firebox.service.installations import MAX_KEPT_STEPS, Installation

ENTRY = Entry(language="x", version="1.0.0", download="file:///x")
INSTALLED = [Installed(entry=ENTRY, kind="folder", installed_at=datetime.now(UTC), size_bytes=1, requires=())]


class Work:
    """An installation that the test completes."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.cancelled = False

    async def __call__(self, report: Report) -> list[Installed]:
        self.report = report
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return INSTALLED

    def say(self, step: Step, done: int, package: str = "x-1.0.0") -> None:
        assert self.report is not None
        self.report(Progress(package=package, step=step, done=done))


async def begin() -> tuple[Work, Installation, AsyncIterator[Progress]]:
    work = Work()
    installation = Installation(ENTRY, work)
    await work.begun.wait()
    progress = installation.progress()
    assert (await anext(progress)).step == "download"  # the initial report
    return work, installation, progress


async def test_a_slow_reader_gets_the_latest_progress_without_a_backlog() -> None:
    work, installation, progress = await begin()
    for done in range(100_000):
        work.say("download", done)
    work.say("verify", 1)
    work.may_end.set()
    assert [(each.step, each.done) async for each in progress] == [("download", 99_999), ("verify", 1)]
    assert await installation.result() == INSTALLED


async def test_kept_progress_is_bounded() -> None:
    work, installation, _ = await begin()
    for number in range(10 * MAX_KEPT_STEPS):
        work.say("download", 0, f"package-{number}")
    work.may_end.set()
    seen = [each.package async for each in installation.progress()]
    assert seen == [f"package-{number}" for number in range(9 * MAX_KEPT_STEPS, 10 * MAX_KEPT_STEPS)]


async def test_late_watchers_see_the_current_progress() -> None:
    work, installation, first = await begin()
    work.say("download", 5)
    assert (await anext(first)).done == 5
    later = installation.progress()
    assert (await anext(later)).done == 5
    waiting = [asyncio.ensure_future(anext(each)) for each in (first, later)]
    work.say("unpack", 1)
    assert [each.step for each in await asyncio.gather(*waiting)] == ["unpack", "unpack"]
    work.may_end.set()
    assert [each async for each in first] == [each async for each in later] == []


async def test_threads_may_report() -> None:
    work, _, progress = await begin()
    waiting = asyncio.ensure_future(anext(progress))
    await asyncio.to_thread(work.say, "unpack", 7)
    assert (await waiting).done == 7
    work.may_end.set()


async def test_cancelling_a_waiter_does_not_cancel_the_installation() -> None:
    work, installation, progress = await begin()
    waiting: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(installation.result()),
        asyncio.ensure_future(anext(progress)),
    ]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not work.cancelled
    work.may_end.set()
    assert await installation.result() == INSTALLED
    assert installation.ended


async def test_every_watcher_sees_a_failure() -> None:
    async def fail(report: Report) -> list[Installed]:
        raise DownloadFailed("the file is gone")

    installation = Installation(ENTRY, fail)
    assert [each.step async for each in installation.progress()] == ["download"]
    for _ in range(2):
        with pytest.raises(DownloadFailed):
            await installation.result()


async def test_shutdown_cancels_the_installation() -> None:
    work, installation, progress = await begin()
    waiting = asyncio.ensure_future(installation.result())
    await installation.cancel()
    assert work.cancelled
    with pytest.raises(ShuttingDown):
        await waiting
    assert [each async for each in progress] == []


def test_a_report_after_shutdown_is_dropped() -> None:
    kept: list[Work] = []

    async def serve() -> None:
        work, installation, _ = await begin()
        kept.append(work)
        work.may_end.set()
        await installation.result()

    asyncio.run(serve())
    kept[0].say("install", 1)
