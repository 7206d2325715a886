"""grounds-exec's Socket.IO: live runs with streamed output. What goes over the wire: `wire`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import cast

import structlog
from litestar import asgi
from litestar.types import ControllerRouterHandler, Receive, Scope, Send

from firebox.domain.errors import FireboxError, NotFound
from firebox.doors.grounds.contained import Images, run_in_container
from firebox.doors.grounds.conversation import Conversation
from firebox.doors.grounds.rate_limit import CallerLimits, Clock, ConnectionLimit
from firebox.doors.grounds.sandboxed import run_in_sandbox
from firebox.doors.grounds.socketio_server import SocketIoServer
from firebox.doors.grounds.socketio_session import JoinRefused, Session
from firebox.doors.grounds.wire import Reply, Request, words_of
from firebox.doors.http.requests import read_origins
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.settings.settings import Settings

PATH = "/socket.io"
"""Source: Socket.IO, default of `path`."""
IDENTIFY_WITHIN_S = 10.0
TOKEN_CHARACTERS = 4096

_log = structlog.get_logger("firebox.grounds")


def mounts(service: Service, settings: Settings, clock: Clock = time.monotonic) -> list[ControllerRouterHandler]:
    """Create the handlers of this door. clock: for the rate limits."""
    server = SocketIoServer(Door(service, settings, clock), read_origins(settings.cors_origins), clock)

    @asgi(PATH, copy_scope=True)
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await server(scope, receive, send)

    return [serve]


class Door:
    """Lets clients join, and runs their programs."""

    def __init__(self, service: Service, settings: Settings, clock: Clock) -> None:
        self._service = service
        self._settings = settings
        self._clock = clock
        self._callers = CallerLimits(clock)
        self._images = Images(settings, clock)

    async def join(self, session: Session, credentials: object) -> Conversation:
        """Begin the conversation with a client that may connect. credentials: any JSON value. Raises: JoinRefused."""
        token = _token_in(credentials) or session.client.token

        async def identify() -> Caller:
            return await self._service.accounts.identify(token, address=session.client.address)

        try:
            async with asyncio.timeout(IDENTIFY_WITHIN_S):
                caller = await identify()
        except FireboxError as error:
            _log.info("connection refused", code=error.code, client=session.client.address)
            raise JoinRefused(words_of(error)) from None
        except TimeoutError:
            raise JoinRefused("who you are could not be found out in time") from None
        return Conversation(session, ConnectionLimit(caller.key, self._callers, self._clock), identify, self._execute)

    async def until_stopped(self, session: Session) -> None:
        """Wait until the server is about to stop and nothing of the client's is left."""
        await self._service.leaving.wait()
        await session.until_idle()

    async def _execute(self, request: Request, caller: Caller) -> AsyncGenerator[Reply]:
        """Run a program: in a container where the engine has an image of its language, else in our own sandbox."""
        image = self._images.name_of(request.language) if self._service.has_containers else None
        if image is not None:
            try:
                async with aclosing(run_in_container(request, image, caller, self._service, self._settings)) as replies:
                    async for reply in replies:
                        yield reply
                return
            except NotFound:
                self._images.miss(image)
        async with aclosing(run_in_sandbox(request, caller, self._service, self._settings)) as replies:
            async for reply in replies:
                yield reply


def _token_in(credentials: object) -> str | None:
    """Read `auth: {token}`. Raises: JoinRefused for a token that is none."""
    if not isinstance(credentials, dict):
        return None
    token = cast("Mapping[str, object]", credentials).get("token")
    if token is None or token == "":  # pages send an empty one before anybody logs in
        return None
    if not isinstance(token, str) or len(token) > TOKEN_CHARACTERS:
        raise JoinRefused("auth.token is not a token")
    return token
