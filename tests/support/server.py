"""A real server for tests: `firebox serve` in a process of its own, on a free port."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from firebox.settings.settings_table import TABLE
from tests.support.command import Command, run_command

SOURCE = Path(__file__).resolve().parents[2] / "src"
UIDS_OF_A_SERVER = 4096
START_S = 100
"""So long may a server take until it answers, on a machine that is busy."""

_numbers = count()


@dataclass
class RunningServer:
    """A server that answers. ready: the line it printed; log: where its standard error goes."""

    ready: dict[str, Any]
    process: subprocess.Popen[str]
    log: Path

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    @property
    def live_url(self) -> str:
        return self.url.replace("http://", "ws://") + "/api/v1/runs/live"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.url}/api/v1", timeout=60, trust_env=False)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=60)

    def stop(self) -> int:
        """Stop it as an operator would; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a `firebox` that is started by a test: this one's, without the settings of the developer."""
    others = {"CONFIG_PATH", *(alias.name for row in TABLE for alias in row.aliases)}
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("FIREBOX_", "PISTON_")) and name not in others
    }
    return {**kept, "PYTHONPATH": str(SOURCE), **(extra or {})}


def firebox(*arguments: str) -> list[str]:
    """The command line of `firebox`, for tests of how it starts. The others have `run_firebox`, which is quicker."""
    return [sys.executable, "-m", "firebox", *arguments]


def run_firebox(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "", cwd: Path | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `firebox` as `subprocess.run` would, with text. env: settings for it."""
    command = ["firebox.cli.main", *arguments]
    return run_command(command, env=environment(env), stdin=stdin, cwd=cwd, timeout_s=timeout_s, text=True)


def unused_uid_base() -> int:
    """First of a range of user ids that no other server of this test run uses, whichever process starts it."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return 400_000 + (worker * 1000 + next(_numbers)) * UIDS_OF_A_SERVER


@cache
def data_folder() -> Path:
    """One data folder for all servers of this process: what it remembers of the host's tools makes the next start quick."""
    folder = tempfile.mkdtemp(prefix="firebox-test-data-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@contextmanager
def running_server(*flags: str, env: Mapping[str, str] | None = None, forked: bool = True) -> Generator[RunningServer]:
    """Start a server, wait for its line, and stop it in the end. forked: False starts it as a user would, which is slow."""
    with tempfile.TemporaryDirectory(prefix="firebox-test-") as folder:
        log = Path(folder) / "log"
        data = data_folder()
        with log.open("w") as errors:
            own = ("--port", "0", "--no-prepare-toolchains", "--data-dir", str(data), "--uid-base", str(unused_uid_base()))
            process = (Command[str] if forked else subprocess.Popen[str])(
                [*(["firebox.cli.main"] if forked else firebox()), "serve", *own, *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(env),
                text=True,
            )
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_S)
            line = process.stdout.readline() if ready else ""
            assert line, f"the server did not start within {START_S} s: {log.read_text()}"
            yield RunningServer(json.loads(line), process, log)
        finally:
            try:
                _stop(process)
            finally:
                process.kill()
                if process.stdout is not None:
                    process.stdout.close()


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask it to stop, and, when it waits for programs that a test left behind, not to wait for them."""
    for patience_s in (1, 60):
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=patience_s)
    assert process.poll() is not None, "the server did not stop within a minute"


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """One server for all tests of this process that need nothing special."""
    with running_server("--slots", "4", "--max-body-bytes", "4MiB", "--queue-length", "8") as started:
        yield started


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    """A client of the shared server's native API."""
    with server.client() as opened:
        yield opened


@pytest.fixture
def start_server() -> Iterator[Callable[..., RunningServer]]:
    """Start servers with flags of one's own; they stop with the test."""
    started: list[Any] = []

    def start(*flags: str, env: Mapping[str, str] | None = None, forked: bool = True) -> RunningServer:
        context = running_server(*flags, env=env, forked=forked)
        started.append(context)
        return context.__enter__()

    yield start
    for context in reversed(started):
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def kept_server() -> Iterator[Callable[..., RunningServer]]:
    """Servers with flags of one's own for tests that leave them as they found them: the same flags give the same server."""
    with ExitStack() as stack:
        kept: dict[str, RunningServer] = {}

        def get(*flags: str, env: Mapping[str, str] | None = None) -> RunningServer:
            key = repr((flags, env))
            if key not in kept:
                kept[key] = stack.enter_context(running_server(*flags, env=env))
            return kept[key]

        yield get
