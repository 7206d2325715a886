"""Waiting for a state reported by the server."""

from __future__ import annotations

import httpx

from tests.support.server import RunningServer
from tests.support.waiting import until


async def until_in_flight(server: RunningServer, wanted: int) -> None:
    """Wait until that many programs run."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:

        async def reached() -> bool:
            return bool((await client.get("/api/v1/health")).json()["in_flight"] == wanted)

        await until(reached)
