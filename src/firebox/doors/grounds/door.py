"""The door as a whole: sessions come and go, their clients join and ask, each in a conversation of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast

import structlog

from firebox.domain.errors import FireboxError, NotFound
from firebox.doors.grounds.contained import Images, run_in_container
from firebox.doors.grounds.conversation import Conversation
from firebox.doors.grounds.rate_limit import CallerPaces, Clock, Pace
from firebox.doors.grounds.sandboxed import run_in_sandbox
from firebox.doors.grounds.sessions import Session, Sessions
from firebox.doors.grounds.socketio_server import WINDOW_BYTES, Library, Refused
from firebox.doors.grounds.transport import Transport
from firebox.doors.grounds.wire import Reply, Request, words_of
from firebox.doors.http.credentials import token_of
from firebox.doors.http.requests import AnyConnection, client_address, read_origins
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.settings.settings import Settings

JOIN_WITHIN_S = 45.0
"""How long a session may exist before its client joins. Source: Socket.IO, default of `connectTimeout`."""
IDENTIFY_WITHIN_S = 10.0
TOKEN_CHARACTERS = 4096

_log = structlog.get_logger("firebox.grounds")


class Door:
    """Serves grounds-exec. clock: seconds that never go backwards, for the rules about how often a client may ask."""

    def __init__(self, service: Service, settings: Settings, clock: Clock = time.monotonic) -> None:
        self._service = service
        self._settings = settings
        self._clock = clock
        self._callers = CallerPaces(clock)
        self._sessions = Sessions(clock)
        self._images = Images(settings, clock)
        self._library = Library(self._opened, self._closed, self._joined, self._left, self._asked)
        self.transport = Transport(self._library, self._sessions, service, read_origins(settings.cors_origins))

    def _opened(self, identifier: str, scope: Any) -> None:
        connection = AnyConnection(scope["firebox.client"])
        session = self._sessions.open(identifier, client_address(connection), token_of(connection.headers))
        if scope["firebox.socket"] is not None:
            scope["firebox.socket"].session = session
        session.join_timer = asyncio.get_running_loop().call_later(JOIN_WITHIN_S, self._expect_join, session)

    def _expect_join(self, session: Session) -> None:
        if session.conversation is None:
            session.closing = asyncio.ensure_future(self._library.close(session.id))

    def _closed(self, identifier: str) -> None:
        session = self._sessions.close(identifier)
        if session is not None and session.poll is not None:
            self._library.end_poll(identifier)

    async def _joined(self, identifier: str, auth: object) -> None:
        session = self._sessions.find(identifier)
        if session is None:
            raise Refused("gone")
        session.token = _token_in(auth) or session.token
        try:
            async with asyncio.timeout(IDENTIFY_WITHIN_S):
                caller = await self._identify(session)
        except FireboxError as error:
            _log.info("connection refused", code=error.code, client=session.address)
            raise Refused(words_of(error)) from None
        except TimeoutError:
            raise Refused("who you are could not be found out in time") from None
        session.end()
        outlet = SessionOutlet(self._library, identifier)
        pace = Pace(caller.key, self._callers, self._clock)
        session.conversation = Conversation(outlet, pace, lambda: self._identify(session), self._execute)

    def _left(self, identifier: str) -> None:
        session = self._sessions.find(identifier)
        if session is not None:
            session.end()

    def _asked(self, identifier: str, document: object) -> None:
        session = self._sessions.find(identifier)
        if session is not None and session.conversation is not None:
            session.conversation.request(document)

    async def _identify(self, session: Session) -> Caller:
        return await self._service.accounts.identify(session.token, address=session.address)

    async def _execute(self, request: Request, caller: Caller) -> AsyncGenerator[Reply]:
        """Run a program: in a container where the engine has an image of its language, else in our own sandbox."""
        image = self._images.name_of(request.language) if self._service.containers is not None else None
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


class SessionOutlet:
    """Sends replies to one session, and counts what waits there."""

    def __init__(self, library: Library, identifier: str) -> None:
        self._library = library
        self._identifier = identifier
        self._waiting_bytes = 0

    def say(self, reply: Reply) -> None:
        if not self._library.waiting_packets(self._identifier):
            self._waiting_bytes = 0
        self._waiting_bytes += self._library.say(self._identifier, reply)

    async def room(self) -> None:
        if self._waiting_bytes >= WINDOW_BYTES:
            await self._library.drained(self._identifier)
            self._waiting_bytes = 0


def _token_in(auth: object) -> str | None:
    """Read `auth: {token}`. Raises: Refused for a token that is none."""
    if auth is None:
        return None
    token = cast("Mapping[str, object]", auth).get("token") if isinstance(auth, dict) else None
    if token is None or token == "":  # pages send an empty one before anybody logs in
        return None
    if not isinstance(token, str) or len(token) > TOKEN_CHARACTERS:
        raise Refused("auth.token is not a token")
    return token
