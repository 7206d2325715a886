"""Discovery by clients (reflection, health), and limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from firebox.doors.runner.grpc_messages import client_address
from firebox.doors.runner.proto.runner_pb2 import CodeRequest
from scripts.generate_grpc import ROOT, generate
from tests.runner.stubs.runner_pb2_grpc import RunnerStub
from tests.runner.waiting import until_in_flight
from tests.support.server import RunningServer, run_firebox, running_server, unused_uid_base

# These publish types for the synchronous library only.
HEALTH: Any = health_pb2_grpc
REFLECTION_MESSAGES: Any = reflection_pb2


def test_generated_code_matches_the_protocol_files(tmp_path: Path) -> None:
    for path in generate(tmp_path):
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), "run `.venv/bin/python -m scripts.generate_grpc`"


async def ask_reflection(channel: grpc.aio.Channel, version: str = "v1", **question: str) -> Any:
    """Send a reflection request. The messages of both versions are the same."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=REFLECTION_MESSAGES.ServerReflectionRequest.SerializeToString,
        response_deserializer=REFLECTION_MESSAGES.ServerReflectionResponse.FromString,
    )
    async for answer in call(iter([REFLECTION_MESSAGES.ServerReflectionRequest(**question)])):
        return answer
    raise AssertionError("no answer")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_itself(channel: grpc.aio.Channel, version: str) -> None:
    described = await ask_reflection(channel, version, file_containing_symbol=f"grpc.reflection.{version}.ServerReflection")
    pool = DescriptorPool()
    for file in described.file_descriptor_response.file_descriptor_proto:
        pool.AddSerializedFile(file)
    method = pool.FindServiceByName(f"grpc.reflection.{version}.ServerReflection").methods_by_name["ServerReflectionInfo"]
    assert method.input_type.full_name == f"grpc.reflection.{version}.ServerReflectionRequest"
    extension = method.input_type.fields_by_name["file_containing_extension"].message_type
    assert extension is not None
    assert extension.full_name == f"grpc.reflection.{version}.ExtensionRequest"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_a_client_without_the_protocol_files_can_call(channel: grpc.aio.Channel, version: str) -> None:
    listed = await ask_reflection(channel, version, list_services="")
    names = {service.name for service in listed.list_services_response.service}
    reflections = {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
    assert names == {"runner.Runner", "grpc.health.v1.Health", *reflections}
    described = await ask_reflection(channel, version, file_containing_symbol="runner.Runner")
    pool = DescriptorPool()
    for file in described.file_descriptor_response.file_descriptor_proto:
        pool.AddSerializedFile(file)
    method = pool.FindServiceByName("runner.Runner").methods_by_name["RunCode"]
    asked, answered = (GetMessageClass(type_) for type_ in (method.input_type, method.output_type))
    call = channel.unary_unary(
        f"/runner.Runner/{method.name}", request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
    )
    answer = await call(asked(code="echo found", language="bash"))
    assert MessageToDict(answer) == {"code": "echo found", "output": "found\n"}


async def test_numbers_of_fields_are_those_of_runner(channel: grpc.aio.Channel) -> None:
    described = await ask_reflection(channel, file_containing_symbol="runner.Runner")
    pool = DescriptorPool()
    pool.AddSerializedFile(described.file_descriptor_response.file_descriptor_proto[0])
    numbers = {
        message: {field.name: field.number for field in pool.FindMessageTypeByName(f"runner.{message}").fields}
        for message in ("CodeRequest", "CodeResponse", "IdRequest", "ShareResponse", "DeleteCodeRequest", "DeleteCodeResponse")
    }
    assert numbers == {
        "CodeRequest": {"code": 1, "language": 15},
        "CodeResponse": {"code": 1, "output": 2, "error": 3},
        "IdRequest": {"id": 1},
        "ShareResponse": {"id": 1},
        "DeleteCodeRequest": {"id": 1, "user_id": 2},
        "DeleteCodeResponse": {"success": 1},
    }


@pytest.mark.parametrize("name", ["", "runner.Runner"])
async def test_health_service(channel: grpc.aio.Channel, name: str) -> None:
    answer = await HEALTH.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_shutdown_reports_not_serving_and_completes_calls(tmp_path: Path, start_server: Any) -> None:
    server: RunningServer = start_server("--grpc-port", "0", "--database-url", f"sqlite:///{tmp_path / 'runner.db'}")
    async with grpc.aio.insecure_channel(server.ready["grpc"]) as channel:
        health = HEALTH.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="runner.Runner"))
        told = health.__aiter__()
        assert (await told.__anext__()).status == health_pb2.HealthCheckResponse.SERVING
        last = asyncio.ensure_future(_run(channel, "sleep 1; echo last"))
        await until_in_flight(server, 1)
        server.process.terminate()
        assert (await told.__anext__()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _run(channel, "echo too late")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await last == "last\n"
    assert await asyncio.to_thread(server.process.wait, 60) == 0


async def _run(channel: grpc.aio.Channel, code: str) -> str:
    return (await RunnerStub(channel).RunCode(CodeRequest(code=code, language="bash"))).output


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_message_that_is_too_large_is_refused(runner: RunnerStub, compression: grpc.Compression) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await runner.RunCode(CodeRequest(code="#" * (2 << 20), language="bash"), compression=compression)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await runner.RunCode(CodeRequest(code="echo still here", language="bash"))).output == "still here\n"


async def test_a_call_that_does_not_exist_is_unimplemented(channel: grpc.aio.Channel) -> None:
    call: Any = channel.unary_unary("/runner.Runner/Nothing")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("flag", ["--grpc-port", "--metrics-port"])
def test_a_taken_grpc_or_metrics_port_is_a_settings_error(server: RunningServer, tmp_path: Path, flag: str) -> None:
    port = server.ready["grpc"].rpartition(":")[2]
    done = run_firebox(
        "serve", "--port", "0", flag, port, "--no-prepare-toolchains", "--log-level", "error",
        "--data-dir", str(tmp_path), "--uid-base", str(unused_uid_base()),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"firebox: setting {flag[2:].replace('-', '_')} is ")
    assert done.stderr.count("\n") <= 2


def test_by_default_there_is_no_grpc(start_server: Any, tmp_path: Path) -> None:
    server: RunningServer = start_server("--database-url", f"sqlite:///{tmp_path / 'runner.db'}", forked=False)
    assert "grpc" not in server.ready
    loaded = (Path("/proc") / str(server.ready["pid"]) / "maps").read_text()
    assert "grpc/_cython" not in loaded


def test_the_server_listens_where_http_does(server: RunningServer) -> None:
    host, port = server.ready["grpc"].rsplit(":", 1)
    assert host == server.address[0]
    socket.create_connection((host, int(port)), timeout=10).close()


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("unix-abstract:firebox-grpc-7-f00-0/192.0.2.1", "192.0.2.1"),
        ("unix-abstract:firebox-grpc-7-f00-0/2001:db8::1", "2001:db8::1"),
        ("unix-abstract:firebox-grpc-7-f00-0%2F2001%3Adb8%3A%3A1", "2001:db8::1"),
        ("unix:/run/x", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_peer_is_read(peer: str, address: str) -> None:
    assert client_address(peer) == address


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    """A server behind a proxy, and the folder of its temporary files."""
    folder = tmp_path_factory.mktemp("proxied")
    flags = ("--grpc-port", "0", "--trusted-proxies", "127.0.0.1", "--anonymous-runs-per-minute", "1")
    with running_server(*flags, "--database-url", f"sqlite:///{folder / 'runner.db'}", env={"TMPDIR": str(folder)}) as started:
        yield started, folder


async def test_clients_behind_a_trusted_proxy_have_limits_of_their_own(proxied: tuple[RunningServer, Path]) -> None:
    async with grpc.aio.insecure_channel(proxied[0].ready["grpc"]) as channel:
        run, request = RunnerStub(channel).RunCode, CodeRequest(code="echo served", language="bash")
        for address in ("192.0.2.1", "192.0.2.2"):
            assert (await run(request, metadata=(("x-forwarded-for", address),))).output == "served\n"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await run(request, metadata=(("x-forwarded-for", "192.0.2.1"),))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_librarys_socket_leaves_no_file(proxied: tuple[RunningServer, Path]) -> None:
    assert not list(proxied[1].glob("firebox-grpc-*"))
