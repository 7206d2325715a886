"""Takes the messages of every gRPC call in the place of the library: bounded, in time, and refused in our words.

The library would take any number of unfinished messages at once, wait for each without an end, and answer one that it cannot
read with the name of a class while it logs a stack trace.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from firebox.domain.errors import FireboxError, InvalidRequest, QueueFull
from firebox.doors.http.hosts_and_proxies import Proxies
from firebox.doors.http.refusals import BodyTimeout
from firebox.doors.runner.clients import client_of
from firebox.doors.runner.grpc_logs import SparingLog
from firebox.doors.runner.guard import HEAD_BYTES
from firebox.service.callers import countable
from firebox.settings.settings import Settings

FIELDS = 100
"""Of a call's metadata."""
CALLS_OF_AN_ADDRESS = 256
"""Calls that one client may have at once: it cannot take all that there are."""
MESSAGE_TIMEOUT_S = 60.0
"""As long as a body over HTTP may take."""
PAUSE_S = 10.0
"""Between two messages of a stream; after a longer one the stream is over."""
RETRY_AFTER_S = 1.0

Context = grpc.aio.ServicerContext[Any, Any]
Requests = AsyncIterator[bytes]
Refuse = Callable[[Context, FireboxError], Awaitable[None]]
Deserialize = Callable[[bytes], Any]


class Messages(grpc.aio.ServerInterceptor):
    """Wraps the handler of each call. refuse: how a call is ended with an error."""

    def __init__(self, settings: Settings, refuse: Refuse) -> None:
        self._refuse = refuse
        self._calls = Counter[str]()
        self._proxies = Proxies(settings)
        self._intake = Intake(settings)
        self._log = SparingLog("firebox.runner")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Give the handler that the library calls in the place of the one that there is."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        serve = self._many(handler) if handler.request_streaming else self._one(handler)
        answered = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
        # Without a way to read them the library hands over bytes, one message at a time, when it is asked.
        served: grpc.RpcMethodHandler[Any, Any] = answered(serve, response_serializer=handler.response_serializer)
        return served

    def _one(self, handler: Any) -> Callable[[Requests, Context], Awaitable[Any]]:
        """Serve calls with one message."""
        behave = handler.unary_stream if handler.response_streaming else handler.unary_unary

        async def serve(requests: Requests, context: Context) -> Any:
            async with self._admitted(context):
                message = await self._take(requests, context, handler.request_deserializer)
                if message is None:
                    raise InvalidRequest("the call has no message")
                return await _answer(behave(message, context), context)

        return serve

    def _many(self, handler: Any) -> Callable[[Requests, Context], Awaitable[Any]]:
        """Serve calls with a stream of messages."""
        behave = handler.stream_stream if handler.response_streaming else handler.stream_unary

        async def take_all(requests: Requests, context: Context) -> AsyncGenerator[Any]:
            message = await self._take(requests, context, handler.request_deserializer)
            while message is not None:
                yield message
                try:
                    message = await self._take(requests, context, handler.request_deserializer, PAUSE_S)
                except BodyTimeout:
                    return  # a client that has nothing to ask keeps no turn; it may call again

        async def serve(requests: Requests, context: Context) -> Any:
            async with self._admitted(context):
                return await _answer(behave(take_all(requests, context), context), context)

        return serve

    @asynccontextmanager
    async def _admitted(self, context: Context) -> AsyncGenerator[None]:
        """Count a call, and end it with a status when it is refused."""
        address = client_of(context, self._proxies)
        client = countable(address)
        try:
            if self._calls[client] >= CALLS_OF_AN_ADDRESS:
                raise QueueFull(f"this client has {CALLS_OF_AN_ADDRESS} calls at once already", retry_after_s=RETRY_AFTER_S)
            self._calls[client] += 1
            try:
                _check_metadata(context)
                yield
            finally:
                self._calls[client] -= 1
                if not self._calls[client]:
                    del self._calls[client]
        except FireboxError as error:
            self._log.info("gRPC calls refused", reason=error.message, address=address)
            await self._refuse(context, error)

    async def _take(
        self, requests: Requests, context: Context, deserialize: Deserialize, timeout_s: float = MESSAGE_TIMEOUT_S
    ) -> Any:
        """Take the next message; None: there is none.

        Raises: BodyTimeout, InvalidRequest.
        """
        async with self._intake.place(countable(client_of(context, self._proxies))):
            try:
                async with asyncio.timeout(timeout_s):
                    data = await anext(requests, None)
            except TimeoutError:
                raise BodyTimeout(timeout_s) from None
        try:
            return None if data is None else deserialize(data)
        except DecodeError:
            raise InvalidRequest("the message cannot be read as protocol buffers of its type") from None


class Intake:
    """Lets only so many messages come in at once, in all and of each client.

    The others wait at their senders: the library lets 64 KiB of each in before it is taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._of_an_address = max(1, settings.held_bytes_per_client // settings.max_body_bytes)
        self._all = asyncio.Semaphore(max(1, settings.held_bytes // settings.max_body_bytes))
        self._addresses: dict[str, asyncio.Semaphore] = {}
        self._waiting = Counter[str]()

    @asynccontextmanager
    async def place(self, address: str) -> AsyncGenerator[None]:
        """Wait for a place, and hold it while the context is open."""
        own = self._addresses.setdefault(address, asyncio.Semaphore(self._of_an_address))
        self._waiting[address] += 1
        try:
            # First the client's own: it then waits behind itself, and not before others.
            async with own, self._all:
                yield
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address], self._addresses[address]


def _check_metadata(context: Context) -> None:
    """Raise InvalidRequest for more metadata than any client needs.

    The library counts a field that refers to an earlier one as next to nothing; for us it is as long as what it refers to.
    """
    metadata = context.invocation_metadata() or ()
    if len(metadata) > FIELDS:
        raise InvalidRequest(f"there are more than {FIELDS} fields", where="metadata")
    if sum(len(key) + len(value) for key, value in metadata) > HEAD_BYTES:
        raise InvalidRequest(f"the fields have more than {HEAD_BYTES} bytes", where="metadata")


async def _answer(answer: Any, context: Context) -> Any:
    """Wait for an answer, or pass on a stream of them."""
    if not hasattr(answer, "__aiter__"):
        return await answer
    async for part in answer:
        await context.write(part)
    return None
