"""Sandboxes for tests: every promise is tested as root and rootless, where both are possible.

`sandbox_kind` parametrises: `root` uses the launcher with root's powers, `rootless` starts the same launcher as an ordinary
user. In a guest that runs the suite as an ordinary user only `rootless` exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.launcher import launcher_start
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.spec import Command, Exit, InputFile, Output, SandboxSpec, Started, StreamName
from tests.sandbox.leftovers import Holdings, descendants_of, groups_of, holdings_of, is_gone
from tests.support.waiting import until

SOURCE = Path(__file__).resolve().parents[2] / "src"
ORDINARY_USER = (65533, 65533)
IS_ROOT = os.geteuid() == 0
KINDS = ("root", "rootless") if IS_ROOT else ("rootless",)
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/firebox", "LANG": "C.UTF-8", "TMPDIR": "/tmp"}
PYTHON = "/usr/bin/python3"

# Another launcher for all tests of sandboxes, such as one that checks itself: `make test-sanitized`.
launcher_start.LAUNCHER = os.path.abspath(os.environ.get("FIREBOX_TEST_LAUNCHER", launcher_start.LAUNCHER))


@dataclass
class Outcome:
    """The result of a run, for assertions."""

    exit: Exit
    stdout: bytes
    stderr: bytes
    artifacts: dict[str, bytes] = field(default_factory=dict[str, bytes])
    skipped: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def error_text(self) -> str:
        return self.stderr.decode(errors="replace")


async def follow(
    sandbox: Sandbox,
    command: Command,
    output: Callable[[StreamName, bytes], object] = lambda _stream, _data: None,
    started: Callable[[], object] = lambda: None,
) -> Exit:
    """Run a command to its end and return how it ended. output: called with each piece. started: called once the program runs."""
    ended: Exit | None = None
    async with aclosing(sandbox.events(command)) as events:
        async for event in events:
            match event:
                case Started():
                    started()
                case Output(stream, data):
                    output(stream, data)
                case Exit():
                    ended = event
    assert ended is not None
    return ended


class Box:
    """Runs programs in sandboxes of one launcher."""

    def __init__(self, launcher: LauncherProcess, kind: str) -> None:
        self.launcher = launcher
        self.kind = kind

    @property
    def cgroups(self) -> str:
        """The version of its cgroups: "v2", "v1" or "none"."""
        return next((name.removeprefix("cgroup-") for name in self.launcher.layers if name.startswith("cgroup-")), "none")

    async def make(self, **specification: Any) -> Sandbox:
        return await self.launcher.make(SandboxSpec(**specification))

    async def run(
        self,
        *argv: str,
        files: dict[str, bytes | str] | None = None,
        collect: list[str] | None = None,
        specification: SandboxSpec | None = None,
        **command: Any,
    ) -> Outcome:
        """Run a command to its end and close its sandbox. command: fields of `Command`."""
        inputs = tuple(
            InputFile(name, content.encode() if isinstance(content, str) else content) for name, content in (files or {}).items()
        )
        env = {**ENVIRONMENT, **command.pop("env", {})}
        sandbox = await self.launcher.make(specification or SandboxSpec())
        streams: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        try:
            wanted = Command(argv=argv, env=env, files=inputs, wall_ms=20_000, cpu_ms=20_000)._replace(**command)
            ended = await follow(sandbox, wanted, lambda name, data: streams[name].append(data))
            outcome = Outcome(ended, b"".join(streams["stdout"]), b"".join(streams["stderr"]))
            if collect is not None:
                pack, skipped, _cpu_ms = await sandbox.collect(collect, 1 << 20, 100)
                outcome.skipped = dict(skipped)
                outcome.artifacts = {each.name: os.pread(pack.descriptor, each.size, each.offset) for each in pack.files}
                os.close(pack.descriptor)
            return outcome
        finally:
            sandbox.close()

    async def python(self, code: str, *args: str, **command: Any) -> Outcome:
        """Run Python code from a file, as a user's program would be."""
        files = {**command.pop("files", {}), "main.py": code}
        return await self.run(PYTHON, "main.py", *args, files=files, **command)

    async def shell(self, script: str, **command: Any) -> Outcome:
        return await self.run("/bin/sh", "-c", script, **command)


def launcher_of(kind: str) -> LauncherProcess:
    """Return a launcher of a kind, not started."""
    return LauncherProcess(run_as=ORDINARY_USER if kind == "rootless" and IS_ROOT else None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test during which a sanitizer reported an error in any process."""
    report = yield
    if report.passed and re.search(r"native/\w+\.[ch]:[\d:]+ runtime error: |ERROR: AddressSanitizer", report.capstderr):
        report.outcome = "failed"
        report.longrepr = "a sanitizer reported an error in the launcher or in PID 1"
    return report


@pytest.fixture(params=KINDS)
def sandbox_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def own_box(sandbox_kind: str) -> AsyncIterator[Box]:
    """A launcher for one test, which may kill it. It must leave nothing behind."""
    launcher = launcher_of(sandbox_kind)
    await launcher.start()
    yield Box(launcher, sandbox_kind)
    await close(launcher)


async def close(launcher: LauncherProcess) -> None:
    """End a launcher and check that nothing is left of it."""
    pid = launcher.pid
    assert pid is not None
    processes = descendants_of(pid)
    await asyncio.wait_for(launcher.close(), 30)
    assert not os.path.exists(f"/proc/{pid}")
    assert groups_of(pid) == []
    await until(lambda: all(map(is_gone, processes)))


@pytest.fixture(scope="session")
def shared_launchers() -> Iterator[dict[str, LauncherProcess]]:
    """One launcher of each kind, started by the first test that needs it. Between tests no event loop listens to it."""
    launchers: dict[str, LauncherProcess] = {}
    yield launchers
    for launcher in launchers.values():
        asyncio.run(close(launcher))


@pytest.fixture
async def box(sandbox_kind: str, shared_launchers: dict[str, LauncherProcess]) -> AsyncIterator[Box]:
    """The launcher that tests share, like the runs of a server. Each test leaves it unchanged."""
    launcher = shared_launchers.pop(sandbox_kind, None)  # it comes back if all is well
    loop = asyncio.get_running_loop()
    if launcher is None:
        launcher = launcher_of(sandbox_kind)
        await launcher.start()
    else:
        assert launcher._link is not None
        loop.add_reader(launcher._link, launcher._receive)
        launcher.watcher = Watcher()
    pid = launcher.pid
    assert pid is not None
    before = holdings_of(pid)
    yield Box(launcher, sandbox_kind)
    try:
        await _let_go(launcher)
        assert (launcher.pid, launcher.starts) == (pid, 1), "a test that ends its launcher wants own_box"
        await _until_it_holds(pid, before)
    except BaseException:
        await launcher.close()
        raise
    assert launcher._link is not None
    loop.remove_reader(launcher._link)
    launcher.watcher.close()
    shared_launchers[sandbox_kind] = launcher


async def _let_go(launcher: LauncherProcess) -> None:
    """Close the sandboxes that a test left open."""
    launcher._run_deferred()
    for number in list(launcher._alive):
        launcher.end(number)
    await until(lambda: launcher.alive == 0, "the sandboxes of a test end")


async def _until_it_holds(pid: int, before: Holdings) -> None:
    with contextlib.suppress(TimeoutError):
        await until(lambda: holdings_of(pid) == before)
    assert holdings_of(pid) == before


@pytest.fixture
async def nothing_left(box: Box) -> AsyncIterator[None]:
    """Check that the launcher holds the same processes, cgroups, mounts and descriptors after the test as before."""
    pid = box.launcher.pid
    assert pid is not None
    before = holdings_of(pid)
    yield
    await until(lambda: box.launcher.alive == 0, "the sandboxes of a test end by themselves")  # one may still be in the making
    await _until_it_holds(pid, before)
