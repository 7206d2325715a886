"""Piston's WebSocket: one interactive job a connection, JSON in text frames both ways; docs/piston.md lists them.

The input stays open until the program ends: the protocol has no word for its end. Whatever ends the connection ends the job.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any

import structlog
from litestar.exceptions import WebSocketDisconnect
from msgspec import UNSET, Struct, UnsetType

from firebox.config import Settings
from firebox.doors.http import AnySocket
from firebox.doors.piston import wire
from firebox.doors.piston.request import Document, read_document, to_job
from firebox.doors.text import StreamText
from firebox.errors import FireboxError, InvalidRequest
from firebox.model import (
    SIGNALS,
    Event,
    Finished,
    Job,
    Output,
    Run,
    Signal,
    StageExited,
    StageName,
    StageStarted,
    Stdin,
    StreamName,
    Verdict,
)
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.service.validation import check_text

INIT_WITHIN_S = 1.0
STDIN_AHEAD_BYTES = 1024 * 1024
"""Input that waits for the program; past it nothing more is read from the connection."""
MESSAGE_BYTES = 64
"""What a message takes besides its data: even empty ones come to an end."""

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
    """The client broke a rule that has a close code of its own."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.value[1])
        self.close = close


class RuntimeChosen(Struct, frozen=True, tag_field="type", tag="runtime"):
    """The job has a slot; this runtime serves it."""

    language: str
    version: str


class StageBegun(Struct, frozen=True, tag_field="type", tag="stage"):
    """A program is now running."""

    stage: StageName


class Data(Struct, frozen=True, tag_field="type", tag="data"):
    """A piece of output."""

    stream: StreamName
    data: str


class Exit(Struct, frozen=True, tag_field="type", tag="exit"):
    """A stage is over. error: when it could not be carried out."""

    stage: StageName
    code: int | None
    signal: str | None
    error: str | UnsetType = UNSET


class Failure(Struct, frozen=True, tag_field="type", tag="error"):
    """What went wrong; the connection is closed after it."""

    message: str


async def serve_connection(socket: AnySocket, service: Service, settings: Settings, caller: Caller) -> None:
    """Serve one connection from the handshake to the close."""
    await socket.accept()
    try:
        init = await _receive_init(socket)
        job = to_job(init, service.resolve, settings, interactive=True)
        await _serve_job(socket, service, job, caller)
        await _close(socket, Close.JOB_COMPLETED)
    except Breach as breach:
        await _close(socket, breach.close)
    except FireboxError as error:
        await _close(socket, Close.NOTIFIED_ERROR, Failure(wire.from_error(error)[1].message))
    except (WebSocketDisconnect, OSError):
        pass  # the job has ended with the connection


async def _receive_init(socket: AnySocket) -> Document:
    """Wait for the init message.

    Raises: Breach, InvalidRequest, WebSocketDisconnect.
    """
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
                        pass  # as in Piston, what is not known has no effect
    except TimeoutError:
        raise Breach(Close.INITIALIZATION_TIMEOUT) from None


async def _receive(socket: AnySocket) -> Document:
    """Receive one message; a binary frame may hold one too.

    Raises: InvalidRequest, WebSocketDisconnect.
    """
    frame: Any = await socket.receive()
    if frame["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(detail="the client went away")
    text = frame.get("text") or frame.get("bytes")
    if not text:
        raise InvalidRequest("an empty frame")
    return read_document(text)


async def _send(socket: AnySocket, message: Struct) -> None:
    await socket.send_data(wire.encode(message), mode="text")


async def _close(socket: AnySocket, close: Close, last: Failure | None = None) -> None:
    """Close the connection, after a last message where there is one; the client may be gone already."""
    try:
        if last is not None:
            await _send(socket, last)
        code, reason = close.value
        await socket.close(code, reason)
    except (WebSocketDisconnect, OSError) as error:
        _log.debug("the client did not wait for the close", reason=str(error))


async def _serve_job(socket: AnySocket, service: Service, job: Job, caller: Caller) -> None:
    """Run a job to its end, unless the client leaves or breaks the rules first; then kill it.

    Raises: Breach, FireboxError, WebSocketDisconnect.
    """
    incoming = _Incoming(socket)
    reading = asyncio.create_task(incoming.work())
    running = asyncio.create_task(_run(socket, service, job, caller, incoming))
    try:
        await asyncio.wait((reading, running), return_when=asyncio.FIRST_COMPLETED)
        (running if running.done() else reading).result()
    finally:
        for task in (reading, running):
            task.cancel()
        await asyncio.wait((reading, running))
        for task in (reading, running):
            # Only one of them is the reason of the end; the other one's must not be reported as forgotten.
            _ = task.cancelled() or task.exception()


async def _run(socket: AnySocket, service: Service, job: Job, caller: Caller, incoming: _Incoming) -> None:
    async with service.start(job, caller) as run:
        await _send(socket, RuntimeChosen(run.runtime.language, run.runtime.version))
        incoming.attach(run)
        text = StreamText()
        async for event in run.events():
            for message in _translate(event, text):
                await _send(socket, message)


def _translate(event: Event, text: StreamText) -> list[Struct]:
    """Translate an event; a piece of output that ends within a character may give nothing yet.

    Raises: FireboxError for a job that our own failure ended.
    """
    match event:
        case StageStarted():
            return [StageBegun(event.stage)]
        case Output():
            data = text.feed(event)
            return [Data(event.stream, data)] if data else []
        case StageExited(result=stage):
            rest: list[Struct] = [Data(stream, data) for stream, data in text.rest()]
            code, signal = wire.outcome(stage)
            error = stage.reason if stage.verdict is Verdict.INTERNAL else UNSET
            return [*rest, Exit(stage.stage, code, signal, error)]
        case Finished(result=result) if result.verdict is Verdict.INTERNAL:
            raise FireboxError(result.reason)
        case Finished():
            return []


class _Incoming:
    """From the client to the run. Input may wait for the program; signals overtake it."""

    def __init__(self, socket: AnySocket) -> None:
        self._socket = socket
        self._run: Run | None = None
        self._attached = asyncio.Event()
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._ahead_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    def attach(self, run: Run) -> None:
        """Let the messages through: the job has a slot."""
        self._run = run
        self._attached.set()

    async def work(self) -> None:
        """Pass on messages until the client leaves.

        Raises: Breach, InvalidRequest, WebSocketDisconnect.
        """
        feeding = asyncio.create_task(self._feed())
        try:
            while True:
                await self._room.wait()
                await self._take(await _receive(self._socket))
        finally:
            feeding.cancel()

    async def _take(self, message: Document) -> None:
        match message.get("type"):
            case "init":
                raise Breach(Close.ALREADY_INITIALIZED)
            case "data":
                if message.get("stream") != "stdin":
                    raise Breach(Close.ONLY_STDIN)
                self._queue(message.get("data"))
            case "signal":
                if message.get("signal") not in SIGNALS:
                    raise Breach(Close.INVALID_SIGNAL)
                if self._run is not None:
                    await self._run.send(Signal(str(message["signal"])))
            case _:
                pass  # as in Piston, what is not known has no effect

    def _queue(self, data: object) -> None:
        if not isinstance(data, str):
            raise InvalidRequest("data is required as a string")
        encoded = check_text(data, "data")
        self._input.put_nowait(encoded)
        self._ahead_bytes += len(encoded) + MESSAGE_BYTES
        if self._ahead_bytes > STDIN_AHEAD_BYTES:
            self._room.clear()

    async def _feed(self) -> None:
        await self._attached.wait()
        while True:
            data = await self._input.get()
            if self._run is not None:
                await self._run.send(Stdin(data))
            self._ahead_bytes -= len(data) + MESSAGE_BYTES
            self._room.set()
