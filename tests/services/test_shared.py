"""The services that tests run against: shared by workers, separate for tests, and gone with their last user."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, require_tool
from tests.support.services import DockerEngine, Guarded, PostgresServer, RedisServer, ServiceFailed

TOLD_S = 120
ENDED_S = 60

CONFTEST = """
import json, os, pytest, socket, struct

@pytest.fixture
def tell():
    def tell(*facts):
        # One write of a short line to a pipe is never torn.
        with open(os.environ["TOLD"], "ab", buffering=0) as pipe:
            pipe.write(json.dumps(facts).encode() + b"\\n")
    return tell

@pytest.fixture
def guardian():
    def guardian(service):
        with type(service)(shared=service.shared) as joined:
            peer = joined._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.unpack("3i", peer)[0]
    return guardian
"""
TWO_TESTS = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_a(number, postgres_url, redis_url, postgres_server, redis_server, tell):
    tell([postgres_url, redis_url], [str(postgres_server.folder), str(redis_server.folder)])
"""
STAYS = """
import signal

def test_it(SERVICE, guardian, tell):
    tell(str(SERVICE.folder), guardian(SERVICE))
    signal.pause()
"""
FAILS = """
def test_it(redis_url):
    assert redis_url == ""
"""


class Suite:
    """A folder with tests of its own, which use the fixtures as any test does. `heard`: what they told so far."""

    def __init__(self, folder: Path, pipe: int) -> None:
        self.folder = folder
        self.pipe = pipe
        self.heard: list[Any] = []

    def start(self, tests: str, *arguments: str) -> subprocess.Popen[str]:
        (self.folder / "test_it.py").write_text(tests)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.services", "-p", "no:cacheprovider"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        return subprocess.Popen(
            [*command, f"--rootdir={self.folder}", "--import-mode=importlib", *arguments, str(self.folder)],
            env={**kept, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "TOLD": str(self.folder / "told")},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def hear(self) -> Any:
        """Wait for the next thing a test of the suite tells."""
        if not self.heard:
            assert select.select([self.pipe], [], [], TOLD_S)[0], "no test of the suite told anything"
            self.heard = [json.loads(line) for line in os.read(self.pipe, 65536).splitlines()]
        return self.heard.pop(0)


@pytest.fixture
def suite(tmp_path: Path) -> Any:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    os.mkfifo(tmp_path / "told")
    # Open for both, so that it never ends.
    pipe = os.open(tmp_path / "told", os.O_RDWR)
    yield Suite(tmp_path, pipe)
    os.close(pipe)


def leftovers(folder: str) -> list[str]:
    """What names the folder of a service: processes, mounts, cgroups, the folder itself."""
    name = Path(folder).name
    found = [str(path) for path in (Path(folder), *Path("/sys/fs/cgroup").glob(f"*/{name}")) if path.exists()]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if name in command:
            found.append(command)
    return found


def wait_for_the_end_of(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], ENDED_S)[0], f"process {pid} goes on"
    finally:
        os.close(descriptor)


@pytest.mark.slow
def test_workers_share_one_instance_and_each_test_has_a_database_of_its_own(
    suite: Suite, postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    run = suite.start(TWO_TESTS, "-n", "2")
    output, _ = run.communicate(timeout=TOLD_S)
    assert run.returncode == 0, output
    (first_urls, first_folders), (second_urls, second_folders) = suite.hear(), suite.hear()
    assert first_folders == second_folders
    assert len({*first_urls, *second_urls}) == 4
    assert str(postgres_server.folder) not in first_folders, "another test run has instances of its own"
    for folder in first_folders:
        assert leftovers(folder) == []


@pytest.mark.parametrize("arguments", [(), ("-n", "1")], ids=["alone", "worker"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("fixture", ["postgres_server", "redis_server", "docker_engine"])
def test_nothing_is_left_however_a_test_run_ends(
    suite: Suite,
    fixture: str,
    number: signal.Signals,
    arguments: tuple[str, ...],
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue(fixture)  # Skips where this service cannot run.
    run = suite.start(STAYS.replace("SERVICE", fixture), *arguments)
    try:
        folder, guardian = suite.hear()
        assert leftovers(folder), "the service runs"
        os.killpg(run.pid, number)
        run.communicate(timeout=ENDED_S)
        wait_for_the_end_of(guardian)
        assert leftovers(folder) == []
    finally:
        run.kill()


def test_a_failed_test_shows_what_the_service_wrote(suite: Suite, redis_server: RedisServer) -> None:
    output, _ = suite.start(FAILS).communicate(timeout=TOLD_S)
    assert "log of redis" in output
    assert "eady to accept connections" in output


def test_a_service_that_does_not_start_says_why(tmp_path: Path) -> None:
    class Wrong(RedisServer):
        def recipe(self, folder: Path) -> dict[str, Any]:
            return {**super().recipe(folder), "command": [require_tool("redis-server"), "--port", "nonsense"]}

    with pytest.raises(ServiceFailed, match=r"(?s)ended with status 1; it wrote:.*nonsense"), Wrong():
        pass


Kind = Callable[[], Guarded]


@pytest.mark.parametrize("kind", [PostgresServer, RedisServer, DockerEngine], ids=lambda kind: kind.kind)
def test_a_killed_service_answers_at_the_same_address_when_it_is_started_again(kind: Kind) -> None:
    with kind() as service:
        address = "socket" if isinstance(service, DockerEngine) else "port"
        before = service.facts[address]
        assert answers(service)
        service.kill()
        assert not answers(service)
        service.start()
        assert service.facts[address] == before
        assert answers(service)
        service.stop()
        assert not answers(service)
        service.start()
        assert answers(service)
    assert leftovers(str(service.folder)) == []


def answers(service: Guarded) -> bool:
    try:
        if isinstance(service, PostgresServer):
            return service.sql("SELECT 42") == "42"
        if isinstance(service, RedisServer):
            return service.command("PING") == "PONG"
        assert isinstance(service, DockerEngine)
        return bool(service.get("/version")["ApiVersion"])
    except (ServiceFailed, OSError):
        return False


def sleeper() -> bytes:
    """The archive of an image with nothing but `/bin/sleep` and its libraries."""
    program = require_tool("sleep")
    libraries = re.findall(r"/\S+", subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as made:
        made.add(os.path.realpath(program), "bin/sleep")
        for library in libraries:
            made.add(library, library)
    return archive.getvalue()


def test_containers_outlive_a_killed_engine_and_end_with_the_test() -> None:
    with DockerEngine() as engine:
        engine.call("POST", "/images/create?fromSrc=-&repo=sleeper&tag=1", sleeper())
        body = {"Image": "sleeper:1", "Cmd": ["/bin/sleep", "987654"], "HostConfig": {"NetworkMode": "none"}}
        made = engine.call("POST", "/containers/create", body)["Id"]
        engine.call("POST", f"/containers/{made}/start")
        assert made in "".join(leftovers_of_containers())
        engine.kill()
        assert made in "".join(leftovers_of_containers()), "what minds the container goes on, as on a real machine"
    assert made not in "".join(leftovers_of_containers())
    assert leftovers(str(engine.folder)) == []


def leftovers_of_containers() -> list[str]:
    """The command lines of the processes that mind containers."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_text()
        except OSError:
            continue
        if "containerd-shim" in command:
            found.append(command)
    return found
