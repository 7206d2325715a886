"""The gRPC server itself: the four calls, reflection and health, in plain text."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from firebox.config import Settings
from firebox.doors.credentials import token_of
from firebox.doors.runner.calls import Calls
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
from firebox.doors.runner.wire import Status, from_error
from firebox.errors import CapacityError, FireboxError, SettingsError
from firebox.service.callers import Caller
from firebox.service.service import Service

Asked = TypeVar("Asked", bound=Message)
Answered = TypeVar("Answered", bound=Message)

SERVICE = DESCRIPTOR.services_by_name["Runner"].full_name
STOP_GRACE_S = 2.0
"""How long answers may take to go out at the end. Runs have ended by then."""
CALLS_AT_ONCE = 1024
"""Calls that are served or wait for a slot; more are refused at once, before they cost anything."""

_log = structlog.get_logger("firebox.runner")


@asynccontextmanager
async def open_server(service: Service, settings: Settings) -> AsyncGenerator[str]:
    """Serve while the context is open; gives the address that is listened on, "127.0.0.1:44000".

    Raises: SettingsError for an address that cannot be had.
    """
    server = grpc.aio.server(options=_options(settings), maximum_concurrent_rpcs=CALLS_AT_ONCE)
    add_RunnerServicer_to_server(Servicer(service, settings), server)
    state = await _add_health(server)
    add_reflection(server, (SERVICE, health.SERVICE_NAME))
    host = _resolve(settings)
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError:
        place = f"{host}:{settings.grpc_port}"
        source = settings.source("grpc_port")
        raise SettingsError("grpc_port", place, "an address that is free", source=source) from None
    await server.start()
    leaving = asyncio.create_task(_say_when_leaving(service, state))
    try:
        yield f"{host}:{port}"
    finally:
        leaving.cancel()
        await state.enter_graceful_shutdown()
        await server.stop(STOP_GRACE_S)


class Servicer(RunnerServicer):
    """Finds out who asks, passes the call on, and translates what goes wrong.

    A client that goes away, and a deadline that passes, cancel the call, and with it the run.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._calls = Calls(service, settings)

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
            headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            caller = await self._service.accounts.identify(token_of(headers), client_address(context.peer()))
            return await call(request, caller)
        except FireboxError as error:
            failure = error
        except Exception as bug:  # noqa: BLE001 - the client gets an answer, without our insides; the log has all of it
            _log.error("a call met a bug", exc_info=bug)
            failure = FireboxError("the server made a mistake; its log says which")
        return await _refuse(context, failure)


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


def client_address(peer: str) -> str:
    """Read the address out of what gRPC calls a peer: "ipv4:192.0.2.1:40112", "ipv6:%5B::1%5D:40112". "" for another kind."""
    family, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if family in {"ipv4", "ipv6"} else ""


def _options(settings: Settings) -> list[tuple[str, int]]:
    """Bound what a client can make the server hold. Source: gRPC core, grpc/impl/channel_arg_names.h."""
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        # Two servers on one port would each get some of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", CALLS_AT_ONCE),
        ("grpc.server_handshake_timeout_ms", 20_000),
        # A client that is gone without a word ends its runs.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_connection_idle_ms", 600_000),
    ]


def _resolve(settings: Settings) -> str:
    """Find the one address that the HTTP doors listen on too; in brackets where it has colons."""
    try:
        found = socket.getaddrinfo(settings.host, settings.grpc_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        source = settings.source("host")
        raise SettingsError("host", settings.host, "an address or name of this machine", source=source, hint=str(error)) from None
    address = str(found[0][4][0])
    return f"[{address}]" if ":" in address else address


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
