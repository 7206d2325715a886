"""Everything that is kept, opened together and closed together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from firebox.config import Settings
from firebox.storage.address import read_address
from firebox.storage.cache import Cache
from firebox.storage.counters import Counters
from firebox.storage.database import Database
from firebox.storage.database_counters import DatabaseCounters
from firebox.storage.languages import LanguageTable
from firebox.storage.memory_cache import MemoryCache
from firebox.storage.redis_cache import RedisCache
from firebox.storage.redis_client import make_redis
from firebox.storage.redis_counters import RedisCounters
from firebox.storage.schema import prepare_schema
from firebox.storage.snippets import SnippetTable
from firebox.storage.users import Users


@dataclass(frozen=True, slots=True)
class Stores:
    """What the service keeps things in. Everything but `cache` raises PartUnavailable when it does not answer."""

    users: Users
    languages: LanguageTable
    snippets: SnippetTable
    counters: Counters
    cache: Cache
    database: Database = field(repr=False)

    async def ping(self) -> None:
        """Ask the database for nothing. Raises: PartUnavailable."""
        await self.database.ping()


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncGenerator[Stores]:
    """Open the database and the cache that the settings name; both are closed on leaving.

    Raises, on entry: SettingsError for an address of no use or a schema of another version, PartUnavailable when the database
    does not answer. A Redis that does not answer is no reason not to start.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(read_address(settings)))
        await prepare_schema(database, settings)
        counters: Counters = DatabaseCounters(database)
        cache: Cache = MemoryCache()
        if settings.redis_url.strip():
            redis = make_redis(settings)
            stack.push_async_callback(redis.aclose)
            counters, cache = RedisCounters(redis), RedisCache(redis)
        yield Stores(Users(database), LanguageTable(database), SnippetTable(database), counters, cache, database)
