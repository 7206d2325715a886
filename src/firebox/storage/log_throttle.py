"""A line in the log now and then instead of one for each request that fails."""

from __future__ import annotations

import time
from collections.abc import Callable


class Quiet:
    """Says whether a line is due: at most once in `every_s` seconds. clock: seconds, never backwards."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._next_s = float("-inf")

    def due(self) -> bool:
        """Whether to write a line now; who is told so writes it."""
        if self._clock() < self._next_s:
            return False
        self._next_s = self._clock() + self._every_s
        return True

    def forget(self) -> None:
        """Let the next line be due."""
        self._next_s = float("-inf")
