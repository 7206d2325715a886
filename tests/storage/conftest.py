"""Tests that use `stores` or `database_url` run on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from firebox.storage.stores import Stores
from tests.storage.places import stores_at


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database for this test."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'firebox.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest_asyncio.fixture
async def stores(database_url: str) -> AsyncGenerator[Stores]:
    async with stores_at(database_url) as opened:
        yield opened
