"""The connection to Redis or Valkey shared by cache and counters: short timeouts, few retries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, cast

import structlog

from firebox.domain.errors import PartUnavailable, SettingsError
from firebox.settings.settings import Settings
from firebox.storage.log_throttle import LogThrottle

if TYPE_CHECKING:
    from redis.asyncio import Redis

WAIT_S = 1.0
"""Timeout for connecting, for a response, and for a free connection."""
CONNECTIONS = 32
PREFIX = "firebox:"
ALLOWED = "redis://HOST:PORT/NUMBER, rediss://..., unix://PATH, or empty"

T = TypeVar("T")

_log = structlog.get_logger("firebox.storage")


def make_redis(settings: Settings) -> Redis:
    """Create a client of `redis_url`. It connects when first used; close it with `aclose`.

    Raises: SettingsError for an unsupported address, or when the client is not installed. It does not contain the address.
    """
    source = settings.source("redis_url")
    if find_spec("redis") is None:
        raise SettingsError("redis_url", "set", "empty", source=source, hint="pip install firebox[redis]")
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
        raise SettingsError("redis_url", "(hidden)", ALLOWED, source=source) from None
    return Redis.from_pool(pool)


async def ask(answer: Awaitable[T], part: str, throttle: LogThrottle, **details: str) -> T:
    """Wait for an answer of Redis. Log a failure of `part`, with details, as often as allowed. Raises: PartUnavailable."""
    from redis.exceptions import RedisError

    try:
        return await answer
    except (RedisError, OSError, asyncio.IncompleteReadError) as error:
        if throttle.due():
            _log.warning(f"{part} unavailable", part="Redis", error=type(error).__name__, **details)
        raise PartUnavailable(part, detail="cannot connect to Redis") from None
