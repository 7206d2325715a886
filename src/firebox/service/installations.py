"""Installations in progress, which any number of clients may follow and which outlive all of them."""

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

MAX_KEPT_STEPS = 256
"""Maximum progress reports kept for late or slow readers: the latest one per package and step."""
CANCEL_TIMEOUT_S = 10.0
"""Time for a cancelled installation to clean up."""

_log = structlog.get_logger("firebox.packages")

Work = Callable[[Report], Awaitable[list[Installed]]]


class Installation:
    """A package installation in progress. work: performs it. Create it in the event loop that follows it."""

    def __init__(self, entry: Entry, work: Work) -> None:
        self.entry = entry
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, str], tuple[int, Progress]] = {}
        self._count = 0
        self._told = False
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._carry_out(work), name=f"install {entry.name}")
        self._task.add_done_callback(log_unexpected_error)
        self._task.add_done_callback(lambda _task: self._wake())

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def result(self) -> list[Installed]:
        """Wait for the installed packages, dependencies first. Cancelling the wait does not stop the installation.

        Raises: what `Installer.install` raises; ShuttingDown if the server stopped first.
        """
        await asyncio.wait((self._task,))
        if self._task.cancelled():
            raise ShuttingDown("the server shut down before the package was installed", retry_after_s=5)
        return self._task.result()

    async def progress(self) -> AsyncIterator[Progress]:
        """Yield progress until the end: the current state of each package first, then updates.

        A slow reader skips intermediate steps but never the latest one; there is no backlog.
        """
        seen = 0
        while True:
            news, ended = self._news, self.ended
            with self._lock:
                fresh = [entry for entry in self._latest.values() if entry[0] > seen]
            for number, progress in fresh:
                seen = number
                yield progress
            if ended:
                return
            await news.wait()

    async def cancel(self) -> None:
        """Cancel the installation and wait, for a limited time, until it has cleaned up."""
        self._task.cancel()
        await asyncio.wait((self._task,), timeout=CANCEL_TIMEOUT_S)

    def report(self, progress: Progress) -> None:
        """Record progress. Thread-safe."""
        key = (progress.package, progress.step)
        with self._lock:
            self._count += 1
            self._latest.pop(key, None)
            self._latest[key] = (self._count, progress)
            if len(self._latest) > MAX_KEPT_STEPS:
                del self._latest[next(iter(self._latest))]
            told, self._told = self._told, True
        if not told:
            with suppress(RuntimeError):  # the event loop is closed: the server has stopped
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self._lock:
            self._told = False
        self._news.set()
        self._news = asyncio.Event()

    async def _carry_out(self, work: Work) -> list[Installed]:
        self.report(Progress(package=self.entry.name, step="download"))  # visible progress from the start
        try:
            installed = await work(self.report)
        except FireboxError as error:
            reason = {"code": error.code, "reason": error.message, "hint": error.hint}
            _log.warning("package installation failed", package=self.entry.name, **reason)
            raise
        _log.info("package installed", package=self.entry.name, repository=self.entry.repository)
        return installed


def log_unexpected_error(task: asyncio.Task[Any]) -> None:
    """Retrieve the outcome of a background task and log unexpected errors."""
    failure = None if task.cancelled() else task.exception()
    if failure is not None and not isinstance(failure, FireboxError):
        _log.error("unexpected error in a package task", task=task.get_name(), exc_info=failure)
