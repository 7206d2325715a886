"""Failures across components: disconnected clients, an unavailable database, a killed server."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from websockets.sync.client import connect

from firebox.doors.runner.proto.runner_pb2 import CodeRequest
from tests.conftest import require_tool
from tests.doors.doors import ADMIN_TOKEN, glot_user, run_code
from tests.piston.health import health
from tests.support.guarded import free_port, new_folder
from tests.support.server import (
    RunningServer,
    data_folder,
    environment,
    run_firebox,
    running_server,
    unused_uid_base,
)
from tests.support.services import DockerEngine, PostgresServer
from tests.support.waiting import wait_until

LONG = "200s"
STAYS = {
    **{f"FIREBOX_{clock}": LONG for clock in ("RUN_WALL_MS", "DOCKER_RUN_TIMEOUT_MS", "GROUNDS_WALL_MS", "RUNNER_TIMEOUT_MS")},
    **{f"FIREBOX_MAX_RUN_{limit}_MS": "0" for limit in ("WALL", "CPU")},
    "FIREBOX_ADMIN_TOKEN": ADMIN_TOKEN,
}


def sleeper(mark: str) -> str:
    """A Bash program that can be found among all processes, and so can its child."""
    return f"(exec -a {mark} sleep 100000) & exec -a {mark} sleep 100000"


def alive(mark: str) -> int:
    """Return how many processes of this machine are that program."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            count += entry.read_bytes().startswith(mark.encode() + b"\0")
    return count


@pytest.fixture
def mark() -> str:
    return f"sleeper-{uuid4().hex}"


@pytest.fixture(scope="module")
def lasting_server() -> Iterator[RunningServer]:
    """A server whose programs may run for longer than any test."""
    with running_server("--grpc-port", "0", "--slots", "2", env=STAYS) as started:
        yield started


class Client(ABC):
    """A client of a door that starts a program and then disconnects, abruptly if possible."""

    name: str

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.stack = ExitStack()

    @abstractmethod
    def ask(self, code: str) -> None:
        """Start the program, without waiting for its end."""

    @abstractmethod
    def vanish(self) -> None: ...


class HttpClient(Client):
    """A request whose response is not awaited."""

    def ask(self, code: str) -> None:
        path, body = self.request(code)
        data = json.dumps(body).encode()
        self.connection = self.server.connect()
        headers = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": len(data), **self.headers()}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)

    def vanish(self) -> None:
        self.connection.close()

    def headers(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    def request(self, code: str) -> tuple[str, Any]: ...


class Native(HttpClient):
    name = "native"

    def request(self, code: str) -> tuple[str, Any]:
        return "/api/v1/runs", {"language": "bash", "code": code}


class Piston(HttpClient):
    name = "piston"

    def request(self, code: str) -> tuple[str, Any]:
        return "/api/v2/execute", {"language": "bash", "version": "*", "files": [{"content": code}]}


class Glot(HttpClient):
    name = "glot-run"
    path = "/languages/bash/latest"

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Token {glot_user(self.server)}"}

    def request(self, code: str) -> tuple[str, Any]:
        return self.path, {"files": [{"name": "main.sh", "content": code}]}


class RunnerGateway(HttpClient):
    name = "runner-gateway"

    def request(self, code: str) -> tuple[str, Any]:
        return "/run", {"language": "bash", "code": code}


class PistonLive(Client):
    name = "piston-websocket"

    def ask(self, code: str) -> None:
        url = self.server.url.replace("http://", "ws://") + "/api/v2/connect"
        self.connection = self.stack.enter_context(connect(url, proxy=None))
        self.connection.send(json.dumps({"type": "init", "language": "bash", "version": "*", "files": [{"content": code}]}))

    def vanish(self) -> None:
        self.connection.socket.shutdown(socket.SHUT_RDWR)
        self.stack.close()


class NativeLive(Client):
    name = "native-websocket"

    def ask(self, code: str) -> None:
        self.connection = self.stack.enter_context(connect(self.server.live_url, proxy=None))
        self.connection.send(json.dumps({"type": "start", "language": "bash", "code": code}))

    def vanish(self) -> None:
        self.connection.socket.shutdown(socket.SHUT_RDWR)
        self.stack.close()


class Grounds(Client):
    """In a process of its own, which is killed."""

    name = "grounds-exec"
    program = """
import asyncio, socketio, sys
async def main():
    async with socketio.AsyncSimpleClient() as client:
        await client.connect(sys.argv[1], transports=["websocket"])
        await client.emit("run", {"language": "bash", "code": sys.argv[2]})
        await asyncio.Event().wait()
asyncio.run(main())
"""

    def ask(self, code: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", self.program, self.server.url, code])

    def vanish(self) -> None:
        self.process.kill()
        self.process.wait()


class RunnerGrpc(Client):
    name = "runner-grpc"

    def ask(self, code: str) -> None:
        self.channel = grpc.insecure_channel(self.server.ready["grpc"])
        self.call = run_code(self.channel).future(CodeRequest(code=code, language="bash"))

    def vanish(self) -> None:
        self.channel.close()


class Stdio(Client):
    name = "rce-runner"

    def ask(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "firebox.cli.one_request.rce_runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment({**STAYS, "FIREBOX_DATA_DIR": str(data_folder()), "FIREBOX_UID_BASE": str(unused_uid_base())}),
        )
        assert self.process.stdin is not None
        request = {"language": "bash", "files": [{"name": "main.sh", "content": code}]}
        self.process.stdin.write(json.dumps(request).encode())
        self.process.stdin.close()

    def vanish(self) -> None:
        self.process.kill()
        self.process.wait()


CLIENTS = (Native, NativeLive, Piston, PistonLive, Glot, Grounds, RunnerGrpc, RunnerGateway, Stdio)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_that_vanishes_leaves_no_process(lasting_server: RunningServer, client: type[Client], mark: str) -> None:
    one = client(lasting_server)
    one.ask(sleeper(mark))
    try:
        wait_until(lambda: alive(mark) == 2)
    finally:
        one.vanish()
    wait_until(lambda: alive(mark) == 0)
    wait_until(lambda: health(lasting_server)["in_flight"] == 0)


def start_and_fail(*flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Start a server that cannot start. It exits by itself."""
    own = ("--port", "0", "--no-prepare-toolchains", "--data-dir", str(data_folder()))
    return run_firebox("serve", *own, *flags, env={**env, "FIREBOX_UID_BASE": str(unused_uid_base())}, timeout_s=200)


def test_a_server_without_its_database_reports_it_and_exits() -> None:
    folder = new_folder("nothing")
    address = f"127.0.0.1:{free_port(folder)}"
    (folder / "port").unlink()
    folder.rmdir()
    done = start_and_fail(FIREBOX_DATABASE_URL=f"postgresql://firebox:hunter2@{address}/firebox")
    assert done.returncode != 0
    assert done.stdout == "", "it never said that it is ready"
    assert "database" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_rejected_by_its_database_reports_it_and_exits(postgres_url: str) -> None:
    head, _, tail = postgres_url.partition("@")
    wrong = f"{head.rpartition(':')[0]}:hunter2@{tail}"
    done = start_and_fail(FIREBOX_DATABASE_URL=wrong)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "database" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_database_that_goes_and_comes_back_leaves_runs_alone_and_is_found_again() -> None:
    with PostgresServer() as postgres, postgres.database() as url:
        env = {"FIREBOX_DATABASE_URL": url, "FIREBOX_ADMIN_TOKEN": ADMIN_TOKEN}
        with running_server("--grpc-port", "0", env=env) as server, whole_client(server) as client:
            number = share(client)
            postgres.kill()
            run = client.post("/api/v2/execute", json={"language": "bash", "version": "*", "files": [{"content": "echo on"}]})
            assert run.json()["run"]["stdout"] == "on\n", "a run without a user needs no database"
            refused = client.get("/admin/users")
            assert refused.status_code == 503, refused.text
            refused = client.post("/share", json={"code": "echo 1", "language": "bash"})
            assert refused.status_code == 503, refused.text
            assert health(server)["status"] == "ok"
            postgres.start()
            assert client.get("/admin/users").json() == []
            assert client.get(f"/shared/{number}").json()["output"] == "kept\n"


def whole_client(server: RunningServer) -> httpx.Client:
    headers = {"Authorization": f"Token {ADMIN_TOKEN}"}
    return httpx.Client(base_url=server.url, timeout=120, trust_env=False, headers=headers)


def share(client: httpx.Client) -> str:
    answer = client.post("/share", json={"code": "echo kept", "language": "bash"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


WAITER = """
#include <unistd.h>
int main(void) { for (;;) pause(); }
"""


def waiting_image(folder: Path) -> bytes:
    """The archive of an image that follows glot-run's contract but never responds."""
    (folder / "wait.c").write_text(WAITER)
    subprocess.run([require_tool("gcc"), "-static", "-o", folder / "wait", folder / "wait.c"], check=True)
    users = b"root:x:0:0::/:/bin/sh\nglot:x:1000:1000::/home/glot:/bin/sh\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        made.add(folder / "wait", "home/glot/runner")
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(users)
        made.addfile(entry, io.BytesIO(users))
    return archive.getvalue()


@pytest.mark.slow
def test_a_server_killed_at_work_leaves_nothing_that_its_successor_does_not_clear(
    tmp_path: Path, mark: str, postgres_url: str, redis_url: str
) -> None:
    with DockerEngine() as engine:
        engine.call("POST", "/images/create?fromSrc=-&repo=waiter&tag=1", waiting_image(tmp_path))
        env = {
            **STAYS,
            "FIREBOX_DATABASE_URL": postgres_url,
            "FIREBOX_REDIS_URL": redis_url,
            "FIREBOX_DOCKER_URL": engine.url,
            "FIREBOX_ADMIN_TOKEN": ADMIN_TOKEN,
        }
        with running_server(env=env) as server, whole_client(server) as client:
            body = {"name": "wait", "version": "latest", "image": "waiter:1"}
            assert client.put("/admin/languages", json=body).status_code == 200
            number = share(client)
            in_container, in_sandbox = Glot(server), Native(server)
            in_container.path = "/languages/wait/latest"
            in_container.ask("any")
            users = client.get("/admin/users").json()
            in_sandbox.ask(sleeper(mark))
            wait_until(lambda: len(engine.get("/containers/json")) == 1 and alive(mark) == 2)
            server.process.kill()
            server.process.wait()
            in_container.vanish()
            in_sandbox.vanish()
        wait_until(lambda: alive(mark) == 0)
        assert len(engine.get("/containers/json")) == 1, "the engine does not know that its client is gone"

        with running_server(env=env) as server, whole_client(server) as client:
            wait_until(lambda: engine.get("/containers/json?all=true") == [])
            assert [each["id"] for each in client.get("/admin/users").json()] == [each["id"] for each in users] != []
            assert [each["name"] for each in client.get("/languages").json()] == ["wait"]
            assert client.get(f"/shared/{number}").json()["output"] == "kept\n"
            run = client.post("/api/v2/execute", json={"language": "bash", "version": "*", "files": [{"content": "echo on"}]})
            assert run.json()["run"]["stdout"] == "on\n"
            assert server.stop() == 0
