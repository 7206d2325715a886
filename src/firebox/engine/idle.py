"""Idle timeout of interactive runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class IdleClock:
    """Calls `expired` once nothing has happened for `idle_ms`; never with 0. Has one timer, however much happens."""

    def __init__(self, idle_ms: int, expired: Callable[[], None]) -> None:
        self._idle_s = idle_ms / 1000
        self._expired = expired
        self._timer: asyncio.TimerHandle | None = None
        self._last_s = 0.0
        self.is_over = False

    def start(self) -> None:
        if self._idle_s:
            self._last_s = asyncio.get_running_loop().time()
            self._wait(self._idle_s)

    def touch(self) -> None:
        """Note that something has happened."""
        if self._timer is not None:
            self._last_s = asyncio.get_running_loop().time()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        remaining_s = self._last_s + self._idle_s - asyncio.get_running_loop().time()
        if remaining_s > 0:
            self._wait(remaining_s)
            return
        self._timer = None
        self.is_over = True
        self._expired()
