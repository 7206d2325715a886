"""Rate limit for repeated log lines."""

from __future__ import annotations

import time
from collections.abc import Callable


class LogThrottle:
    """Allows a line at most once in `every_s` seconds. clock: monotonic, in seconds."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._next_s = float("-inf")

    def due(self) -> bool:
        """Return whether a line may be logged now; if so, the caller must log it."""
        if self._clock() < self._next_s:
            return False
        self._next_s = self._clock() + self._every_s
        return True
