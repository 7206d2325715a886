"""A real container engine with a real image; after each test nothing of it is left there."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from firebox.domain.limits import LimitRequest
from firebox.domain.model import Image, Job, Output, Verdict
from firebox.engine.backends.docker_backend import ContainerStage, DockerBackend, open_docker
from firebox.engine.backends.docker_sweeper import LABEL, own_identity
from firebox.engine.executor import LocalExecutor
from firebox.engine.run import Run
from firebox.runtimes.registry import Registry
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
    verdict: Verdict
    is_truncated: bool


@dataclass
class Containers:
    """An executor with a container engine."""

    executor: LocalExecutor
    backend: DockerBackend

    def submit(self, job: Job) -> Run:
        run = self.executor.submit(job)
        assert isinstance(run, Run)
        return run

    @property
    def in_flight(self) -> int:
        return self.executor.statistics().in_flight

    @property
    def available(self) -> bool:
        """Whether the engine answered the last time."""
        return self.backend._sweeper.available


IMAGE_FIELDS = {"user", "hostname", "read_only"}


def python(code: str, image: str = "glot/python:latest", stdin: bytes = b"", **fields: Any) -> Job:
    """A program in Python, under limits that a test need not think about. fields: of the image, and limits."""
    limits: dict[str, Any] = {"wall_ms": 60_000, "memory_bytes": MEMORY_BYTES, "output_bytes": 100_000, **fields}
    own = {name: limits.pop(name) for name in IMAGE_FIELDS & limits.keys()}
    return Job(
        language="python",
        image=Image(name=image, entrypoint=("/usr/bin/python3", "-IS", "-c"), **own),
        args=(code,),
        stdin=stdin,
        run_limits=LimitRequest(**limits),
    )


async def run(containers: Containers, job: Job) -> Outcome:
    """Run to the end. Raises: the failure of the engine."""
    async with containers.submit(job) as started:
        result = await started.result()
    if started.failure is not None:
        raise started.failure
    stage = result.run
    assert stage is not None
    return Outcome(stage.stdout, stage.stderr, stage.exit_code, result.verdict, stage.stdout_truncated or stage.stderr_truncated)


async def output_of(run: Run) -> AsyncIterator[Output]:
    """Yield output as it arrives. Raises: the failure of the engine."""
    async for event in run.events():
        if isinstance(event, Output):
            yield event
    if run.failure is not None:
        raise run.failure


def name_of(run: Run) -> str:
    """The container of a run under way."""
    assert isinstance(run._stage, ContainerStage)
    return run._stage.name


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
async def containers_at(url: str, slots: int = 4, queue_length: int = 100) -> AsyncGenerator[Containers]:
    """Containers of an engine, with slots of their own."""
    with TemporaryDirectory() as folder:
        flags = {"data_dir": folder, "slots": slots, "queue_length": queue_length, "ready_sandboxes": 0, "reserved_slots": 0}
        settings = load_settings(flags, environ={})
        async with open_docker(url) as backend, LocalExecutor(settings, Registry([]), containers=backend) as executor:
            yield Containers(executor, backend)


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
