"""The connection to Redis or Valkey shared by cache and counters: short timeouts, few retries."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from firebox.settings.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

WAIT_S = 1.0
"""Timeout for connecting, for a response, and for a free connection."""
CONNECTIONS = 32
PREFIX = "firebox:"
ALLOWED = "redis://HOST:PORT/NUMBER, rediss://..., unix://PATH, or empty"


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
