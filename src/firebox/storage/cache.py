"""Cache for values with a time to live: in this process, or in Redis for several servers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

ENTRIES = 10_000
CACHE_BYTES = 16 << 20


class Cache(Protocol):
    """Bytes by key, each with a time to live. An unavailable cache is an empty one: it never raises."""

    async def get(self, key: str) -> bytes | None: ...

    async def set(self, key: str, value: bytes, ttl_s: int) -> None: ...

    async def delete(self, key: str) -> None: ...


class MemoryCache(Cache):
    """LRU cache of at most `entries` values, and `size_bytes` of keys and values. clock: monotonic, in seconds."""

    def __init__(
        self, entries: int = ENTRIES, size_bytes: int = CACHE_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries = entries
        self._left_bytes = self._size_bytes = size_bytes
        self._clock = clock
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    async def get(self, key: str) -> bytes | None:
        value, ends_at_s = self._kept.get(key, (None, 0.0))
        if value is not None and ends_at_s <= self._clock():
            self._drop(key)
            return None
        if value is not None:
            self._kept.move_to_end(key)
        return value

    async def set(self, key: str, value: bytes, ttl_s: int) -> None:
        self._drop(key)
        cost = _cost(key, value)
        if ttl_s <= 0 or cost > self._size_bytes:
            return
        self._kept[key] = (value, self._clock() + ttl_s)
        self._left_bytes -= cost
        while self._left_bytes < 0 or len(self._kept) > self._entries:
            self._drop(next(iter(self._kept)))

    async def delete(self, key: str) -> None:
        self._drop(key)

    def _drop(self, key: str) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._left_bytes += _cost(key, found[0])


def _cost(key: str, value: bytes) -> int:
    return len(key) * 4 + len(value)
