"""A real container engine with a real image; after each test nothing of it is left there."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from firebox.domain.model import StreamName
from firebox.engine.admission import Admission
from firebox.engine.backends.docker_sweeper import LABEL, own_identity
from firebox.engine.container_spec import ContainerSpec
from firebox.engine.containers import Containers, open_containers
from firebox.settings.settings import load_settings
from tests.support.images import glot_image
from tests.support.services import DockerEngine, ServiceFailed

MEMORY_BYTES = 100_000_000
PATIENCE_S = 60.0


@dataclass
class Outcome:
    """What a run left."""

    stdout: bytes
    stderr: bytes
    exit_code: int | None
    timed_out: bool
    overflowed: bool


def python(code: str, **fields: Any) -> ContainerSpec:
    """A program in Python, under limits that a test need not think about."""
    defaults: dict[str, Any] = {
        "image": "glot/python:latest",
        "wall_ms": 60_000,
        "memory_bytes": MEMORY_BYTES,
        "output_bytes": 100_000,
    }
    return ContainerSpec(entrypoint=("/usr/bin/python3", "-IS", "-c"), arguments=(code,), **{**defaults, **fields})


async def run(containers: Containers, spec: ContainerSpec) -> Outcome:
    """Run to the end."""
    written: dict[StreamName, bytes] = {"stdout": b"", "stderr": b""}
    async with containers.start(spec, "somebody") as started:
        async for chunk in started.output():
            written[chunk.stream] += chunk.data
    return Outcome(written["stdout"], written["stderr"], started.exit_code, started.timed_out, started.overflowed)


def own_containers(engine: DockerEngine) -> list[str]:
    """Names of what this process has in an engine."""
    return [
        container["Names"][0].removeprefix("/")
        for container in engine.get("/containers/json?all=true")
        if container["Labels"].get(LABEL) == own_identity()
    ]


def wait_for(engine: DockerEngine, name: str, condition: str) -> None:
    """Return when the engine says that a container has stopped ("not-running") or is gone ("removed").

    The engine's own way to wait for it is not told of everything while an engine that was killed comes back.
    """
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            state = engine.get(f"/containers/{name}/json")["State"]
        except ServiceFailed as error:
            if " 404 " not in str(error):
                raise
            return
        if condition == "not-running" and not state["Running"]:
            return
        time.sleep(0.02)
    raise TimeoutError(f"{name} is not {condition}")


@asynccontextmanager
async def containers_at(url: str, slots: int = 4, admission: Admission | None = None) -> AsyncGenerator[Containers]:
    """Containers of an engine, with slots of their own."""
    settings = load_settings({"docker_url": url}, environ={})
    async with open_containers(settings, admission or Admission(slots, 100, 100)) as opened:
        assert opened is not None
        yield opened


@pytest.fixture
def image(docker_url: str) -> str:
    """An image with Python, in the shared engine."""
    return glot_image(docker_url)


@pytest.fixture
async def containers(docker_engine: DockerEngine, image: str) -> AsyncIterator[Containers]:
    """The shared engine; nothing of ours is left there."""
    async with containers_at(docker_engine.url) as opened:
        yield opened
        left = own_containers(docker_engine)
    assert left == []
    assert own_containers(docker_engine) == []


@pytest.fixture(scope="module")
def mortal_engine() -> Iterator[DockerEngine]:
    """An engine of these tests alone, with the image."""
    with DockerEngine() as engine:
        glot_image(engine.url)
        yield engine


@pytest.fixture
def own_engine(mortal_engine: DockerEngine) -> Iterator[DockerEngine]:
    """An engine that may be killed; the next test finds it alive again."""
    yield mortal_engine
    try:
        mortal_engine.get("/_ping")
    except OSError:
        mortal_engine.start()
