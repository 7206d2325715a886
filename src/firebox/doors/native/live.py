"""An interactive run over one WebSocket: input, signals and terminal sizes in, events out.

Messages are JSON objects in text frames, each with a `type`; see docs/reference/native-api.md. The first message of the client is
`start`. The server closes with code 1000 after `finished`, and with 4000 + the HTTP status of the error after an `error`.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import structlog
from litestar.exceptions import WebSocketDisconnect
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from firebox.domain import model
from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.doors.http.json_body import decode
from firebox.doors.http.json_size import check_in_turns
from firebox.doors.http.requests import AnySocket, first_of
from firebox.doors.native import wire
from firebox.doors.native.events import EventTranslator
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.service.validation import encode_text

START_WITHIN_S = 10.0
NORMAL_CLOSE = 1000
CLOSE_BASE = 4000

_log = structlog.get_logger("firebox.native")
_encode = msgspec.json.Encoder().encode


class Start(wire.RunRequest, tag_field="type", tag="start", forbid_unknown_fields=True):
    """Start a run, as in `POST /runs`. After `stdin` the program's input stays open until `eof`."""


class Stdin(Struct, tag_field="type", tag="stdin", forbid_unknown_fields=True):
    """More input, as text or as base64."""

    data: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET


class Eof(Struct, tag_field="type", tag="eof", forbid_unknown_fields=True):
    """End of input."""


class Signal(Struct, tag_field="type", tag="signal", forbid_unknown_fields=True):
    """Send a signal to the program and its children."""

    signal: str


class Resize(Struct, tag_field="type", tag="resize", forbid_unknown_fields=True):
    """Resize the terminal."""

    rows: int
    columns: int


class Cancel(Struct, tag_field="type", tag="cancel", forbid_unknown_fields=True):
    """Cancel the run."""


Message = Start | Stdin | Eof | Signal | Resize | Cancel
"""Messages of the client."""


class Started(Struct, frozen=True, tag_field="type", tag="started"):
    """The run has been admitted."""

    id: str
    runtime: model.RuntimeName


class Failed(wire.ErrorBody, frozen=True, tag_field="type", tag="error"):
    """An error. The connection is closed after it."""


async def serve_live_run(socket: AnySocket, service: Service, caller: Caller) -> None:
    """Serve one connection from the handshake to its close."""
    await socket.accept()
    try:
        start = await _receive_start(socket)
        job = replace(wire.to_job(start), interactive=True, attended=True)
        async with service.start(job, caller) as run:
            await first_of(_send_events(socket, run, exact=start.base64), _receive_input(socket, run))
        await socket.close(NORMAL_CLOSE)
    except FireboxError as error:
        status, body = wire.from_error(error)
        await _send_quietly(socket, Failed(body.error), CLOSE_BASE + status)
    except (WebSocketDisconnect, OSError):
        pass  # leaving `service.start` has cancelled the run


async def refuse_live_run(socket: AnySocket, error: FireboxError) -> None:
    """Reject a handshake. Its status is always 403."""
    _log.info("connection rejected", code=error.code)
    await socket.close(CLOSE_BASE + wire.from_error(error)[0])


async def _receive_start(socket: AnySocket) -> Start:
    try:
        async with asyncio.timeout(START_WITHIN_S):
            message = await _receive(socket)
    except TimeoutError:
        raise InvalidRequest(f"no message within {START_WITHIN_S:g} seconds", where="type") from None
    if not isinstance(message, Start):
        raise InvalidRequest("the first message must be a start", where="type")
    return message


async def _receive(socket: AnySocket) -> Message:
    """Receive one message. Raises: InvalidRequest, WebSocketDisconnect."""
    frame = await socket.receive()
    if frame["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(detail="the client disconnected")
    text = frame.get("text")
    if not isinstance(text, str):
        raise InvalidRequest("unexpected binary frame", hint="send JSON in text frames; stdin takes base64")
    return cast(Message, decode(await check_in_turns(text), cast(Any, Message)))


async def _send(socket: AnySocket, message: Struct) -> None:
    await socket.send_data(_encode(message), mode="text")


async def _send_quietly(socket: AnySocket, message: Struct, code: int) -> None:
    """Send a last message and close the connection, unless the client has done so already."""
    try:
        await _send(socket, message)
        await socket.close(code)
    except (WebSocketDisconnect, OSError) as error:
        _log.debug("the client disconnected before the error was sent", reason=str(error))


async def _send_events(socket: AnySocket, run: model.Run, *, exact: bool) -> None:
    """Send every event of a run. Raises: WebSocketDisconnect."""
    translator = EventTranslator(exact=exact)
    async for event in run.events():
        if isinstance(event, model.Dispatched):
            await _send(socket, Started(run.id, run.runtime))
        async for written in translator.feed(event):
            await socket.send_data(b"".join(written.parts), mode="text")


async def _receive_input(socket: AnySocket, run: model.Run) -> None:
    """Pass on to a run what its client sends, until the client leaves. Raises: WebSocketDisconnect, InvalidRequest."""
    while True:
        match await _receive(socket):
            case Stdin() as message:
                await run.send(model.Stdin(_input_bytes(message)))
            case Eof():
                await run.send(model.Eof())
            case Signal(signal=name):
                await run.send(model.Signal(name))
            case Resize(rows=rows, columns=columns):
                await run.send(model.Resize(rows, columns))
            case Cancel():
                await run.send(model.Cancel())
            case Start():
                raise InvalidRequest("the run has already started", where="type", hint="use one connection per run")


def _input_bytes(message: Stdin) -> bytes:
    if message.base64 is not UNSET:
        if message.data is not UNSET:
            raise InvalidRequest("data and base64 are mutually exclusive", where="data")
        return wire.from_base64(message.base64, where="base64")
    if message.data is UNSET:
        raise InvalidRequest("data is required", where="data")
    return encode_text(message.data, where="data")
