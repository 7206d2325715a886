"""Transports: polling, WebSockets, and the upgrade from polling to a WebSocket.

| request           | what                                                         |
| ----------------- | ------------------------------------------------------------ |
| GET, no sid       | opens a session that polls                                   |
| GET, sid          | a poll: answered as soon as there are packets for the client |
| POST, sid         | packets from the client                                      |
| WebSocket, no sid | opens a session that lasts as long as the WebSocket          |
| WebSocket, sid    | upgrades a session that polls                                |

Source: Engine.IO protocol, revisions 3 and 4, "Transports" and "Upgrade".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from litestar.types import Receive, Send

from firebox.domain.errors import InvalidRequest
from firebox.doors.grounds import engineio_packets as engine
from firebox.doors.grounds.socketio_session import ANSWER_CHARACTERS, ANSWER_PACKETS, WAITING_PACKETS, Session, Upgrade
from firebox.doors.http.requests import first_of, until_gone

UPGRADE_WITHIN_S = 20.0
CLOSE_WITHIN_S = 5.0
"""How long sending the last packets of a session may take."""
NORMAL_CLOSE = 1000
POLICY_CLOSE = 1008
"""Source: RFC 6455, section 7.4.1."""
REASON_BYTES = 123
"""Source: RFC 6455, section 5.5."""

Message = Mapping[str, Any]


async def poll(session: Session, receive: Receive, leaving: asyncio.Event) -> bytes:
    """Wait for packets and return them as a payload. A client that disconnects ends its session.

    receive: of a request whose body has been read. leaving: set when the server begins to stop.
    """
    if session.upgrade is Upgrade.PROBED:
        session.outbox.put(engine.NOOP)
    if not len(session.outbox):
        await first_of(session.outbox.filled.wait(), _close_at_end(session, receive, leaving))
    packets = session.outbox.take(ANSWER_PACKETS, ANSWER_CHARACTERS)
    return engine.encode_payload(packets or [engine.NOOP], session.client.revision)


async def _close_at_end(session: Session, receive: Receive, leaving: asyncio.Event) -> None:
    """Close the session once its client is gone or the server stops. Cancelled when packets end the poll."""
    await first_of(until_gone(receive), _until_stopped(session, leaving))
    session.close()


async def _until_stopped(session: Session, leaving: asyncio.Event) -> None:
    """Wait until the server is about to stop and nothing of the client's is left."""
    await leaving.wait()
    await session.until_idle()


async def post(session: Session, body: bytes, *, is_binary: bool) -> None:
    """Handle a payload. Raises: InvalidRequest; the session must then be closed."""
    if len(session.outbox) > WAITING_PACKETS:
        raise InvalidRequest("too many packets wait to be taken")
    for packet in engine.decode_payload(body, session.client.revision, is_binary=is_binary):
        await session.receive(packet)


async def serve_websocket(session: Session, receive: Receive, send: Send) -> None:
    """Serve a WebSocket until it, or its session, ends. A session that polls goes on polling unless it is upgraded."""
    close = NORMAL_CLOSE, ""
    try:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        if session.upgrade is Upgrade.DONE:
            await session.open(may_upgrade=False)
        elif not await _upgrade(session, receive, send):
            return
        await _exchange(session, receive, send)
    except InvalidRequest as error:
        close = POLICY_CLOSE, error.message
    except OSError:
        pass  # the client went away between two packets
    finally:
        if session.upgrade is Upgrade.DONE:
            session.close()
        else:
            session.upgrade = Upgrade.NONE
        await _close(send, *close)


async def _upgrade(session: Session, receive: Receive, send: Send) -> bool:
    """Upgrade a session that polls. Return False if the client disconnected. Raises: InvalidRequest."""
    try:
        async with asyncio.timeout(UPGRADE_WITHIN_S):
            if not await _expect(engine.PING + engine.PROBE, receive):
                return False
            await _send(send, engine.PONG + engine.PROBE)
            session.upgrade = Upgrade.PROBED
            session.outbox.put(engine.NOOP)  # answers a pending poll
            if not await _expect(engine.UPGRADE, receive):
                return False
    except TimeoutError:
        raise InvalidRequest("the upgrade took too long") from None
    session.upgrade = Upgrade.DONE
    return True


async def _expect(text: str, receive: Receive) -> bool:
    message = await _next(receive)
    if message is not None and message.get("text") != text:
        raise InvalidRequest("not a packet that belongs to an upgrade")
    return message is not None


async def _exchange(session: Session, receive: Receive, send: Send) -> None:
    """Exchange packets until the client leaves or the session ends. Raises: InvalidRequest, OSError."""
    reading = asyncio.create_task(_read(session, receive))
    writing = asyncio.create_task(_write(session, send))
    ending = asyncio.create_task(session.ended.wait())
    try:
        await asyncio.wait({reading, writing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done() or writing.done():
            # The client's runs end before it is told why it is disconnected.
            session.close()
            await (reading if reading.done() else writing)
        else:
            await asyncio.wait({writing}, timeout=CLOSE_WITHIN_S)
    finally:
        for task in (reading, writing, ending):
            task.cancel()
        await asyncio.gather(reading, writing, ending, return_exceptions=True)


async def _read(session: Session, receive: Receive) -> None:
    while session.is_open:
        # Requests have responses: nothing is read from a client that does not read these.
        await session.outbox.until_taken(waiting_packets=WAITING_PACKETS)
        message = await _next(receive)
        if message is None:
            return
        data = message["bytes"] if message.get("text") is None else message["text"]
        await session.receive(engine.decode_packet(data))


async def _write(session: Session, send: Send) -> None:
    while session.is_open or len(session.outbox):
        await session.outbox.filled.wait()
        for packet in session.outbox.take(1):
            await _send(send, packet)


async def _next(receive: Receive) -> Message | None:
    """Receive a message; None at the end of the connection."""
    message = cast(Message, await receive())
    return message if message["type"] == "websocket.receive" else None


async def _send(send: Send, packet: str) -> None:
    """Send a packet. Raises: OSError when the connection is gone."""
    message: Any = {"type": "websocket.send", "text": packet}
    try:
        await send(message)
    except RuntimeError:  # from uvicorn, when it has closed the connection itself after a malformed frame
        raise ConnectionResetError from None


async def _close(send: Send, code: int, reason: str) -> None:
    """Close a WebSocket, unless its client no longer reads."""
    reason = reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore")
    with suppress(OSError, TimeoutError, RuntimeError):
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await send({"type": "websocket.close", "code": code, "reason": reason})
