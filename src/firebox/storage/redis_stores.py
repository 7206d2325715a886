"""Redis or Valkey, shared by several servers: one connection for cache and counters, with short timeouts and few retries."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, cast

import structlog

from firebox.domain.errors import PartUnavailable
from firebox.settings.settings import Settings
from firebox.storage.cache import Cache
from firebox.storage.counters import Clock, Counters, key_text, window_end
from firebox.storage.log_throttle import LogThrottle

if TYPE_CHECKING:
    from redis.asyncio import Redis

WAIT_S = 1.0
"""Timeout for connecting, for a response, and for a free connection."""
CONNECTIONS = 32
PREFIX = "firebox:"
ALLOWED = "redis://HOST:PORT/NUMBER, rediss://..., unix://PATH, or empty"
CACHE_WARNING_EVERY_S = 60.0
COUNTERS_WARNING_EVERY_S = 10.0
DELETIONS_KEPT = 10_000
VALUE_BYTES = 8 << 20
"""Larger values are not cached: they would delay other requests to Redis."""
SLACK_S = 60
"""How much longer than its window a count is kept, to allow for clock skew."""

# Expiry is always relative: an absolute time would differ on a Redis host whose clock is off.

_ADD = """
local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return sum
"""

# A sorted set per subject: members are leases, scores their expiry in milliseconds since 1970.
_LEASE = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then
    return 0
end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', tonumber(last[2]) - tonumber(ARGV[2]) + tonumber(ARGV[5])))
return 1
"""

T = TypeVar("T")

_log = structlog.get_logger("firebox.storage")


def make_redis(settings: Settings) -> Redis:
    """Create a client of `redis_url`. It connects when first used; close it with `aclose`.

    Raises: SettingsError for an unsupported address, or when the client is not installed. It does not contain the address.
    """
    if find_spec("redis") is None:
        raise settings.refused("redis_url", value="set", allowed="empty", hint="pip install firebox[redis]")
    # Imported late: the library takes several megabytes.
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError

    try:
        pool = cast("Any", BlockingConnectionPool).from_url(
            settings.redis_url.strip(),
            max_connections=CONNECTIONS,
            timeout=WAIT_S,
            socket_connect_timeout=WAIT_S,
            socket_timeout=WAIT_S,
            # Retry a connection that the server closed meanwhile, but no timeouts.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
    except ValueError:
        raise settings.refused("redis_url", value="(hidden)", allowed=ALLOWED) from None
    return Redis.from_pool(pool)


class RedisCache(Cache):
    """Values in Redis. Without Redis it is empty: slower responses, no errors. clock: monotonic, in seconds.

    Keys that could not be deleted there are remembered, and never returned by this server again.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._throttle = LogThrottle(CACHE_WARNING_EVERY_S, clock)
        self._undeleted: dict[str, None] = {}

    async def get(self, key: str) -> bytes | None:
        if self._undeleted and not await self._delete_the_rest():
            return None
        found: bytes | None = await self._ask(self._redis.get(_name(key)))
        return found

    async def set(self, key: str, value: bytes, ttl_s: int) -> None:
        if ttl_s <= 0 or len(value) > VALUE_BYTES or (self._undeleted and not await self._delete_the_rest()):
            return
        await self._ask(self._redis.set(_name(key), value, ex=ttl_s))

    async def delete(self, key: str) -> None:
        """Delete a key: now, or once Redis is available again."""
        if len(self._undeleted) < DELETIONS_KEPT:
            self._undeleted[key] = None
        await self._delete_the_rest()

    async def _delete_the_rest(self) -> bool:
        keys = list(self._undeleted)
        if await self._ask(self._redis.delete(*map(_name, keys))) is None:
            return False
        for key in keys:
            self._undeleted.pop(key, None)
        return True

    async def _ask(self, answer: Any) -> Any:
        """Return the answer of Redis, or None if it is unavailable."""
        try:
            return await _ask(answer, "cache", self._throttle, effect="slower responses")
        except PartUnavailable:
            return None


class RedisCounters(Counters):
    """Counters in Redis. Each call is one atomic script; keys expire. clock: seconds since 1970."""

    def __init__(self, redis: Redis, clock: Clock = time.time) -> None:
        self._redis = redis
        self._clock = clock
        self._throttle = LogThrottle(COUNTERS_WARNING_EVERY_S)
        self._add: Any = redis.register_script(_ADD)
        self._lease: Any = redis.register_script(_LEASE)

    async def add(self, subject: str, name: str, *, amount: int, window_s: int) -> int:
        now_s = self._clock()
        end_s = window_end(now_s, window_s)
        key = _usage_key(subject, name, window_s, end_s)
        return int(await self._ask(self._add(keys=[key], args=[amount, math.ceil(end_s - now_s) + SLACK_S])))

    async def total(self, subject: str, name: str, *, window_s: int) -> int:
        key = _usage_key(subject, name, window_s, window_end(self._clock(), window_s))
        return int(await self._ask(self._redis.get(key)) or 0)

    async def lease(self, subject: str, lease_id: str, *, allowed: int, ttl_s: int) -> bool:
        now_ms = int(self._clock() * 1000)
        arguments = [key_text(lease_id), now_ms, now_ms + ttl_s * 1000, allowed, SLACK_S * 1000]
        return bool(await self._ask(self._lease(keys=[_lease_key(subject)], args=arguments)))

    async def release(self, subject: str, lease_id: str) -> None:
        await self._ask(self._redis.zrem(_lease_key(subject), key_text(lease_id)))

    async def forget(self, *, before_s: float, at_most: int) -> int:
        """Do nothing: keys expire soon after their windows."""
        del before_s, at_most
        return 0

    async def _ask(self, answer: Any) -> Any:
        return await _ask(answer, "counters", self._throttle)


def _usage_key(subject: str, name: str, window_s: int, end_s: int) -> str:
    return f"{PREFIX}usage:{name}:{window_s}:{end_s}:{key_text(subject)}"


def _lease_key(subject: str) -> str:
    return f"{PREFIX}leases:{key_text(subject)}"


async def _ask(answer: Awaitable[T], part: str, throttle: LogThrottle, **details: str) -> T:
    """Wait for an answer of Redis. Log a failure of `part`, with details, as often as allowed. Raises: PartUnavailable."""
    from redis.exceptions import RedisError

    try:
        return await answer
    except (RedisError, OSError, asyncio.IncompleteReadError) as error:
        if throttle.due():
            _log.warning(f"{part} unavailable", part="Redis", error=type(error).__name__, **details)
        raise PartUnavailable(part, detail="cannot connect to Redis") from None


def _name(key: str) -> bytes:
    return f"{PREFIX}cache:{key}".encode("utf-8", "surrogatepass")
