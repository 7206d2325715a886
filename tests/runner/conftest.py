"""Fixtures for Runner's API: real servers, generated gRPC clients, and plain HTTP for the gateway."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from tests.runner.stubs.runner_pb2_grpc import RunnerStub
from tests.support.server import RunningServer, running_server, start_server

__all__ = ["start_server"]

CONNECTIONS_OF_A_CLIENT = 64


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """The database of the shared server."""
    with tempfile.TemporaryDirectory(prefix="firebox-test-runner-") as folder:
        yield f"sqlite:///{Path(folder) / 'runner.db'}"


@pytest.fixture(scope="session")
def server(database_url: str) -> Iterator[RunningServer]:
    """A server with gRPC and gateway, shared by all tests of this process without special needs."""
    flags = (
        "--grpc-port", "0", "--slots", "4", "--max-body-bytes", "1MiB", "--database-url", database_url,
        "--connections-per-client", str(CONNECTIONS_OF_A_CLIENT),
    )  # fmt: skip
    with running_server(*flags) as started:
        yield started


@pytest.fixture
def gateway(server: RunningServer) -> Iterator[httpx.Client]:
    """A client of the shared server's JSON gateway."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as opened:
        yield opened


@pytest.fixture
async def channel(server: RunningServer) -> AsyncIterator[grpc.aio.Channel]:
    """A gRPC channel to the shared server."""
    async with grpc.aio.insecure_channel(server.ready["grpc"]) as opened:
        yield opened


@pytest.fixture
def runner(channel: grpc.aio.Channel) -> RunnerStub:
    """A gRPC client of the shared server."""
    return RunnerStub(channel)
