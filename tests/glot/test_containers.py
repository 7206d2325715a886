"""The protocol of image programs, and failures of images, engines and clients."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.containers.conftest import wait_for
from tests.glot.conftest import ADMIN_TOKEN, Glot, client_of, files
from tests.support.images import glot_image
from tests.support.server import RunningServer, running_server
from tests.support.services import DockerEngine

pytestmark = pytest.mark.slow

RUN = "/languages/probe/1"
RUNNER = b"""#!/usr/bin/python3 -IS
import json, os, sys
request = json.load(sys.stdin)
exec(request["files"][0]["content"])
"""


@cache
def probe_image(engine: DockerEngine) -> str:
    """An image whose program does what the first file says, instead of running it as another user."""
    name = f"firebox-test/probe-{os.getpid()}"
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        member = tarfile.TarInfo("runner")
        member.size, member.mode = len(RUNNER), 0o755
        archive.addfile(member, io.BytesIO(RUNNER))
    created = engine.call("POST", "/containers/create", {"Image": glot_image(engine.url)})["Id"]
    try:
        engine.call("PUT", f"/containers/{created}/archive?path=/home/glot", body.getvalue())
        engine.call("POST", f"/commit?container={created}&repo={name}&tag=1")
    finally:
        engine.call("DELETE", f"/containers/{created}")
    return f"{name}:1"


@pytest.fixture
def probe(contained: Glot, docker_engine: DockerEngine) -> Glot:
    """A server where `probe 1` is that image."""
    register(contained, probe_image(docker_engine))
    return contained


def register(glot: Glot, image: str, version: str = "1") -> None:
    answer = glot.admin.put("/admin/languages", json={"name": "probe", "version": version, "image": image})
    assert answer.status_code == 200, answer.text


def test_image_programs_get_the_documented_input(probe: Glot) -> None:
    code = """
import pwd, socket
found = {"request": request, "user": pwd.getpwuid(os.getuid()).pw_name, "host": socket.gethostname(), "program": sys.argv[0],
         "rest": sys.stdin.read()}
print(json.dumps({"stdout": json.dumps(found), "stderr": "", "error": ""}))
"""
    body = {"files": [{"name": "a.x", "content": code, "more": 1}, {"name": "b/c", "content": "é"}], "stdin": "input", "other": 2}
    answer = probe.user.post(RUN, json=body)
    assert answer.status_code == 200, answer.text
    found = json.loads(answer.json()["stdout"])
    assert found == {
        "request": {
            "language": "probe",
            "files": [{"name": "a.x", "content": code}, {"name": "b/c", "content": "é"}],
            "stdin": "input",
            "command": "",
        },
        "user": "glot",
        "host": "glot-runner",
        "program": "/home/glot/runner",
        "rest": "",
    }


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.exit('words of the container')", "words of the container"),
        ("pass", "the program of the image gave no answer"),
        ("sys.exit(3)", "the program of the image gave no answer (exit status 3)"),
        ("os.kill(os.getpid(), 9)", "the program of the image gave no answer"),
        ("print('{')", "the program of the image gave no valid answer"),
        ("print('[]')", "the program of the image gave no valid answer"),
        ("print('{}')", "the program of the image gave no valid answer"),
        ("""print('{"stdout": 1, "stderr": "", "error": ""}')""", "the program of the image gave no valid answer"),
        ("""print('{"stdout": "", "stderr": "", "error": ""}' * 2)""", "the program of the image gave no valid answer"),
        ("print('[' * 4000)", "the program of the image gave no valid answer"),
        ("data = b'x' * (2 << 30)", "the program of the image gave no answer"),
    ],
    ids=["words", "silence", "exit", "signal", "half", "list", "empty", "types", "two", "deep", "memory"],
)
def test_a_container_failure_is_explained(probe: Glot, code: str, message: str) -> None:
    answer = probe.user.post(RUN, json=files(code))
    assert (answer.status_code, answer.json()["error"]) == (400, "run.failed")
    assert answer.json()["message"].startswith(message) or "MemoryError" in answer.json()["message"]


def test_bytes_that_are_no_text_are_replaced(probe: Glot) -> None:
    code = """sys.stdout.buffer.write(b'{"stdout": "\\xff", "stderr": "", "error": "", "more": 1}')"""
    answer = probe.user.post(RUN, json=files(code))
    assert (answer.status_code, answer.json()) == (200, {"stdout": "\ufffd", "stderr": "", "error": ""})


def test_an_image_that_is_not_there_is_named(contained: Glot) -> None:
    register(contained, "nobody/has-this:1", "missing")
    answer = contained.user.post("/languages/probe/missing", json=files("x"))
    body = {"error": "container", "message": "the container engine has no image nobody/has-this:1"}
    assert (answer.status_code, answer.json()) == (500, body)


def test_native_languages_run_beside_images(contained: Glot) -> None:
    register(contained, "native:python@3.x", "native")
    answer = contained.user.post("/languages/probe/native", json=files("print(1)"))
    assert (answer.status_code, answer.json()) == (200, {"stdout": "1\n", "stderr": "", "error": ""})


def test_with_an_engine_only_what_is_registered_is_served(contained: Glot) -> None:
    assert {entry["name"] for entry in contained.anonymous.get("/languages").json()} <= {"python", "probe"}


def test_without_an_engine_an_image_cannot_run(start_server: Any, tmp_path: Any) -> None:
    server = start_server("--data-dir", str(tmp_path), env={"ADMIN_TOKEN": ADMIN_TOKEN})
    for glot in clients_of(server):
        register(glot, "glot/python:latest")
        answer = glot.user.post(RUN, json=files("x"))
        assert (answer.status_code, answer.json()["error"]) == (503, "capacity.part_unavailable")
        assert answer.headers["retry-after"]


def clients_of(server: RunningServer) -> Iterator[Glot]:
    with client_of(server) as anonymous, client_of(server, ADMIN_TOKEN) as admin, client_of(server, "some-users-token") as user:
        admin.post("/admin/users", json={"token": "some-users-token"})
        yield Glot(server, anonymous, admin, user)


@contextmanager
def endless_run(glot: Glot, engine: DockerEngine) -> Generator[tuple[str, socket.socket]]:
    """Send an endless program. Return its container's name, once the engine reports that it started, and the connection."""
    body = json.dumps(files("import time; time.sleep(1000)")).encode()
    token = glot.user.headers["authorization"].encode()
    with socket.socket(socket.AF_UNIX) as events, glot.server.connect() as connection:
        events.settimeout(60)
        events.connect(str(engine.socket))
        filters = quote(json.dumps({"event": ["start"], "type": ["container"]}))
        events.sendall(f"GET /events?filters={filters} HTTP/1.0\r\n\r\n".encode())
        lines = events.makefile("r")
        assert " 200 " in lines.readline()
        connection.sendall(
            b"POST /languages/probe/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Authorization: %s\r\nContent-Length: %d\r\n\r\n%s" % (token, len(body), body)
        )
        image = glot.anonymous.get("/images").json()
        names = (
            event["Actor"]["Attributes"]["name"]
            for event in map(json.loads, filter(lambda line: line.startswith("{"), lines))
            if event["Actor"]["Attributes"]["image"] in [entry["image"] for entry in image if "probe" in entry["image"]]
        )
        yield next(names), connection


def test_a_disconnected_client_leaves_nothing_behind(probe: Glot, docker_engine: DockerEngine) -> None:
    with endless_run(probe, docker_engine) as (container, connection):
        connection.close()
        wait_for(docker_engine, container, "removed")


def test_an_engine_that_is_killed_in_the_middle_is_a_503_and_serves_again_when_it_is_back(tmp_path: Path) -> None:
    with DockerEngine() as engine:
        environment = {"ADMIN_TOKEN": ADMIN_TOKEN, "FIREBOX_DOCKER_URL": engine.url}
        with running_server("--data-dir", str(tmp_path), "--docker-run-timeout-ms", "60s", env=environment) as server:
            for glot in clients_of(server):
                register(glot, probe_image(engine))
                with endless_run(glot, engine) as (container, connection):
                    engine.kill()
                    assert connection.makefile("r").read(12) == "HTTP/1.1 503"
                assert glot.user.post(RUN, json=files("pass")).status_code == 503
                assert glot.anonymous.get("/api/v1/health").status_code == 200
                engine.start()
                wait_for(engine, container, "removed")
                answer = glot.user.post(RUN, json=files("sys.exit('back again')"))
                assert (answer.status_code, answer.json()["message"]) == (400, "back again")
                assert server.stop() == 0
        assert engine.get("/containers/json?all=true") == []


def test_a_server_that_stops_leaves_no_container(docker_engine: DockerEngine, tmp_path: Path) -> None:
    environment = {"ADMIN_TOKEN": ADMIN_TOKEN, "FIREBOX_DOCKER_URL": docker_engine.url}
    container = ""
    with running_server("--data-dir", str(tmp_path), "--docker-run-timeout-ms", "600s", env=environment) as server:
        for glot in clients_of(server):
            register(glot, probe_image(docker_engine))
            with endless_run(glot, docker_engine) as (container, connection):
                server.stop()
                assert connection.makefile("r").read(12) == "HTTP/1.1 503"
    names = [found["Names"][0].removeprefix("/") for found in docker_engine.get("/containers/json?all=true")]
    assert container
    assert container not in names
