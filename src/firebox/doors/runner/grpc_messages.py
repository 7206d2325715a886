"""Reads the messages of every gRPC call in place of the library: with limits on number, size and time, and our own errors.

The library accepts any number of unfinished messages at once, waits for each without a timeout, and answers an unreadable one
with the name of a class while it logs a stack trace.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote
from weakref import WeakValueDictionary

import grpc
from google.protobuf.message import DecodeError

from firebox.domain.errors import FireboxError, InvalidRequest, QueueFull
from firebox.doors.http.hosts_and_proxies import Proxies
from firebox.doors.http.refusals import BodyTimeout
from firebox.doors.runner.grpc_logs import SparingLog
from firebox.doors.runner.guard import HEAD_BYTES
from firebox.service.callers import rate_limit_key
from firebox.settings.settings import Settings

FIELDS = 100
"""Limit on the number of metadata fields of a call."""
CALLS_OF_AN_ADDRESS = 256
"""Calls in progress per client: one client cannot take all that the server allows."""
MESSAGE_TIMEOUT_S = 60.0
"""The same timeout as for a body over HTTP."""
PAUSE_S = 10.0
"""Longest pause between two messages of a stream, which is then ended."""
RETRY_AFTER_S = 1.0

Context = grpc.aio.ServicerContext[Any, Any]
Requests = AsyncIterator[bytes]
Refuse = Callable[[Context, FireboxError], Awaitable[None]]


class Messages(grpc.aio.ServerInterceptor):
    """Wraps the handler of each call. refuse: ends a call with an error."""

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
        """Return the handler for the library to call."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        behave: Any = getattr(handler, f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}")

        async def serve(requests: Requests, context: Context) -> Any:
            async with self._admitted(context) as client:
                take = partial(self._take, requests, client, handler.request_deserializer)
                message = _all(take) if handler.request_streaming else await take(MESSAGE_TIMEOUT_S)
                if message is None:
                    raise InvalidRequest("the call has no message")
                return await _answer(behave(message, context), context)

        answered = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
        # Without a deserializer the library passes bytes on, one message at a time, on request.
        served: grpc.RpcMethodHandler[Any, Any] = answered(serve, response_serializer=handler.response_serializer)
        return served

    @asynccontextmanager
    async def _admitted(self, context: Context) -> AsyncGenerator[str]:
        """Count a call, and end it with a status if it is rejected. Yield its client's key for limits."""
        address = client_of(context, self._proxies)
        client = rate_limit_key(address)
        try:
            if self._calls[client] >= CALLS_OF_AN_ADDRESS:
                raise QueueFull(f"this client already has {CALLS_OF_AN_ADDRESS} calls in progress", retry_after_s=RETRY_AFTER_S)
            self._calls[client] += 1
            try:
                _check_metadata(context)
                yield client
            finally:
                self._calls[client] -= 1
                if not self._calls[client]:
                    del self._calls[client]
        except FireboxError as error:
            self._log.info("gRPC calls rejected", reason=error.message, address=address)
            await self._refuse(context, error)

    async def _take(self, requests: Requests, client: str, deserialize: Callable[[bytes], Any], timeout_s: float) -> Any:
        """Receive the next message, or None at the end. Raises: BodyTimeout, InvalidRequest."""
        async with self._intake.place(client):
            try:
                async with asyncio.timeout(timeout_s):
                    data = await anext(requests, None)
            except TimeoutError:
                raise BodyTimeout(timeout_s) from None
        try:
            return None if data is None else deserialize(data)
        except DecodeError:
            raise InvalidRequest("the message is not a valid protocol buffer of its type") from None


class Intake:
    """Limits how many messages are received at once, in total and per client. The rest waits at the senders: the library receives
    64 KiB of a message before it is requested.
    """

    def __init__(self, settings: Settings) -> None:
        self._of_an_address = max(1, settings.held_bytes_per_client // settings.max_body_bytes)
        self._all = asyncio.Semaphore(max(1, settings.held_bytes // settings.max_body_bytes))
        self._addresses = WeakValueDictionary[str, asyncio.Semaphore]()
        """Forgotten with the last message that waits for one."""

    @asynccontextmanager
    async def place(self, address: str) -> AsyncGenerator[None]:
        """Wait for a place, and hold it while the context is open."""
        own = self._addresses.setdefault(address, asyncio.Semaphore(self._of_an_address))
        # The client's own limit first: a client then waits behind itself, not before others.
        async with own, self._all:
            yield


def client_of(context: Context, proxies: Proxies) -> str:
    """Return the address of the client of a call. Trusted proxies name it in `x-forwarded-for`, as over HTTP."""
    address = client_address(context.peer())
    if not proxies:
        return address
    metadata = context.invocation_metadata() or ()
    forwarded = [str(value).encode("latin-1", "replace") for key, value in metadata if key == "x-forwarded-for"]
    return proxies.client_of(address, forwarded)


def client_address(peer: str) -> str:
    """Parse the address in gRPC's name of a peer: "unix-abstract:firebox-grpc-7-f00-0/192.0.2.1". "" for any other name."""
    family, _, name = unquote(peer).partition(":")
    return name.rpartition("/")[2] if family == "unix-abstract" else ""


def _check_metadata(context: Context) -> None:
    """Check the amount of metadata. Raises: InvalidRequest. The library counts a field that refers to an earlier one (HPACK) as
    almost nothing; here it counts in full.
    """
    metadata = context.invocation_metadata() or ()
    if len(metadata) > FIELDS:
        raise InvalidRequest(f"there are more than {FIELDS} fields", where="metadata")
    if sum(len(key) + len(value) for key, value in metadata) > HEAD_BYTES:
        raise InvalidRequest(f"the fields have more than {HEAD_BYTES} bytes", where="metadata")


def _arity(is_stream: bool) -> str:
    return "stream" if is_stream else "unary"


async def _all(take: Callable[[float], Awaitable[Any]]) -> AsyncGenerator[Any]:
    """Yield the messages of a stream."""
    message = await take(MESSAGE_TIMEOUT_S)
    while message is not None:
        yield message
        try:
            message = await take(PAUSE_S)
        except BodyTimeout:
            return  # an idle client keeps no place; it may call again


async def _answer(answer: Any, context: Context) -> Any:
    """Await a response, or return a stream of them."""
    if not hasattr(answer, "__aiter__"):
        return await answer
    async for part in answer:
        await context.write(part)
    return None
