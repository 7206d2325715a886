"""The gRPC server: Runner's four calls, reflection and health, without TLS."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from firebox.domain.errors import CapacityError, FireboxError
from firebox.doors.http.credentials import token_of
from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.doors.http.hosts_and_proxies import Proxies
from firebox.doors.http.listening_socket import bind
from firebox.doors.runner.grpc_messages import Context, Messages, client_of
from firebox.doors.runner.guard import HEAD_BYTES, Guard
from firebox.doors.runner.proto.runner_pb2 import DESCRIPTOR
from firebox.doors.runner.use_cases import Calls
from firebox.doors.runner.wire import Status, from_error
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.settings.settings import Settings

Call = Callable[[Any, Caller], Awaitable[Any]]
"""Takes the message and the client of a call, and returns the answer."""

RUNNER = DESCRIPTOR.services_by_name["Runner"]
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
STOP_GRACE_S = 2.0
"""How long responses may take to finish on shutdown. Runs have ended by then."""
CALLS_AT_ONCE = 1024
"""Limit on calls being served or queued; more are rejected before they cost anything."""
CALLS_OF_A_CONNECTION = 256
READ_BYTES = 64 * 1024

# The library has no types for these two.
_reflection: Any = reflection
_messages: Any = reflection_pb2
_log = structlog.get_logger("firebox.runner")


@asynccontextmanager
async def open_server(service: Service, settings: Settings, turns: FairScheduler) -> AsyncGenerator[str]:
    """Serve while the context is open. Yield the address, such as "127.0.0.1:44000". The library listens on a socket that only
    the guard can reach; the guard listens for clients. Raises: SettingsError.
    """
    with bind(settings, "grpc_port") as listener:
        listener.listen()
        server = grpc.aio.server(
            interceptors=[Messages(settings, _refuse)], options=_options(settings), maximum_concurrent_rpcs=CALLS_AT_ONCE
        )
        calls = Calls(service, settings)
        served: dict[str, Call] = {
            "RunCode": calls.run_code,
            "ShareCode": calls.share_code,
            "GetCodeByID": calls.get_code,
            "DeleteCode": calls.delete_code,
        }
        server.add_generic_rpc_handlers((_handlers(served, service, settings),))
        state = await _add_health(server)
        add_reflection(server, (RUNNER.full_name, health.SERVICE_NAME))
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
    """Let the library listen on a socket whose name is unlinked, so that none is left behind even after SIGKILL. Return a file
    descriptor that reaches it. Source: open(2), O_PATH.
    """
    with tempfile.TemporaryDirectory(prefix="firebox-grpc-") as folder:
        path = Path(folder) / "socket"
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _handlers(calls: dict[str, Call], service: Service, settings: Settings) -> grpc.GenericRpcHandler:
    """Identify the client of each call, forward it, and convert errors. calls: by their names in the protocol file. A client that
    disconnects and a deadline that expires cancel the call, and with it the run.
    """
    proxies = Proxies(settings)

    def serving(call: Call) -> Callable[[Any, Context], Awaitable[Any]]:
        async def serve(request: Any, context: Context) -> Any:
            try:
                caller = await service.accounts.identify(_token(context), address=client_of(context, proxies))
                return await call(request, caller)
            except FireboxError as error:
                failure = error
            except Exception as bug:  # noqa: BLE001 - the client gets an answer without details; the log has them
                _log.error("unhandled error in a call", exc_info=bug)
                failure = FireboxError("internal error; see the server log")
            return await _refuse(context, failure)

        return serve

    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        method.name: grpc.unary_unary_rpc_method_handler(
            serving(calls[method.name]),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        for method in RUNNER.methods
    }
    return grpc.method_handlers_generic_handler(RUNNER.full_name, methods)


def _token(context: Context) -> str | None:
    """Return the token. Nothing else of the metadata is kept while the call waits."""
    return token_of({key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)})


async def _refuse(context: Context, error: FireboxError) -> NoReturn:
    """End a call with a status. Capacity errors tell clients when to retry. Source: gRPC A6, client retries, "Pushback"."""
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
    await state.set(RUNNER.full_name, health_pb2.HealthCheckResponse.SERVING)
    cast("Any", health_pb2_grpc).add_HealthServicer_to_server(state, server)
    return state


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Serve reflection for clients without the protocol files. services: their full names; those of reflection itself are added.

    The library supports v1alpha only. Version 1 has the same messages with the same numbers in another package, so the library's
    servicer answers both. Source: gRPC, "grpc/reflection/v1/reflection.proto".
    """
    # Register the descriptors of version 1, so that reflection can describe itself.
    described = FileDescriptorProto.FromString(_messages.DESCRIPTOR.serialized_pb)
    text = text_format.MessageToString(described).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(text, FileDescriptorProto()))
    answer: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        _reflection.aio.ReflectionServicer((*services, *REFLECTION)).ServerReflectionInfo,
        request_deserializer=_messages.ServerReflectionRequest.FromString,
        response_serializer=_messages.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": answer}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers) for name in REFLECTION])


async def _report_shutdown(service: Service, state: Any) -> None:
    """Report "not serving" to load balancers before the last runs have ended."""
    await service.leaving.wait()
    await state.enter_graceful_shutdown()
