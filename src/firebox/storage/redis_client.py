"""The connection to Redis or Valkey that the cache and the counters share: short waits, few tries."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from firebox.domain.errors import SettingsError
from firebox.settings.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

WAIT_S = 1.0
"""How long Redis may take to accept, to answer, or to have a connection free."""
CONNECTIONS = 32
PREFIX = "firebox:"
ALLOWED = "redis://HOST:PORT/NUMBER, rediss://..., unix://PATH, or empty"


def make_redis(settings: Settings) -> Redis:
    """Make a client of `redis_url`; it connects when it is used. Close it with `aclose`.

    Raises: SettingsError for another kind of address, or when the client is not installed. The address is not in it.
    """
    source = settings.source("redis_url")
    if find_spec("redis") is None:
        raise SettingsError("redis_url", "set", "empty", source=source, hint="pip install firebox[redis]")
    # The library costs several megabytes: only who wants it pays.
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
            # A connection that the server closed meanwhile; what took too long is not asked twice.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
    except ValueError:
        raise SettingsError("redis_url", "(hidden)", ALLOWED, source=source) from None
    return Redis.from_pool(pool)
