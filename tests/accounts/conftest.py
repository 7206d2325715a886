"""Fixtures for accounts: real servers with real tokens, each with a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from firebox.settings.settings import Settings, load_settings
from firebox.storage.stores import Stores, open_stores
from tests.accounts.people import People
from tests.support.server import RunningServer, running_server, start_server

__all__ = ["start_server"]

StartServer = Callable[..., RunningServer]


@pytest.fixture
def people(tmp_path: Path) -> People:
    """The users of a new database."""
    return People(f"sqlite:///{tmp_path / 'accounts.db'}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a database of this test."""
    return load_settings({"data_dir": str(tmp_path)}, environ={})


@pytest_asyncio.fixture
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    """A new database."""
    async with open_stores(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> People:
    """Two users and an admin."""
    made = People(f"sqlite:///{tmp_path_factory.mktemp('members') / 'accounts.db'}")
    made.add("ann")
    made.add("bob")
    made.add("eve", "--role", "admin")
    return made


@pytest.fixture(scope="module")
def closed(members: People) -> Iterator[RunningServer]:
    """A server that requires login. Its log must never contain a token."""
    with running_server("--require-login", "--slots", "4", "--log-level", "debug", env=members.environment()) as server:
        yield server
        log = server.log.read_text()
        assert log
        assert not [name for name, token in members.tokens.items() if token in log]
