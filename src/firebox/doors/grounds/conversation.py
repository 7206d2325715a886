"""The conversation with one client: its requests, one run at a time, and the replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import structlog

from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.doors.grounds.rate_limit import ConnectionLimit
from firebox.doors.grounds.wire import BUG, SPAM, Reply, Request, message_of, read_request
from firebox.service.callers import Caller

Identify = Callable[[], Awaitable[Caller]]
"""Identifies the caller, anew for each run: a token may have been revoked since the connection was made."""
Execute = Callable[[Request, Caller], AsyncGenerator[Reply]]
"""Runs a program. Closing the generator ends the run and waits until nothing of it is left. Raises: FireboxError."""

_log = structlog.get_logger("firebox.grounds")


class Conversation:
    """Answers the requests of one connection.

    send: sends a reply, after those before it, unless the client is gone. until_taken: waits until the client has taken most of
    what was sent.
    """

    def __init__(
        self,
        send: Callable[[Reply], None],
        until_taken: Callable[[], Awaitable[None]],
        limit: ConnectionLimit,
        identify: Identify,
        execute: Execute,
    ) -> None:
        self._send = send
        self._until_taken = until_taken
        self._limit = limit
        self._identify = identify
        self._execute = execute
        self._current: asyncio.Task[None] | None = None
        """The run whose replies are sent."""
        self._tasks: set[asyncio.Task[None]] = set()
        """The current run and those that are being ended."""
        self._closed = False

    async def until_idle(self) -> None:
        """Wait until nothing runs or is being ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def request(self, document: object) -> None:
        """Answer an event, in the background. document: its first argument, any JSON value. A request that is refused (too early,
        empty, too long) does not interrupt the current run.
        """
        if self._closed:
            return
        try:
            if not self._limit.take():
                raise InvalidRequest(SPAM)
            request = read_request(document)
        except InvalidRequest as error:
            self._send(Reply("error", error.message))
            return
        if self._current is not None:
            self._current.cancel()
            self._send(Reply("stop"))
        task = asyncio.create_task(self._serve(request, set(self._tasks)))
        self._current = task
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def close(self) -> None:
        """End all runs in the background. No more replies are sent."""
        self._closed = True
        self._current = None
        for task in self._tasks:
            task.cancel()

    async def _serve(self, request: Request, before: set[asyncio.Task[None]]) -> None:
        """Run a program once the runs before it are gone: they may use up the quota of this client."""
        if before:
            await asyncio.wait(before)
        try:
            caller = await self._identify()
            async with aclosing(self._execute(request, caller)) as replies:
                async for reply in replies:
                    self._say(reply)
                    await self._until_taken()
        except FireboxError as error:
            self._say(Reply("error", message_of(error)))

    def _say(self, reply: Reply) -> None:
        """Send a reply of the current run; those of interrupted ones are dropped."""
        if asyncio.current_task() is not self._current:
            return
        if reply.is_last:
            self._current = None
        self._send(reply)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Forget a run. After a bug the client still waits for a last reply, and the operator reads the log."""
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        _log.error("a run failed", exc_info=task.exception())
        if task is self._current:
            self._current = None
            self._send(Reply("error", BUG))
