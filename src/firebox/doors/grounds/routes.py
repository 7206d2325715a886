"""grounds-exec's Socket.IO: live runs with streamed output. Its messages: `wire`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import cast

import structlog
from litestar import asgi
from litestar.types import ControllerRouterHandler

from firebox.domain.errors import FireboxError
from firebox.doors.grounds.conversation import Conversation
from firebox.doors.grounds.rate_limit import CallerLimits, Clock, ConnectionLimit
from firebox.doors.grounds.run_replies import Programs
from firebox.doors.grounds.socketio_server import SocketIoServer
from firebox.doors.grounds.socketio_session import JoinRefused, Session
from firebox.doors.grounds.wire import message_of
from firebox.doors.http.requests import read_origins
from firebox.service.service import Service
from firebox.settings.settings import Settings

PATH = "/socket.io"
"""Source: Socket.IO, default of `path`."""
IDENTIFY_WITHIN_S = 10.0
TOKEN_CHARACTERS = 4096

_log = structlog.get_logger("firebox.grounds")


def mounts(service: Service, settings: Settings, clock: Clock = time.monotonic) -> list[ControllerRouterHandler]:
    """Create the handlers of this door. clock: for the rate limits."""
    callers = CallerLimits(clock)
    programs = Programs(service, settings, clock)

    async def join(session: Session, credentials: object) -> Conversation:
        """Begin the conversation with a client that may connect. credentials: any JSON value. Raises: JoinRefused."""
        address = session.client.address
        identify = partial(service.accounts.identify, _token_in(credentials) or session.client.token, address=address)
        try:
            async with asyncio.timeout(IDENTIFY_WITHIN_S):
                caller = await identify()
        except FireboxError as error:
            _log.info("connection refused", code=error.code, client=address)
            raise JoinRefused(message_of(error)) from None
        except TimeoutError:
            raise JoinRefused("who you are could not be found out in time") from None
        limit = ConnectionLimit(caller.key, callers, clock)
        return Conversation(session.send, session.until_taken, limit, identify, programs.execute)

    server = SocketIoServer(join, read_origins(settings.cors_origins), service.leaving, clock)
    return [asgi(PATH, copy_scope=True)(server.serve)]


def _token_in(credentials: object) -> str | None:
    """Read `auth: {token}`. Raises: JoinRefused for an invalid token."""
    if not isinstance(credentials, dict):
        return None
    token = cast("Mapping[str, object]", credentials).get("token")
    if token is None or token == "":  # pages send an empty one before anybody logs in
        return None
    if not isinstance(token, str) or len(token) > TOKEN_CHARACTERS:
        raise JoinRefused("auth.token is not a token")
    return token
