"""Runner's gRPC service, with reflection and health."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from firebox.config import Settings
from firebox.service.service import Service


@asynccontextmanager
async def serve_grpc(service: Service, settings: Settings) -> AsyncGenerator[str]:
    """Serve while the context is open; gives the address that is listened on, "" when `grpc_port` is -1."""
    del service, settings
    yield ""
