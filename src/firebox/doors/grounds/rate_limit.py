"""How often somebody may ask: each connection twice a second, everybody of one address or user together not without bound.

The rule of grounds-exec is about one connection. Whoever opens many of them meets the second rule, which leaves room for a
class of pupils behind one address.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

SPAM_S = 0.5
REQUESTS_OF_A_CALLER = 20
"""Requests of one caller in each `SPAM_S`, over all of its connections."""

Clock = Callable[[], float]
"""Seconds that never go backwards."""


class CallerPaces:
    """Counts requests of every caller. Remembers those of the last `SPAM_S` seconds only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._recent: deque[tuple[float, str]] = deque()

    def take(self, key: str) -> bool:
        """Count a request; False: there have been too many, and it does not count. key: `Caller.key`."""
        now = self._clock()
        while self._recent and self._recent[0][0] <= now - SPAM_S:
            self._forget(self._recent.popleft()[1])
        if self._counts.get(key, 0) >= REQUESTS_OF_A_CALLER:
            return False
        self._counts[key] = self._counts.get(key, 0) + 1
        self._recent.append((now, key))
        return True

    def _forget(self, key: str) -> None:
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]


class Pace:
    """Says whether one connection may ask now. A refused request does not count."""

    def __init__(self, key: str, callers: CallerPaces, clock: Clock) -> None:
        self._key = key
        self._callers = callers
        self._clock = clock
        self._last: float | None = None

    def take(self) -> bool:
        now = self._clock()
        if self._last is not None and now - self._last < SPAM_S:
            return False
        if not self._callers.take(self._key):
            return False
        self._last = now
        return True


class Bucket:
    """Lets `rate` things a second through in the long run, and `burst` at once."""

    def __init__(self, rate: float, burst: int, clock: Clock) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._level = float(burst)
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
