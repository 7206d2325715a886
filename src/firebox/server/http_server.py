"""uvicorn with bounded connections and fair scheduling of clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from firebox.doors.http.acceptor import Acceptor, Admitted
from firebox.doors.http.client_limits import ClientLimits
from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.server.connection import BoundedConnection, refusal

_NO_ROOM = refusal(HTTPStatus.SERVICE_UNAVAILABLE, "http.too_many_connections", "there are too many connections")


class HttpServer(uvicorn.Server):
    """Serves an application on bound sockets. on_start: called when it listens; options: passed to `uvicorn.Config`."""

    def __init__(
        self,
        application: Any,
        limits: ClientLimits,
        turns: FairScheduler,
        on_start: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> None:
        defaults: dict[str, Any] = {
            "ws": cast("Any", self._make_websocket),
            "ws_max_size": limits.max_body_bytes,
            "ws_per_message_deflate": False,
            "log_config": None,
            "access_log": False,
            # The peer is the client; `doors.http.hosts_and_proxies` applies X-Forwarded-For of trusted proxies.
            "proxy_headers": False,
            "server_header": False,
        }
        self._limits = limits
        self._turns = turns
        self._on_start = on_start
        super().__init__(uvicorn.Config(application, **(defaults | options)))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(STARTUP_FAILURE)
        acceptors = [
            Acceptor(listener, self._turns, self._limits.connections, self._make_connection, _NO_ROOM)
            for listener in sockets or ()
        ]
        self.servers = cast("list[asyncio.base_events.Server]", acceptors)
        self.started = True
        self._on_start()

    def _make_websocket(self, **arguments: Any) -> asyncio.Protocol:
        # Imported late: most clients never open a WebSocket.
        from firebox.server.websocket_connection import BoundedWebSocket

        return BoundedWebSocket(self._limits, self._turns, **arguments)

    def _make_connection(self, admitted: Admitted) -> asyncio.Protocol:
        config, state = self.config, self.server_state
        return BoundedConnection(self._turns, admitted, config=config, server_state=state, app_state=self.lifespan.state)
