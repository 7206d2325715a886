"""One connection: what it asks for, one run at a time, and what it is told about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

import structlog

from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.doors.grounds.rate_limit import Pace
from firebox.doors.grounds.wire import BUG, SPAM, Reply, Request, read_request, words_of
from firebox.service.callers import Caller

Identify = Callable[[], Awaitable[Caller]]
"""Finds out who asks, anew for each run: a token may have been taken away since the connection was made."""
Execute = Callable[[Request, Caller], AsyncGenerator[Reply]]
"""Runs a program; closing the generator ends the run and waits until nothing of it is left. Raises: FireboxError."""

_log = structlog.get_logger("firebox.grounds")


class Outlet(Protocol):
    """Where replies go."""

    def say(self, reply: Reply) -> None:
        """Send a reply, before any that is sent later. Nothing happens when the client is gone."""
        ...

    async def room(self) -> None:
        """Wait until the client has taken most of what was sent."""
        ...


class Conversation:
    """Answers the requests of one connection."""

    def __init__(self, outlet: Outlet, pace: Pace, identify: Identify, execute: Execute) -> None:
        self._outlet = outlet
        self._pace = pace
        self._identify = identify
        self._execute = execute
        self._current: asyncio.Task[None] | None = None
        """The run that may speak."""
        self._tasks: set[asyncio.Task[None]] = set()
        """The current run and those that are being ended."""
        self._closed = False

    async def until_idle(self) -> None:
        """Wait until nothing runs or is being ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def request(self, document: object) -> None:
        """Answer an event. document: its first argument, any JSON value.

        Returns at once. What a request cannot change leaves the run under way alone: too early, empty, too long.
        """
        if self._closed:
            return
        if not self._pace.take():
            self._outlet.say(Reply("error", SPAM))
            return
        try:
            request = read_request(document)
        except InvalidRequest as error:
            self._outlet.say(Reply("error", error.message))
            return
        self._interrupt()
        task = asyncio.create_task(self._serve(request, set(self._tasks)))
        self._current = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End what runs, on the side; nothing is said any more."""
        self._closed = True
        self._current = None
        for task in self._tasks:
            task.cancel()

    def _interrupt(self) -> None:
        """Silence the run under way, end it on the side, and say so."""
        if self._current is not None:
            self._current.cancel()
            self._current = None
            self._outlet.say(Reply("stop"))

    async def _serve(self, request: Request, before: set[asyncio.Task[None]]) -> None:
        """Run a program once the runs before it are gone: they may hold what this client is allowed to use at once."""
        if before:
            await asyncio.wait(before)
        try:
            caller = await self._identify()
            async with aclosing(self._execute(request, caller)) as replies:
                async for reply in replies:
                    self._say(reply)
                    await self._outlet.room()
        except FireboxError as error:
            self._say(Reply("error", words_of(error)))
        except Exception:  # noqa: BLE001 - the client waits for a last word, the operator reads the log
            _log.exception("a run failed")
            self._say(Reply("error", BUG))

    def _say(self, reply: Reply) -> None:
        """Say something about the current run; an interrupted one has no voice."""
        if asyncio.current_task() is not self._current:
            return
        if reply.is_last:
            self._current = None
        self._outlet.say(reply)
