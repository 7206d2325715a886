"""Fixtures for glot-run's API: real servers, one with the sandbox and one with containers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest

from tests.support.images import glot_image
from tests.support.server import RunningServer, running_server, start_server
from tests.support.services import DockerEngine

__all__ = ["start_server"]

ADMIN_TOKEN = "the-token-of-the-operator"


@dataclass
class Glot:
    """A server with users, and clients: anonymous, the operator, a user."""

    server: RunningServer
    anonymous: httpx.Client
    admin: httpx.Client
    user: httpx.Client


def client_of(server: RunningServer, token: str = "") -> httpx.Client:
    headers = {"Authorization": f"Token {token}"} if token else {}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False)


def open_glot(server: RunningServer) -> Iterator[Glot]:
    """Create a user and the clients."""
    token = str(uuid4())
    with client_of(server) as anonymous, client_of(server, ADMIN_TOKEN) as admin, client_of(server, token) as user:
        answer = admin.post("/admin/users", json={"token": token})
        assert answer.status_code == 200, answer.text
        yield Glot(server, anonymous, admin, user)


@pytest.fixture(scope="module")
def glot() -> Iterator[Glot]:
    """A server without a container engine and without registered languages."""
    with tempfile.TemporaryDirectory() as data:
        flags = ("--data-dir", data, "--docker-run-timeout-ms", "5000", "--glot-output-bytes", "5000")
        with running_server(*flags, env={"ADMIN_TOKEN": ADMIN_TOKEN}) as server:
            yield from open_glot(server)


@pytest.fixture(scope="module")
def contained(docker_engine: DockerEngine) -> Iterator[Glot]:
    """A server with a container engine, where `python latest` is an image."""
    image = glot_image(docker_engine.url)
    with tempfile.TemporaryDirectory() as data:
        environment = {
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "DOCKER_API_URL": docker_engine.url,
            "DOCKER_RUN_TIMEOUT": "5",
            "MAX_OUTPUT_SIZE": "5000",
        }
        with running_server("--data-dir", data, env=environment) as server:
            for glot in open_glot(server):
                answer = glot.admin.put("/admin/languages", json={"name": "python", "version": "latest", "image": image})
                assert answer.status_code == 200, answer.text
                yield glot


def files(content: str, name: str = "main.py") -> dict[str, object]:
    """A request to run one file."""
    return {"files": [{"name": name, "content": content}]}
