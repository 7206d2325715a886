"""Runs in containers of a real container engine: attach, feed, read, cap, time out, remove, whatever happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from firebox.config import Settings
from firebox.engine.admission import Admission


class Containers:
    """A container engine, reached over its API (Docker or Podman)."""

    def __init__(self, settings: Settings, admission: Admission) -> None:
        self._settings = settings
        self._admission = admission


@asynccontextmanager
async def open_containers(settings: Settings, admission: Admission) -> AsyncGenerator[Containers | None]:
    """Connect to the engine that the settings name; None when they name none.

    admission: the slots that these runs share with those in sandboxes.
    """
    yield Containers(settings, admission) if settings.docker_url else None
