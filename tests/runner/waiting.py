"""Waiting for what a server says about itself. The test's own timeout is the only one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from tests.support.server import RunningServer


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so."""
    while not await condition():
        await asyncio.sleep(0.02)


async def until_in_flight(server: RunningServer, wanted: int) -> None:
    """Wait until that many programs run."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:

        async def reached() -> bool:
            return bool((await client.get("/api/v1/health")).json()["in_flight"] == wanted)

        await until(reached)
