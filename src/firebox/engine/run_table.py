"""The runs of an executor, from `submit` until their contexts are left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from firebox.domain.model import Result

if TYPE_CHECKING:  # it imports this module
    from firebox.engine.run import Run

ResultListener = Callable[["Run", Result], None]


class RunTable:
    """Keeps track of runs, and passes their results on. listeners: called with each run and its result, before its last event."""

    def __init__(self) -> None:
        self.listeners: list[ResultListener] = []
        self._runs: dict[Run, AbstractContextManager[object] | None] = {}
        self._empty: asyncio.Event | None = None

    def add(self, run: Run, held: AbstractContextManager[object] | None = None) -> None:
        """Add a run. held: closed when the run is left."""
        self._runs[run] = held

    def ended(self, run: Run, result: Result) -> None:
        """Pass the result on, right before the last event."""
        for listener in self.listeners:
            listener(run, result)

    def left(self, run: Run) -> None:
        """Forget a run of which nothing is left."""
        held = self._runs.pop(run, None)
        if held is not None:
            held.__exit__(None, None, None)
        if not self._runs and self._empty is not None:
            self._empty.set()

    def cancel(self) -> None:
        """Cancel every run."""
        for run in list(self._runs):
            run.cancel()

    async def drain(self, patience_s: float) -> bool:
        """Wait until every run has been left. Returns False when that takes longer than `patience_s`."""
        self._empty = asyncio.Event()
        try:
            async with asyncio.timeout(patience_s):
                while self._runs:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Cancel every run, and wait until nothing of them is left."""
        self.cancel()
        await asyncio.gather(*(run.gone() for run in list(self._runs)))


def new_id() -> str:
    """Create an id for a run. The library is loaded when it is needed: `firebox run` does without."""
    from ulid import ULID

    return str(ULID())
