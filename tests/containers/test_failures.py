"""The engine dies, freezes, is away at the start, comes back; the server dies: a clear answer each time, and nothing left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from firebox.domain.errors import ContainerError, PartUnavailable
from firebox.domain.model import Image, Verdict
from firebox.engine.backends.docker_backend import configuration_of
from firebox.engine.backends.docker_engine import CALL_S, ContainerEngine
from firebox.engine.backends.docker_sweeper import EXPIRY_LABEL, LABEL
from firebox.engine.plan import Planner
from firebox.runtimes.registry import Registry
from firebox.settings.settings import load_settings
from tests.containers.conftest import Containers, containers_at, name_of, output_of, own_containers, python, run, wait_for
from tests.support.server import environment
from tests.support.services import DockerEngine

pytestmark = pytest.mark.slow

ENDLESS = python("import time; print('first', flush=True); time.sleep(1000)")
_PLAN = Planner(load_settings({}, environ={}), Registry([])).plan(ENDLESS)
CONFIGURATION = configuration_of(
    ENDLESS.image or Image(name=""), _PLAN.run_limits, _PLAN.command("run", _PLAN.run_limits, {}, packed=None, terminal=None)
)


async def test_an_engine_that_is_killed_in_the_middle_is_told_at_once(own_engine: DockerEngine) -> None:
    async with containers_at(own_engine.url) as containers:

        async def kill_in_the_middle() -> None:
            async with containers.submit(ENDLESS) as started:
                async for chunk in output_of(started):
                    assert chunk.data == b"first\n"
                    await asyncio.to_thread(own_engine.kill)

        with pytest.raises(PartUnavailable, match="the container engine does not answer"):
            await kill_in_the_middle()
        assert containers.in_flight == 0
        with pytest.raises(PartUnavailable):
            await run(containers, ENDLESS)


async def test_what_a_killed_engine_left_is_removed_when_it_is_back(own_engine: DockerEngine) -> None:
    async with containers_at(own_engine.url) as containers:
        name = ""
        try:
            async with containers.submit(ENDLESS) as started:
                async for _ in output_of(started):
                    name = name_of(started)
                    await asyncio.to_thread(own_engine.kill)
        except PartUnavailable:
            pass
        await asyncio.to_thread(own_engine.start)
        await asyncio.to_thread(wait_for, own_engine, name, "removed")
        assert own_containers(own_engine) == []
        assert (await run(containers, python("print('again')"))).stdout == b"again\n"
        assert containers.available


async def test_an_engine_that_restarts_in_the_middle_ends_the_run(own_engine: DockerEngine) -> None:
    """The run may see an exit code or the engine's silence; never a hang, and never an answer that looks complete."""
    async with containers_at(own_engine.url) as containers:
        try:
            async with containers.submit(ENDLESS) as started:
                async for _ in output_of(started):
                    await asyncio.to_thread(own_engine.restart)
                result = await started.result()
            assert result.run is not None
            assert result.run.exit_code != 0
        except (PartUnavailable, ContainerError):
            pass
        # A removal that met the restart is the sweeper's.
        for name in own_containers(own_engine):
            await asyncio.to_thread(wait_for, own_engine, name, "removed")


async def test_a_server_starts_without_its_engine_and_finds_it_later(own_engine: DockerEngine) -> None:
    own_engine.stop()
    async with containers_at(own_engine.url) as containers:
        assert not containers.available
        with pytest.raises(PartUnavailable, match="container engine"):
            await run(containers, ENDLESS)
        await asyncio.to_thread(own_engine.start)
        assert (await run(containers, python("print(1)"))).stdout == b"1\n"


async def test_an_engine_that_freezes_does_not_hold_a_run_past_its_time(own_engine: DockerEngine) -> None:
    job = python("import time; print('first', flush=True); time.sleep(1000)", wall_ms=2000)
    name = ""
    async with containers_at(own_engine.url) as containers:
        engine, sweeper = containers.backend._engine, containers.backend._sweeper
        with frozen_later(own_engine) as freeze:
            async with containers.submit(job) as started:
                async for _ in output_of(started):
                    name = name_of(started)
                    freeze()
                    engine._call_s = 0.5
                assert (await started.result()).verdict is Verdict.WALL_TIME
            with pytest.raises(PartUnavailable, match=r"no answer within 0\.5 seconds"):
                await run(containers, python("print(1)"))
            assert not await sweeper.sweep()
        engine._call_s = CALL_S
        assert await sweeper.sweep()
        await asyncio.to_thread(wait_for, own_engine, name, "removed")
        assert (await run(containers, python("print(1)"))).stdout == b"1\n"
    # The engine may have created late what it was asked for while it was frozen; a removal may still be under way.
    for name in own_containers(own_engine):
        await asyncio.to_thread(wait_for, own_engine, name, "removed")


@contextmanager
def frozen_later(engine: DockerEngine) -> Generator[Callable[[], None]]:
    """Give a function that stops the engine's process; on leaving it goes on."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(engine.socket))
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    try:
        yield lambda: os.kill(pid, signal.SIGSTOP)
    finally:
        os.kill(pid, signal.SIGCONT)


SERVER = """
import asyncio, os, signal, sys
from tests.containers.conftest import containers_at, name_of, output_of, python

async def main():
    async with containers_at(sys.argv[1]) as containers:
        async with containers.submit(python("import time; print('first', flush=True); time.sleep(1000)")) as started:
            async for _ in output_of(started):
                print(name_of(started), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_a_killed_server_left_is_removed_by_the_next(
    image: str, docker_engine: DockerEngine, checkout: os.PathLike[str]
) -> None:
    name = await kill_a_server(docker_engine.url, checkout)
    assert docker_engine.get(f"/containers/{name}/json")["State"]["Running"]
    async with containers_at(docker_engine.url):
        names = [container["Names"][0].removeprefix("/") for container in docker_engine.get("/containers/json?all=true")]
        assert name not in names


async def kill_a_server(url: str, checkout: os.PathLike[str]) -> str:
    """Have another process start a container and be killed; return the container's name."""
    env = environment()
    env["PYTHONPATH"] += f":{os.fspath(checkout)}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, url, env=env, stdout=asyncio.subprocess.PIPE, cwd=checkout
    )
    written, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    return written.decode().strip()


@pytest.mark.parametrize(
    ("labels", "goes"),
    [
        ({LABEL: "another-boot 1 1 1", EXPIRY_LABEL: str(int(time.time()) - 1)}, True),
        ({LABEL: "another-boot 1 1 1", EXPIRY_LABEL: str(int(time.time()) + 3600)}, False),
        ({LABEL: "another-boot 1 1 1"}, True),
        ({LABEL: "nonsense"}, True),
        ({"somebody": "else"}, False),
    ],
    ids=["its time is over", "another machine's, alive", "no time", "nonsense", "not ours"],
)
async def test_the_sweeper_tells_leftovers_from_what_is_in_use(
    image: str, docker_engine: DockerEngine, labels: dict[str, str], goes: bool
) -> None:
    configuration = {**CONFIGURATION, "Labels": labels}
    name = f"firebox-sweeper-{os.getpid()}-{time.monotonic_ns()}"
    docker_engine.call("POST", f"/containers/create?name={name}", configuration)
    try:
        async with containers_at(docker_engine.url):
            names = [container["Names"][0].removeprefix("/") for container in docker_engine.get("/containers/json?all=true")]
            assert (name not in names) == goes
    finally:
        if not goes:
            docker_engine.call("DELETE", f"/containers/{name}?force=true")


async def test_the_sweeper_leaves_what_runs_alone(containers: Containers, docker_engine: DockerEngine) -> None:
    async with containers.submit(ENDLESS) as started:
        output = output_of(started)
        await anext(output)
        async with containers_at(docker_engine.url):
            assert docker_engine.get(f"/containers/{name_of(started)}/json")["State"]["Running"]


@pytest.mark.parametrize("url", ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:1"])
async def test_an_address_where_nobody_is_refuses_at_once(url: str) -> None:
    async with containers_at(url) as containers:
        with pytest.raises(PartUnavailable):
            await run(containers, ENDLESS)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n[]",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"SSH-2.0-nonsense\r\n",
        b"",
    ],
    ids=["no JSON", "wrong JSON", "an error without words", "no type", "another protocol", "nothing"],
)
async def test_something_that_is_no_engine_is_an_error_and_no_bug(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        engine = ContainerEngine(f"tcp://127.0.0.1:{port}")
        with pytest.raises((PartUnavailable, ContainerError)):
            await engine.list_labelled(LABEL)
        await engine.close()


def test_the_configuration_gives_nothing_away() -> None:
    configuration = CONFIGURATION
    host = configuration["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert "CapAdd" not in host
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"] == "none"
    assert host["MemorySwap"] == host["Memory"] > 0
    assert not host["Privileged"]
    assert "Binds" not in host
    assert json.dumps(configuration)
