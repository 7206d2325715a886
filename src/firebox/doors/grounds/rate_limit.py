"""Rate limits: a connection may send two requests a second, and all connections of one address or user share a second limit.

The first rule is that of grounds-exec. The second one stops clients that open many connections, and leaves room for a class of
pupils behind one address.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable

SPAM_S = 0.5
REQUESTS_PER_CALLER = 20
"""Requests of one caller in each `SPAM_S`, over all of its connections."""

Clock = Callable[[], float]
"""Monotonic time in seconds."""


class CallerLimits:
    """Counts the requests of every caller in the last `SPAM_S` seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts = Counter[str]()
        self._recent: deque[tuple[float, str]] = deque()

    def take(self, key: str) -> bool:
        """Count a request; return False, and do not count it, when there have been too many. key: `Caller.key`."""
        now = self._clock()
        while self._recent and self._recent[0][0] <= now - SPAM_S:
            _, left = self._recent.popleft()
            self._counts[left] -= 1
            if not self._counts[left]:
                del self._counts[left]
        if self._counts[key] >= REQUESTS_PER_CALLER:
            return False
        self._counts[key] += 1
        self._recent.append((now, key))
        return True


class ConnectionLimit:
    """Limits the requests of one connection. key: `Caller.key`."""

    def __init__(self, key: str, callers: CallerLimits, clock: Clock) -> None:
        self._key = key
        self._callers = callers
        self._clock = clock
        self._last = -math.inf

    def take(self) -> bool:
        """Count a request; return False, and do not count it, when it comes too early."""
        now = self._clock()
        if now - self._last < SPAM_S or not self._callers.take(self._key):
            return False
        self._last = now
        return True


class TokenBucket:
    """Allows `rate` events a second in the long run, and `burst` at once."""

    def __init__(self, rate: float, burst: int, clock: Clock) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._level = float(burst)
        self._at = clock()

    def take(self) -> bool:
        """Count an event; return False when there have been too many."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
