"""Engine.IO's requests, checked and bounded before the library serves them.

| request                        | is                                                             |
| ------------------------------ | -------------------------------------------------------------- |
| GET, no sid                    | the begin of a session that polls                              |
| GET, sid                       | a poll: answered as soon as there are packets for the client   |
| POST, sid                      | packets from the client                                        |
| WebSocket, no sid              | the begin of a session, and all of it                          |
| WebSocket, sid                 | a session that polled takes this from now on                   |

What the library sees of a request is made here from what was read of it, never what the client sent.

Source: Engine.IO protocol revision 4, "Transports", and the reference server for statuses and codes of errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast
from urllib.parse import parse_qs, urlencode

from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send
from msgspec import Struct, json

from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.doors.grounds.packets import PACKET_CHARACTERS
from firebox.doors.grounds.sessions import Session, Sessions
from firebox.doors.grounds.socket import GuardedSocket
from firebox.doors.grounds.socketio_server import PACKETS_OF_A_POST, WAITING_PACKETS, Library
from firebox.doors.http.refusals import ClientGone
from firebox.doors.http.requests import AnyConnection, check_origin, client_address, read_body
from firebox.doors.http.status import status_of
from firebox.service.service import Service

SEPARATOR = "\x1e"
QUERY_FIELDS = 32


class Target(Struct, frozen=True):
    """What a request is about. sid: None for the begin of a session."""

    transport: str
    sid: str | None

    @property
    def query(self) -> bytes:
        return urlencode({"EIO": "4", "transport": self.transport, **({"sid": self.sid} if self.sid else {})}).encode()


class Refusal(Exception):
    """A request that is not served. code: Engine.IO's own number of what is wrong."""

    def __init__(self, words: str, *, status: int = 400, code: int = 3) -> None:
        super().__init__(words)
        self.words = words
        self.status = status
        self.code = code


class Transport:
    """The ASGI application below /socket.io."""

    def __init__(self, library: Library, sessions: Sessions, service: Service, origins: frozenset[str]) -> None:
        self._library = library
        self._sessions = sessions
        self._service = service
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = AnyConnection(scope, receive, send)
        try:
            try:
                check_origin(connection, self._origins)
            except FireboxError as error:
                raise Refusal(error.message, status=status_of(error), code=4) from None
            target = _read_target(scope)
            session = self._find(target, client_address(connection))
            if scope["type"] == ScopeType.WEBSOCKET:
                await self._serve_socket(target, session, scope, receive, send)
            else:
                await self._serve_request(target, session, scope, receive, send)
        except Refusal as refusal:
            await _refuse(refusal, scope, send)
        except ClientGone:
            pass

    def _find(self, target: Target, address: str) -> Session | None:
        if target.sid is None:
            if not self._sessions.has_room(address):
                raise Refusal("too many connections", status=429, code=4)
            return None
        session = self._sessions.find(target.sid)
        if session is None or not self._library.is_open(session.id):
            raise Refusal("Session ID unknown", code=1)
        return session

    async def _serve_socket(self, target: Target, session: Session | None, scope: Scope, receive: Receive, send: Send) -> None:
        if target.transport != "websocket" or (session is not None and session.upgrading):
            raise Refusal("Transport unknown" if session is None else "Bad request", code=0 if session is None else 3)
        if session is not None:
            session.upgrading = True
        socket = GuardedSocket(self._library, session, receive, send)
        try:
            await self._library.serve(self._scope(target, scope, socket, upgrade=True), socket.receive, socket.send)
        except OSError:
            pass  # the client went away between two packets
        finally:
            if socket.session is not None:
                await self._end_socket(socket.session)

    async def _end_socket(self, session: Session) -> None:
        if session.upgrading:
            session.upgrading = False
            self._library.end_upgrade(session.id)
        if not self._library.polls(session.id):
            await self._library.close(session.id)

    async def _serve_request(self, target: Target, session: Session | None, scope: Scope, receive: Receive, send: Send) -> None:
        if target.transport != "polling":
            raise Refusal("Transport unknown", code=0)
        method = cast("dict[str, Any]", scope)["method"]
        match method, session:
            case "GET", None:
                body = await _read(scope, receive)
                await self._library.serve(self._scope(target, scope, None), _replay(body), send)
            case "GET", Session():
                await self._poll(target, session, scope, receive, send)
            case "POST", Session():
                await self._post(target, session, scope, receive, send)
            case (("GET" | "POST"), _):
                raise Refusal("Bad handshake method", code=2)
            case _:
                raise Refusal("Bad handshake method", status=405, code=2)

    async def _poll(self, target: Target, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with packets as soon as there are some. A client that hangs up meanwhile has left."""
        if session.poll is not None:
            await self._library.close(session.id)
            raise Refusal("overlapping polls")
        this = session.poll = object()

        def over() -> None:
            # The next one may have begun as soon as this one was answered.
            if session.poll is this:
                session.poll = None

        send = _noting_end(send, over)
        try:
            await _read(scope, receive)
            serving = asyncio.ensure_future(self._library.serve(self._scope(target, scope, None), _replay(b""), send))
            leaving = asyncio.ensure_future(_wait_until_gone(receive))
            stopping = asyncio.ensure_future(self._until_useless(session))
            try:
                await asyncio.wait({serving, leaving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    await self._library.close(session.id)
                await serving
            finally:
                # The library takes a cancelled poll for one that nobody wants any more, and ends its session.
                for task in (serving, leaving, stopping):
                    task.cancel()
                await asyncio.wait({serving, leaving, stopping})
        except ClientGone:
            await self._library.close(session.id)
        finally:
            over()
            self._library.forget(session.id)

    async def _until_useless(self, session: Session) -> None:
        """Wait until the server stops and has nothing more to tell a client."""
        await self._service.leaving.wait()
        if session.conversation is not None:
            await session.conversation.until_idle()

    async def _post(self, target: Target, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass packets from the client on, every one of them checked."""
        if session.post is not None:
            await self._library.close(session.id)
            raise Refusal("overlapping posts")
        this = session.post = object()

        def over() -> None:
            # The next one may have begun as soon as this one was answered.
            if session.post is this:
                session.post = None

        send = _noting_end(send, over)
        try:
            body = await _read(scope, receive)
            if self._library.waiting_packets(session.id) > WAITING_PACKETS:
                raise Refusal("too many packets wait to be taken")
            checked = _check_packets(session, body)
            if checked:
                # Read as long as it was read here; what the library would answer to it was refused.
                await self._library.serve(self._scope(target, scope, None, len(checked)), _replay(checked), send)
            else:
                await _answer(send, 200, b"ok")
        except Refusal:
            await self._library.close(session.id)
            raise
        except ClientGone:
            await self._library.close(session.id)
        finally:
            over()
            self._library.forget(session.id)

    def _scope(
        self, target: Target, scope: Any, socket: GuardedSocket | None, body_bytes: int = 0, *, upgrade: bool = False
    ) -> Any:
        """Make the scope that the library gets. `client` and `token` are read when a session is opened."""
        headers = [(b"content-length", str(body_bytes).encode())]
        if upgrade:
            headers = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        return {
            "type": scope["type"],
            "method": scope.get("method", "GET"),
            "path": "/",
            "query_string": target.query,
            "headers": headers,
            "firebox.client": scope,
            "firebox.socket": socket,
        }


def _read_target(scope: Scope) -> Target:
    try:
        fields = parse_qs(scope["query_string"].decode(), max_num_fields=QUERY_FIELDS)
    except ValueError:
        raise Refusal("Bad request") from None
    if "j" in fields:
        raise Refusal("JSONP is not supported")
    transport = _only(fields.get("transport", ["polling"]))
    if transport not in {"polling", "websocket"}:
        raise Refusal("Transport unknown", code=0)
    sid = _only(fields["sid"]) if "sid" in fields else None
    if sid is None and fields.get("EIO") != ["4"]:
        raise Refusal("Unsupported protocol version", code=5)
    return Target(transport, sid)


def _only(values: list[str]) -> str:
    if len(values) != 1:
        raise Refusal("Bad request")
    return values[0]


def _check_packets(session: Session, body: bytes) -> bytes:
    try:
        packets = body.decode().split(SEPARATOR)
    except UnicodeDecodeError:
        raise Refusal("the body is not UTF-8") from None
    if len(packets) > PACKETS_OF_A_POST:
        raise Refusal("too many packets")
    try:
        checked = [session.reader.read(packet) for packet in packets]
    except InvalidRequest as error:
        raise Refusal(error.message) from None
    return SEPARATOR.join(packet for packet in checked if packet).encode()


async def _read(scope: Scope, receive: Receive) -> bytes:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    try:
        return await read_body(receive, headers, PACKET_CHARACTERS)
    except ClientGone:
        raise
    except FireboxError as error:
        raise Refusal(error.message, status=status_of(error)) from None


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _noting_end(send: Send, over: Callable[[], None]) -> Send:
    """Call `over` when the answer has been handed on: from then on its client may ask again."""

    async def noting(message: Any) -> None:
        await send(message)
        if message["type"] == "http.response.body":
            over()

    return noting


def _replay(body: bytes) -> Any:
    """Give a body that has been read once more."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _refuse(refusal: Refusal, scope: Scope, send: Send) -> None:
    if scope["type"] == ScopeType.WEBSOCKET:
        # Before it is accepted this becomes status 403.
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.words})
        return
    body = json.encode({"code": refusal.code, "message": refusal.words})
    await _answer(send, refusal.status, body, [(b"content-type", b"application/json")])


async def _answer(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
