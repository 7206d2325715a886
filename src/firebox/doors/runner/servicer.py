"""The gRPC server itself: the four calls, reflection and health, in plain text."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from firebox.domain.errors import CapacityError, FireboxError, SettingsError
from firebox.doors.http.credentials import token_of
from firebox.doors.http.hosts_and_proxies import Proxies
from firebox.doors.http.turns import Turns
from firebox.doors.runner.clients import client_of
from firebox.doors.runner.grpc_messages import Messages
from firebox.doors.runner.guard import HEAD_BYTES, Guard
from firebox.doors.runner.proto.runner_pb2 import (
    DESCRIPTOR,
    CodeRequest,
    CodeResponse,
    DeleteCodeRequest,
    DeleteCodeResponse,
    IdRequest,
    ShareResponse,
)
from firebox.doors.runner.proto.runner_pb2_grpc import RunnerServicer, add_RunnerServicer_to_server
from firebox.doors.runner.reflection import add_reflection
from firebox.doors.runner.use_cases import Calls
from firebox.doors.runner.wire import Status, from_error
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.settings.settings import Settings

Asked = TypeVar("Asked", bound=Message)
Answered = TypeVar("Answered", bound=Message)

SERVICE = DESCRIPTOR.services_by_name["Runner"].full_name
STOP_GRACE_S = 2.0
"""How long answers may take to go out at the end. Runs have ended by then."""
CALLS_AT_ONCE = 1024
"""Calls that are served or wait for a slot; more are refused at once, before they cost anything."""
CALLS_OF_A_CONNECTION = 256
READ_BYTES = 64 * 1024

_log = structlog.get_logger("firebox.runner")


@asynccontextmanager
async def open_server(service: Service, settings: Settings, turns: Turns) -> AsyncGenerator[str]:
    """Serve while the context is open; gives the address that is listened on, "127.0.0.1:44000".

    The library listens where only the guard reaches it, and the guard where clients come.
    Raises: SettingsError for an address that cannot be had.
    """
    with _listen(settings) as listener:
        server = grpc.aio.server(
            interceptors=[Messages(settings, _refuse)], options=_options(settings), maximum_concurrent_rpcs=CALLS_AT_ONCE
        )
        add_RunnerServicer_to_server(Servicer(service, settings), server)
        state = await _add_health(server)
        add_reflection(server, (SERVICE, health.SERVICE_NAME))
        inner = await _start(server)
        leaving = asyncio.create_task(_say_when_leaving(service, state))
        async with Guard(f"/proc/self/fd/{inner}", settings, turns).listening(listener):
            try:
                host, port = listener.getsockname()[:2]
                yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            finally:
                leaving.cancel()
                await state.enter_graceful_shutdown()
                await server.stop(STOP_GRACE_S)
                os.close(inner)


async def _start(server: grpc.aio.Server) -> int:
    """Have the library listen on a socket of which no name is left, even if this process is killed.

    Returns a descriptor through which it can be reached. Source: open(2), O_PATH.
    """
    with tempfile.TemporaryDirectory(prefix="firebox-grpc-") as folder:
        path = Path(folder) / "socket"
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return os.open(path, os.O_PATH | os.O_CLOEXEC)


class Servicer(RunnerServicer):
    """Finds out who asks, passes the call on, and translates what goes wrong.

    A client that goes away, and a deadline that passes, cancel the call, and with it the run.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._calls = Calls(service, settings)
        self._proxies = Proxies(settings)

    async def RunCode(self, request: CodeRequest, context: grpc.aio.ServicerContext[CodeRequest, CodeResponse]) -> CodeResponse:
        return await self._answer(self._calls.run_code, request, context)

    async def ShareCode(
        self, request: CodeRequest, context: grpc.aio.ServicerContext[CodeRequest, ShareResponse]
    ) -> ShareResponse:
        return await self._answer(self._calls.share_code, request, context)

    async def GetCodeByID(self, request: IdRequest, context: grpc.aio.ServicerContext[IdRequest, CodeResponse]) -> CodeResponse:
        return await self._answer(self._calls.get_code, request, context)

    async def DeleteCode(
        self, request: DeleteCodeRequest, context: grpc.aio.ServicerContext[DeleteCodeRequest, DeleteCodeResponse]
    ) -> DeleteCodeResponse:
        return await self._answer(self._calls.delete_code, request, context)

    async def _answer(
        self,
        call: Callable[[Asked, Caller], Awaitable[Answered]],
        request: Asked,
        context: grpc.aio.ServicerContext[Asked, Answered],
    ) -> Answered:
        try:
            caller = await self._service.accounts.identify(_token(context), address=client_of(context, self._proxies))
            return await call(request, caller)
        except FireboxError as error:
            failure = error
        except Exception as bug:  # noqa: BLE001 - the client gets an answer, without our insides; the log has all of it
            _log.error("a call met a bug", exc_info=bug)
            failure = FireboxError("the server made a mistake; its log says which")
        return await _refuse(context, failure)


def _token(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Read the token, and keep nothing else of the metadata while the call waits."""
    return token_of({key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)})


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], error: FireboxError) -> NoReturn:
    """End a call with a status. A client that tries again by itself is told when.

    Source: gRPC A6, client retries, "Pushback".
    """
    status, message = from_error(error)
    pushback: tuple[tuple[str, str], ...] = ()
    if isinstance(error, CapacityError):
        pushback = (("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1000))),)
    elif status is Status.INTERNAL:
        _log.error("call failed", code=error.code, message=error.message)
    await context.abort(grpc.StatusCode[status.name], message, pushback)


def _options(settings: Settings) -> list[tuple[str, int]]:
    """Bound what a client can make the server hold. Source: gRPC core, grpc/impl/channel_arg_names.h."""
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        # Unpacked, each field with 32 bytes more; the softer of the two refuses some of what the harder one lets through.
        ("grpc.max_metadata_size", HEAD_BYTES),
        ("grpc.absolute_max_metadata_size", HEAD_BYTES),
        ("grpc.max_concurrent_streams", CALLS_OF_A_CONNECTION),
        # Without these a connection that sends without an end makes room for megabytes of what has not been looked at, and
        # the windows of all its streams grow with its speed.
        ("grpc.experimental.tcp_max_read_buffer_size", READ_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.server_handshake_timeout_ms", 20_000),
        # A client that is gone without a word ends its runs.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_connection_idle_ms", 600_000),
    ]


def _listen(settings: Settings) -> socket.socket:
    """Listen on the one address that the HTTP doors listen on too. Raises: SettingsError."""
    try:
        found = socket.getaddrinfo(settings.host, settings.grpc_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        source = settings.source("host")
        raise SettingsError("host", settings.host, "an address or name of this machine", source=source, hint=str(error)) from None
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        place, source = f"{settings.host}:{settings.grpc_port}", settings.source("grpc_port")
        hint = "" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise SettingsError("grpc_port", place, "an address that is free", source=source, hint=hint) from None
    return listener


async def _add_health(server: grpc.aio.Server) -> Any:
    """Serve the standard health service, for all of the server and for Runner."""
    # The asynchronous part of the package publishes no types.
    state = cast("Any", health).aio.HealthServicer()
    await state.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    cast("Any", health_pb2_grpc).add_HealthServicer_to_server(state, server)
    return state


async def _say_when_leaving(service: Service, state: Any) -> None:
    """Let balancers know before the last runs have ended."""
    await service.leaving.wait()
    await state.enter_graceful_shutdown()
