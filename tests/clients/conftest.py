"""Libraries that other people wrote for Piston, against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.front import Front
from tests.support.server import RunningServer, server

__all__ = ["server"]


@pytest.fixture
def front(server: RunningServer) -> Iterator[Front]:
    """A reverse proxy before the server that names every body JSON."""
    with Front(server.address) as running:
        yield running
