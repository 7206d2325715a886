"""Runs in containers of `exec-LANGUAGE` images, where an engine has one; in our own sandbox where it has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from firebox.engine.backends.docker_sweeper import LABEL
from tests.grounds.conftest import TRANSPORTS, connected, text
from tests.support.images import grounds_image
from tests.support.server import RunningServer
from tests.support.services import DockerEngine


def flags_for(engine: DockerEngine) -> tuple[str, ...]:
    """Flags of a server whose Python runs in containers of that engine, which has the image."""
    assert grounds_image(engine.url) == "grounds/exec-python3:latest"
    return "--docker-url", engine.url, "--grounds-wall-ms", "20000"


@pytest.fixture
def contained(docker_engine: DockerEngine, kept_server: Callable[..., RunningServer]) -> RunningServer:
    return kept_server(*flags_for(docker_engine))


@pytest.fixture
def stoppable(docker_engine: DockerEngine, start_server: Callable[..., RunningServer]) -> RunningServer:
    return start_server(*flags_for(docker_engine))


def containers_of(server: RunningServer, engine: DockerEngine) -> list[Any]:
    """What the engine has of this server: it writes its process id into its labels."""
    every = engine.get("/containers/json?all=true")
    return [each for each in every if str(server.process.pid) in each["Labels"].get(LABEL, "").split()]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_program_runs_in_a_container(contained: RunningServer, transport: str) -> None:
    code = """import os, sys
print(os.path.exists('/.dockerenv'), '\\\\ \\t é', flush=True)
print('err', file=sys.stderr)
sys.exit(200)"""
    async with connected(contained.url, transport) as client:
        replies = await client.run("python3", code)
    assert replies[0] == {"stream": "start", "chunk": ""}
    assert text(replies) == "True \\ \t é\n"
    assert text(replies, "stderr") == "err\n"
    assert replies[-1] == {"stream": "status", "chunk": 200 - 256}


async def test_empty_code_is_a_program_there_too(contained: RunningServer) -> None:
    async with connected(contained.url) as client:
        assert await client.run("python3", "") == [{"stream": "start", "chunk": ""}, {"stream": "status", "chunk": 0}]


async def test_a_language_without_an_image_runs_in_the_sandbox(contained: RunningServer) -> None:
    for _ in range(2):
        async with connected(contained.url) as client:
            replies = await client.run("bash", "test -e /.dockerenv; echo $?")
            assert text(replies) == "1\n"


@pytest.mark.parametrize("language", ["../python3", "python3:latest", "PYTHON3", "python3@sha256:0", "x" * 200, "a//b"])
async def test_a_name_that_is_none_of_an_image_never_reaches_the_engine(contained: RunningServer, language: str) -> None:
    told = len(contained.log.read_text())
    async with connected(contained.url) as client:
        assert (await client.run(language, ""))[-1]["stream"] in {"error", "status"}
    assert "container" not in contained.log.read_text()[told:].replace("container engine", "")


async def test_a_new_run_removes_the_container_of_the_old_one(stoppable: RunningServer, docker_engine: DockerEngine) -> None:
    async with connected(stoppable.url) as client:
        await client.ask("python3", "import time\ntime.sleep(1)\nprint('on', flush=True)\ntime.sleep(600)")
        await client.hear_until("stdout", "on")
        await client.ask("python3", "print('other')")
        replies = await client.hear_until("status")
        assert replies[0] == {"stream": "stop", "chunk": ""}
        assert text(replies) == "other\n"
    stoppable.stop()
    assert containers_of(stoppable, docker_engine) == []


async def test_a_disconnect_leaves_no_container(stoppable: RunningServer, docker_engine: DockerEngine) -> None:
    async with connected(stoppable.url) as client:
        await client.ask("python3", "import time\nprint('begun', flush=True)\ntime.sleep(600)")
        await client.hear_until("stdout", "begun")
        assert len(containers_of(stoppable, docker_engine)) == 1
    stoppable.stop()
    assert containers_of(stoppable, docker_engine) == []


async def test_time_is_bounded_there_too(docker_engine: DockerEngine, start_server: Callable[..., RunningServer]) -> None:
    grounds_image(docker_engine.url)
    server = start_server("--docker-url", docker_engine.url, "--grounds-wall-ms", "3000")
    async with connected(server.url) as client:
        replies = await client.run("python3", "import time\nprint('begun', flush=True)\ntime.sleep(600)")
    assert replies[-1] == {"stream": "error", "chunk": "Timeout exceeded."}


async def test_an_engine_that_is_gone_is_said_and_nothing_runs_elsewhere(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--docker-url", "unix:///nonexistent/docker.sock")
    async with connected(server.url) as client:
        replies = await client.run("python3", "print('ran')")
    assert [reply["stream"] for reply in replies] == ["error"]
    assert "the container engine does not answer" in replies[0]["chunk"]
