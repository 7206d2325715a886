"""A Socket.IO server: sessions by id, limits per client, and checks of each request before its session gets it.

Serves clients of version 1 to 4 (Engine.IO 3 and 4), the namespace `/`, polling and WebSockets. JSONP is rejected: browsers
request scripts without an Origin.

Source: Engine.IO protocol, revisions 3 and 4, and the reference server for statuses and codes of errors.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs

from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send
from msgspec import Struct, json

from firebox.domain.errors import FireboxError
from firebox.doors.grounds.engineio_packets import PACKET_CHARACTERS, Revision
from firebox.doors.grounds.rate_limit import Clock
from firebox.doors.grounds.socketio_session import Client, Join, Session, Upgrade
from firebox.doors.grounds.socketio_transports import poll, post, serve_websocket
from firebox.doors.http.credentials import QUERY_PARAMETER, token_of
from firebox.doors.http.refusals import ClientGone, ForeignOrigin
from firebox.doors.http.requests import AnyConnection, check_origin, client_address, read_body
from firebox.doors.http.status import status_of
from firebox.service.callers import rate_limit_key

SESSIONS = 4096
SESSIONS_PER_ADDRESS = 256
"""Room for a class behind one address, and for several pages of each pupil."""
QUERY_FIELDS = 32
TEXT = b"text/plain; charset=UTF-8"
BINARY_TYPE = "application/octet-stream"
REVISIONS: dict[tuple[str, ...], Revision] = {("3",): 3, ("4",): 4}
"""Values of the query's `EIO`."""

Headers = list[tuple[bytes, bytes]]


class Target(Struct, frozen=True):
    """The query of a request; None for what it does not contain. token: for clients that cannot send headers."""

    transport: str
    sid: str | None
    revision: Revision | None
    token: str | None


@dataclass(eq=False)
class Refusal(Exception):
    """A request was rejected. code: of Engine.IO."""

    message: str
    status: int = 400
    code: int = 3


class SocketIoServer:
    """The ASGI application below /socket.io.

    join: begins the conversation with a client that may connect. origins: sites whose pages may connect. leaving: set when the
    server begins to stop. clock: for the rate limits.
    """

    def __init__(self, join: Join, origins: frozenset[str], leaving: asyncio.Event, clock: Clock) -> None:
        self._join = join
        self._origins = origins
        self._leaving = leaving
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._per_address: Counter[str] = Counter()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a WebSocket."""
        connection = AnyConnection(scope, receive, send)
        headers: Headers = []
        try:
            check_origin(connection, self._origins)
            target = _read_target(scope)
            headers = _cors_headers(target, connection)
            if target.transport != ("websocket" if scope["type"] == ScopeType.WEBSOCKET else "polling"):
                raise Refusal("Transport unknown", code=0)
            if scope["type"] == ScopeType.WEBSOCKET:
                await self._serve_websocket(target, connection)
            else:
                await self._serve_request(target, connection, headers)
        except Refusal as refusal:
            await _refuse(refusal, scope, send, headers)
        except ClientGone:
            pass
        except FireboxError as error:
            code = 4 if isinstance(error, ForeignOrigin) else 3
            await _refuse(Refusal(error.message, status=status_of(error), code=code), scope, send, headers)

    async def _serve_websocket(self, target: Target, connection: AnyConnection) -> None:
        if target.sid is None:
            session = self._open(target, connection)
            session.upgrade = Upgrade.DONE
        else:
            session = self._find(target.sid)
            if session.upgrade is not Upgrade.NONE:
                raise Refusal("Bad request")
            session.upgrade = Upgrade.OPENED
        await serve_websocket(session, connection.receive, connection.send)

    async def _serve_request(self, target: Target, connection: AnyConnection, headers: Headers) -> None:
        session = self._find(target.sid) if target.sid is not None else None
        if session is not None and session.upgrade is Upgrade.DONE:
            raise Refusal("Bad request")
        method = cast("dict[str, Any]", connection.scope)["method"]
        if method == "GET":
            await read_body(connection.receive, connection.headers, PACKET_CHARACTERS)
            if session is None:
                session = self._open(target, connection)
                await session.open(may_upgrade=True)
            with _alone(session, "polls"):
                payload = await poll(session, connection.receive, self._leaving)
                await _answer(connection.send, 200, payload, TEXT, headers)
        elif method == "POST" and session is not None:
            await self._post(session, connection, headers)
        else:
            raise Refusal("Bad handshake method", status=400 if method == "POST" else 405, code=2)

    async def _post(self, session: Session, connection: AnyConnection, headers: Headers) -> None:
        """Receive packets from the client."""
        with _alone(session, "posts"):
            try:
                body = await read_body(connection.receive, connection.headers, PACKET_CHARACTERS)
                content_type = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
                await post(session, body, is_binary=content_type == BINARY_TYPE)
            except FireboxError:
                session.close()
                raise
            await _answer(connection.send, 200, b"ok", TEXT, headers)

    def _open(self, target: Target, connection: AnyConnection) -> Session:
        if target.revision is None:
            raise Refusal("Unsupported protocol version", code=5)
        address = client_address(connection)
        if len(self._sessions) >= SESSIONS or self._per_address[rate_limit_key(address)] >= SESSIONS_PER_ADDRESS:
            raise Refusal("too many connections", status=429, code=4)
        token = token_of(connection.headers)
        client = Client(address=address, token=target.token if token is None else token, revision=target.revision)
        session = Session(secrets.token_urlsafe(15), client, self._join, self._forget, self._clock)
        self._sessions[session.id] = session
        self._per_address[rate_limit_key(address)] += 1
        return session

    def _find(self, identifier: str) -> Session:
        try:
            return self._sessions[identifier]
        except KeyError:
            raise Refusal("Session ID unknown", code=1) from None

    def _forget(self, session: Session) -> None:
        del self._sessions[session.id]
        address = rate_limit_key(session.client.address)
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]


def _read_target(scope: Scope) -> Target:
    try:
        fields = parse_qs(scope["query_string"].decode(), max_num_fields=QUERY_FIELDS)
    except ValueError:
        raise Refusal("Bad request") from None
    if "j" in fields:
        raise Refusal("JSONP is not supported")
    transport = _only(fields, "transport") or "polling"
    if transport not in {"polling", "websocket"}:
        raise Refusal("Transport unknown", code=0)
    revision = REVISIONS.get(tuple(fields.get("EIO", ())))
    return Target(transport, _only(fields, "sid"), revision, _only(fields, QUERY_PARAMETER) if revision == 3 else None)


def _only(fields: dict[str, list[str]], name: str) -> str | None:
    values = fields.get(name, [])
    if len(values) > 1:
        raise Refusal("Bad request")
    return values[0] if values else None


def _cors_headers(target: Target, connection: AnyConnection) -> Headers:
    """Allow pages to read a response to clients of versions 1 and 2, which always send requests with credentials. Only for sites
    that `check_origin` has accepted. Source: Fetch standard, "CORS protocol and credentials".
    """
    if target.revision == 3 and "origin" in connection.headers:
        return [(b"access-control-allow-credentials", b"true")]
    return []


@contextmanager
def _alone(session: Session, requests: str) -> Generator[None]:
    """Allow one request of a session at a time; a second one ends the session. requests: "polls" or "posts". Raises: Refusal."""
    if requests in session.serving:
        session.close()
        raise Refusal(f"overlapping {requests}")
    session.serving.add(requests)
    try:
        yield
    finally:
        session.serving.remove(requests)


async def _refuse(refusal: Refusal, scope: Scope, send: Send, headers: Headers) -> None:
    if scope["type"] == ScopeType.WEBSOCKET:
        # Before it is accepted this becomes status 403.
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.message})
        return
    body = json.encode({"code": refusal.code, "message": refusal.message})
    await _answer(send, refusal.status, body, b"application/json", headers)


async def _answer(send: Send, status: int, body: bytes, content_type: bytes, headers: Headers) -> None:
    own = [(b"content-length", str(len(body)).encode()), (b"content-type", content_type), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": own + headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
