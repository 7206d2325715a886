"""Connecting to a container engine, where the settings name one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # aiohttp and aiodocker are slow to import: only a server with a container engine pays for them
    from firebox.engine.backends.docker_backend import DockerBackend


@asynccontextmanager
async def open_docker(url: str) -> AsyncGenerator[DockerBackend | None]:
    """Connect to a container engine, and remove what earlier servers left there. Yields None for an empty `url`.

    An engine that does not answer does not keep a server from starting: its runs fail until it does.
    """
    if not url:
        yield None
        return
    from firebox.engine.backends.docker_backend import DockerBackend
    from firebox.engine.backends.docker_engine import ContainerEngine
    from firebox.engine.backends.docker_sweeper import Sweeper

    engine = ContainerEngine(url)
    sweeper = Sweeper(engine)
    try:
        await sweeper.start()
        try:
            yield DockerBackend(engine, sweeper)
        finally:
            await sweeper.close()
    finally:
        await engine.close()
