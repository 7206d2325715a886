"""Piston's WebSocket: one interactive job per connection, JSON text frames in both directions. The protocol has no end-of-file
message, so standard input stays open until the program exits. Closing the connection cancels the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import Enum
from typing import Any

import structlog
from litestar.exceptions import WebSocketDisconnect
from msgspec import UNSET, Struct, UnsetType

from firebox.domain import model
from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.domain.limits import StageName
from firebox.doors.http.json_size import check_in_turns
from firebox.doors.http.output import StreamText
from firebox.doors.http.requests import AnySocket, first_of
from firebox.doors.piston import wire
from firebox.doors.piston.request import Document, read_document, to_job
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.service.validation import encode_text
from firebox.settings.settings import Settings

INIT_WITHIN_S = 1.0

_log = structlog.get_logger("firebox.piston")


class Close(Enum):
    """Why the server closes a connection: code and reason."""

    JOB_COMPLETED = (4999, "Job Completed")
    ALREADY_INITIALIZED = (4000, "Already Initialized")
    INITIALIZATION_TIMEOUT = (4001, "Initialization Timeout")
    NOTIFIED_ERROR = (4002, "Notified Error")
    NOT_YET_INITIALIZED = (4003, "Not yet initialized")
    ONLY_STDIN = (4004, "Can only write to stdin")
    INVALID_SIGNAL = (4005, "Invalid signal")


class Breach(Exception):
    """A protocol violation that has its own close code."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.value[1])
        self.close = close


class RuntimeChosen(Struct, frozen=True, tag_field="type", tag="runtime"):
    """The job was admitted and runs on this runtime."""

    language: str
    version: str


class StageBegun(Struct, frozen=True, tag_field="type", tag="stage"):
    """A stage has started."""

    stage: StageName


class Data(Struct, frozen=True, tag_field="type", tag="data"):
    """A chunk of output."""

    stream: model.StreamName
    data: str


class Exit(Struct, frozen=True, tag_field="type", tag="exit"):
    """A stage has ended. error: set if the stage could not be run."""

    stage: StageName
    code: int | None
    signal: str | None
    error: str | UnsetType = UNSET


class Failure(Struct, frozen=True, tag_field="type", tag="error"):
    """An error message, sent before the connection is closed."""

    message: str


async def serve_connection(socket: AnySocket, service: Service, settings: Settings, caller: Caller) -> None:
    """Serve one connection from the handshake to the close."""
    await socket.accept()
    try:
        init = await _receive_init(socket)
        job = to_job(init, service.resolve, settings, interactive=True)
        async with service.start(job, caller) as run:
            await first_of(_send_events(socket, run), _receive_input(socket, run))
        await _close(socket, Close.JOB_COMPLETED)
    except Breach as breach:
        await _close(socket, breach.close)
    except FireboxError as error:
        await _close(socket, Close.NOTIFIED_ERROR, Failure(wire.from_error(error)[1].message))
    except (WebSocketDisconnect, OSError):
        pass  # the job has ended with the connection


async def _receive_init(socket: AnySocket) -> Document:
    """Wait for the init message. Raises: Breach, InvalidRequest, WebSocketDisconnect."""
    try:
        async with asyncio.timeout(INIT_WITHIN_S):
            while True:
                message = await _receive(socket)
                match message.get("type"):
                    case "init":
                        return message
                    case "data" | "signal":
                        raise Breach(Close.NOT_YET_INITIALIZED)
                    case _:
                        pass  # Piston ignores unknown messages
    except TimeoutError:
        raise Breach(Close.INITIALIZATION_TIMEOUT) from None


async def _receive(socket: AnySocket) -> Document:
    """Receive one message from a text or binary frame. Raises: InvalidRequest, WebSocketDisconnect."""
    frame: Any = await socket.receive()
    if frame["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(detail="the client went away")
    text = frame.get("text") or frame.get("bytes")
    if not text:
        raise InvalidRequest("an empty frame")
    return read_document(await check_in_turns(text))


async def _send(socket: AnySocket, message: Struct) -> None:
    await socket.send_data(wire.encode(message), mode="text")


async def _close(socket: AnySocket, close: Close, last: Failure | None = None) -> None:
    """Send an optional last message and close the connection. The client may already be gone."""
    try:
        if last is not None:
            await _send(socket, last)
        code, reason = close.value
        await socket.close(code, reason)
    except (WebSocketDisconnect, OSError) as error:
        _log.debug("the client did not wait for the close", reason=str(error))


async def _send_events(socket: AnySocket, run: model.Run) -> None:
    text = StreamText()
    async for event in run.events():
        for message in _translate(event, run.runtime, text):
            await _send(socket, message)


def _translate(event: model.Event, runtime: model.RuntimeName, text: StreamText) -> Iterator[Struct]:
    """Translate an event. Output that ends within a multi-byte character may yield no message yet. Raises: FireboxError when an
    internal failure ended the job.
    """
    match event:
        case model.Dispatched():
            yield RuntimeChosen(runtime.language, runtime.version)
        case model.StageStarted():
            yield StageBegun(event.stage)
        case model.Output():
            if data := text.feed(event):
                yield Data(event.stream, data)
        case model.StageExited(result=stage):
            yield from (Data(stream, data) for stream, data in text.rest())
            code, signal = wire.outcome(stage)
            yield Exit(stage.stage, code, signal, stage.reason if stage.verdict is model.Verdict.INTERNAL else UNSET)
        case model.Finished(result=result) if result.verdict is model.Verdict.INTERNAL:
            raise FireboxError(result.reason)
        case model.Queued() | model.Finished():
            pass


async def _receive_input(socket: AnySocket, run: model.Run) -> None:
    """Pass client messages to a run. Raises: Breach, InvalidRequest, WebSocketDisconnect."""
    while True:
        message = await _receive(socket)
        match message.get("type"):
            case "init":
                raise Breach(Close.ALREADY_INITIALIZED)
            case "data":
                if message.get("stream") != "stdin":
                    raise Breach(Close.ONLY_STDIN)
                await run.send(model.Stdin(_input_bytes(message.get("data"))))
            case "signal":
                if message.get("signal") not in model.SIGNALS:
                    raise Breach(Close.INVALID_SIGNAL)
                await run.send(model.Signal(str(message["signal"])))
            case _:
                pass  # Piston ignores unknown messages


def _input_bytes(data: object) -> bytes:
    if not isinstance(data, str):
        raise InvalidRequest("data is required as a string")
    return encode_text(data, where="data")
