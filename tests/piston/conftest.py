"""Piston's tests talk to a real server over real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from firebox.doors.piston.routes import PREFIXES
from tests.support.server import RunningServer, client, server, start_server

__all__ = ["client", "server", "start_server"]


@pytest.fixture
def piston(server: RunningServer) -> Iterator[httpx.Client]:
    """A client of the shared server's Piston API."""
    with httpx.Client(base_url=f"{server.url}/api/v2", timeout=60, trust_env=False) as opened:
        yield opened


@pytest.fixture(params=PREFIXES)
def each_prefix(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[httpx.Client]:
    """A client of the shared server's Piston API, below each of its prefixes."""
    with httpx.Client(base_url=f"{server.url}{request.param}", timeout=60, trust_env=False) as opened:
        yield opened
