"""Installations under way: each goes on to its end whoever watches it, and any number of clients may."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from firebox.domain.errors import FireboxError, ShuttingDown
from firebox.packages.entry import Entry, Progress, Report
from firebox.packages.installed.store import Installed

KEPT_STEPS = 256
"""What is remembered of an installation for whoever comes later or reads slowly: the newest word about each package and step."""
STOP_S = 10.0
"""How long an installation that is cancelled may take to clean up after itself."""

_log = structlog.get_logger("firebox.packages")

Work = Callable[[Report], Awaitable[list[Installed]]]


class Installation:
    """One package on its way in. work: installs it. To be made in the event loop in which it is followed."""

    def __init__(self, entry: Entry, work: Work) -> None:
        self.entry = entry
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, str], tuple[int, Progress]] = {}
        self._count = 0
        self._told = False
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._carry_out(work), name=f"install {entry.name}")
        self._task.add_done_callback(note_outcome)
        self._task.add_done_callback(lambda _task: self._wake())

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def result(self) -> list[Installed]:
        """Wait for what was installed, dependencies first. Whoever waits may stop waiting: the installation goes on.

        Raises: what `Installer.install` raises; ShuttingDown when the server stopped first.
        """
        await asyncio.wait((self._task,))
        if self._task.cancelled():
            raise ShuttingDown("the server stopped before the package was installed", retry_after_s=5)
        return self._task.result()

    async def progress(self) -> AsyncIterator[Progress]:
        """Yield how far it is until it ends: first where each package stands now, then what is new.

        A slow reader misses steps in between and never the newest one; nothing piles up for it.
        """
        seen = 0
        while True:
            news, ended = self._news, self.ended
            with self._lock:
                fresh = sorted((entry for entry in self._latest.values() if entry[0] > seen), key=lambda entry: entry[0])
            for number, progress in fresh:
                seen = number
                yield progress
            if ended:
                return
            await news.wait()

    async def cancel(self) -> None:
        """Stop it and wait until it has cleaned up, for a while."""
        self._task.cancel()
        await asyncio.wait((self._task,), timeout=STOP_S)

    def report(self, progress: Progress) -> None:
        """Note how far it is. Called from any thread."""
        key = (progress.package, progress.step)
        with self._lock:
            self._count += 1
            self._latest.pop(key, None)
            self._latest[key] = (self._count, progress)
            if len(self._latest) > KEPT_STEPS:
                del self._latest[next(iter(self._latest))]
            told, self._told = self._told, True
        if not told:
            with suppress(RuntimeError):  # the loop is closed: the server has ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self._lock:
            self._told = False
        self._news.set()
        self._news = asyncio.Event()

    async def _carry_out(self, work: Work) -> list[Installed]:
        self.report(Progress(package=self.entry.name, step="download"))  # whoever watches knows at once that it has begun
        try:
            installed = await work(self.report)
        except FireboxError as error:
            reason = {"code": error.code, "reason": error.message, "hint": error.hint}
            _log.warning("a package was not installed", package=self.entry.name, **reason)
            raise
        _log.info("a package is installed", package=self.entry.name, repository=self.entry.repository)
        return installed


def note_outcome(task: asyncio.Task[Any]) -> None:
    """See to it that a task's failure is not lost where whoever began it has gone away: what nobody foresaw is logged."""
    failure = None if task.cancelled() else task.exception()
    if failure is not None and not isinstance(failure, FireboxError):
        _log.error("work on packages met a bug", task=task.get_name(), exc_info=failure)
