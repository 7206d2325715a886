"""The gRPC server: Runner's four calls, reflection and health, without TLS."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from firebox.domain.errors import CapacityError, FireboxError
from firebox.doors.http.credentials import token_of
from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.doors.http.hosts_and_proxies import Proxies
from firebox.doors.http.listening_socket import bind
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
"""How long responses may take to finish on shutdown. Runs have ended by then."""
CALLS_AT_ONCE = 1024
"""Limit on calls being served or queued; more are rejected before they cost anything."""
CALLS_OF_A_CONNECTION = 256
READ_BYTES = 64 * 1024

_log = structlog.get_logger("firebox.runner")


@asynccontextmanager
async def open_server(service: Service, settings: Settings, turns: FairScheduler) -> AsyncGenerator[str]:
    """Serve while the context is open. Yield the address, such as "127.0.0.1:44000".

    The library listens on a socket that only the guard can reach; the guard listens for clients.
    Raises: SettingsError when the address cannot be used.
    """
    with bind(settings, "grpc_port") as listener:
        listener.listen()
        server = grpc.aio.server(
            interceptors=[Messages(settings, _refuse)], options=_options(settings), maximum_concurrent_rpcs=CALLS_AT_ONCE
        )
        add_RunnerServicer_to_server(Servicer(service, settings), server)
        state = await _add_health(server)
        add_reflection(server, (SERVICE, health.SERVICE_NAME))
        inner = await _start(server)
        leaving = asyncio.create_task(_report_shutdown(service, state))
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
    """Let the library listen on a socket whose name is unlinked, so that none is left behind even after SIGKILL.

    Return a file descriptor that reaches it. Source: open(2), O_PATH.
    """
    with tempfile.TemporaryDirectory(prefix="firebox-grpc-") as folder:
        path = Path(folder) / "socket"
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return os.open(path, os.O_PATH | os.O_CLOEXEC)


class Servicer(RunnerServicer):
    """Identifies the client, forwards the call, and converts errors.

    A client that disconnects and a deadline that expires cancel the call, and with it the run.
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
        except Exception as bug:  # noqa: BLE001 - the client gets an answer without details; the log has them
            _log.error("unhandled error in a call", exc_info=bug)
            failure = FireboxError("internal error; see the server log")
        return await _refuse(context, failure)


def _token(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Return the token. Nothing else of the metadata is kept while the call waits."""
    return token_of({key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)})


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], error: FireboxError) -> NoReturn:
    """End a call with a status. Capacity errors tell clients when to retry.

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
    """Return channel options that limit a client's use of memory. Source: gRPC core, grpc/impl/channel_arg_names.h."""
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        # Counted unpacked, with 32 bytes of overhead per field. The soft limit rejects some calls below the hard one.
        ("grpc.max_metadata_size", HEAD_BYTES),
        ("grpc.absolute_max_metadata_size", HEAD_BYTES),
        ("grpc.max_concurrent_streams", CALLS_OF_A_CONNECTION),
        # Without these a connection that sends endlessly buffers megabytes that nothing has read, and
        # the windows of all its streams grow with its speed.
        ("grpc.experimental.tcp_max_read_buffer_size", READ_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.server_handshake_timeout_ms", 20_000),
        # Detects dead clients, whose runs are then cancelled.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_connection_idle_ms", 600_000),
    ]


async def _add_health(server: grpc.aio.Server) -> Any:
    """Serve the standard health service, for the server as a whole and for Runner."""
    # The asynchronous part of the package has no types.
    state = cast("Any", health).aio.HealthServicer()
    await state.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    cast("Any", health_pb2_grpc).add_HealthServicer_to_server(state, server)
    return state


async def _report_shutdown(service: Service, state: Any) -> None:
    """Report "not serving" to load balancers before the last runs have ended."""
    await service.leaving.wait()
    await state.enter_graceful_shutdown()
