"""All stores, opened and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from firebox.settings.settings import Settings
from firebox.storage import sqlite_file
from firebox.storage.cache import Cache, MemoryCache
from firebox.storage.database import Database
from firebox.storage.database_address import read_address
from firebox.storage.schema import prepare_schema

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from firebox.storage.counters import Counters
    from firebox.storage.record_stores import LanguageTable, SnippetTable, Users


class Stores:
    """The stores of the service. All but `cache` raise PartUnavailable when they are unavailable.

    Each is created on first use: SQLAlchemy costs a start a tenth of a second, and a server 13 MB.
    database: open; redis: used for counters and the cache, if given.
    """

    def __init__(self, database: Database, redis: Redis | None = None) -> None:
        self.database = database
        self._redis = redis

    @cached_property
    def users(self) -> Users:
        from firebox.storage.record_stores import Users

        return Users(self.database)

    @cached_property
    def languages(self) -> LanguageTable:
        from firebox.storage.record_stores import LanguageTable

        return LanguageTable(self.database)

    @cached_property
    def snippets(self) -> SnippetTable:
        from firebox.storage.record_stores import SnippetTable

        return SnippetTable(self.database)

    @cached_property
    def counters(self) -> Counters:
        if self._redis is not None:
            from firebox.storage.redis_stores import RedisCounters

            return RedisCounters(self._redis)
        from firebox.storage.database_counters import DatabaseCounters

        return DatabaseCounters(self.database)

    @cached_property
    def cache(self) -> Cache:
        if self._redis is not None:
            from firebox.storage.redis_stores import RedisCache

            return RedisCache(self._redis)
        return MemoryCache()

    async def load(self) -> None:
        """Import what the stores need, without blocking the event loop, so that no request waits for it later."""
        await asyncio.to_thread(lambda: (self.users, self.snippets, self.counters))

    async def are_empty(self) -> bool:
        """Return whether no rows can expire, as far as that is known without importing SQLAlchemy."""
        path = self.database.address.path
        return path is not None and not await asyncio.to_thread(sqlite_file.has_rows, path)


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncGenerator[Stores]:
    """Open the database and the cache of the settings. Both are closed on exit.

    Raises, on entry: SettingsError for an unusable address or another schema version, PartUnavailable when the database is
    unavailable. An unavailable Redis does not keep the server from starting.
    """
    async with AsyncExitStack() as stack:
        address = read_address(settings)
        database = await stack.enter_async_context(Database(address))
        path, make = address.path, settings.database_upgrade
        if path is None or not await asyncio.to_thread(sqlite_file.has_newest_schema, path, make=make):
            await prepare_schema(database, settings)
        redis: Redis | None = None
        if settings.redis_url.strip():
            from firebox.storage.redis_stores import make_redis

            redis = make_redis(settings)
            stack.push_async_callback(redis.aclose)
        stores = Stores(database, redis)
        limits = (settings.anonymous_runs_per_minute, settings.anonymous_concurrent_runs, settings.anonymous_cpu_seconds_per_day)
        if settings.require_login or any(limits):  # every client is looked up, or runs are counted
            await stores.load()
        yield stores
