"""A second listener for /metrics alone, for a Prometheus that must reach nothing else.

Not prometheus_client's own server: it starts a thread for every connection, without limits or timeouts, so a client that sends
nothing holds a thread; its threads would read counters while the event loop changes them; and it answers every path. `HttpServer`
bounds connections, heads and time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from litestar import Litestar, Request, Response, get

from firebox.doors.http.client_limits import ClientLimits
from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.doors.http.listening_socket import bind, url_of
from firebox.server.http_server import HttpServer
from firebox.service.run_metrics import MEDIA_TYPE
from firebox.service.service import Service
from firebox.settings.settings import Settings


@asynccontextmanager
async def serve_metrics(service: Service, settings: Settings, turns: FairScheduler) -> AsyncGenerator[str]:
    """Serve while the context is open. Yield the URL, or "" if `metrics_port` is -1. Raises: SettingsError when the address
    cannot be used.
    """
    if settings.metrics_port < 0:
        yield ""
        return

    @get("/metrics")
    async def read_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        del request
        return Response(service.metrics.text(), media_type=MEDIA_TYPE)

    application = Litestar([read_metrics], openapi_config=None, logging_config=None)
    with bind(settings, "metrics_port") as listener:
        limits, listening = ClientLimits(settings, lambda _address: False), asyncio.Event()
        options: dict[str, Any] = {"ws": "none", "lifespan": "off", "timeout_graceful_shutdown": 1}
        server = MetricsServer(application, limits, turns, listening.set, **options)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await listening.wait()
        try:
            yield f"{url_of(listener)}/metrics"
        finally:
            server.should_exit = True
            await serving


class MetricsServer(HttpServer):
    """uvicorn without signal handlers: the main server has them."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
