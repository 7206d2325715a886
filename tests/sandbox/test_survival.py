"""Whoever is killed, nothing is left: processes, control groups, folders; and what comes next works."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firebox.sandbox.launcher_process import LauncherProcess
from firebox.sandbox.spec import Command, SandboxFailure, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, IS_ROOT, SOURCE, Box, launcher_of

SERVER = """
import asyncio, sys
from firebox.sandbox.launcher_process import LauncherProcess
from firebox.sandbox.spec import Command, SandboxSpec

async def main():
    launcher = LauncherProcess()
    await launcher.start()
    sandbox = await launcher.make(SandboxSpec())
    command = Command(argv=("/bin/sh", "-c", "sleep 600 & echo up; sleep 600"), env={"PATH": "/bin"}, wall_ms=600_000)
    await sandbox.run(command, lambda _stream, data: print(launcher.pid, sandbox.pid, flush=True))

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    """Tell whether a process exists and is more than a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def groups_of(launcher_pid: int) -> list[Path]:
    """Find the control groups of a launcher."""
    walked = (Path(folder) / name for folder, names, _ in os.walk("/sys/fs/cgroup") for name in names)
    return [path for path in walked if path.name.startswith("firebox-") and path.name.split("-")[2:3] == [str(launcher_pid)]]


async def until_gone(*pids: int) -> None:
    """Wait until processes have ended; the test's time limit bounds it."""
    while any(map(alive, pids)):
        await asyncio.sleep(0.01)


async def until_no_groups(launcher_pid: int) -> None:
    while groups_of(launcher_pid):
        await asyncio.sleep(0.01)


async def run_server() -> tuple[asyncio.subprocess.Process, int, int]:
    """Start a process that runs a program in a sandbox. Returns it, its launcher's pid and the sandbox's."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    assert server.stdout is not None
    launcher_pid, sandbox_pid = map(int, (await server.stdout.readline()).split())
    return server, launcher_pid, sandbox_pid


async def test_a_killed_launcher_is_a_clear_failure_and_the_next_sandbox_works(box: Box) -> None:
    sandbox = await box.make()
    heard = asyncio.Event()
    command = Command(argv=("/bin/sh", "-c", "echo up; sleep 600"), env=ENVIRONMENT, wall_ms=600_000)
    running = asyncio.create_task(sandbox.run(command, lambda *_: heard.set()))
    await heard.wait()
    launcher_pid = box.launcher.pid
    assert launcher_pid is not None
    os.kill(launcher_pid, signal.SIGKILL)
    with pytest.raises(SandboxFailure):
        await running
    sandbox.close()
    await until_gone(sandbox.pid)
    assert (await box.run("/bin/echo", "again")).text == "again\n"
    assert box.launcher.starts == 2
    if box.launcher.cgroups != "none":
        await until_no_groups(launcher_pid)  # swept by the second launcher


async def test_attack_100_a_killed_server_takes_everything_with_it() -> None:
    server, launcher_pid, sandbox_pid = await run_server()
    server.kill()
    await server.wait()
    await until_gone(launcher_pid, sandbox_pid)
    await until_no_groups(launcher_pid)


async def test_attack_100_server_and_launcher_killed_at_once_are_swept_by_the_next(readable_source: str) -> None:
    server, launcher_pid, sandbox_pid = await run_server()
    os.kill(launcher_pid, signal.SIGKILL)
    server.kill()
    await server.wait()
    await until_gone(launcher_pid, sandbox_pid)
    launcher = launcher_of("root" if IS_ROOT else "rootless", readable_source)
    await launcher.start()
    assert groups_of(launcher_pid) == []
    await launcher.close()


async def test_no_descriptors_left_is_a_clear_failure_that_passes(box: Box) -> None:
    kept: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        while True:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for _ in range(3):  # room for a few, not for a sandbox
            os.close(kept.pop())
    try:
        with pytest.raises(SandboxFailure):
            await box.launcher.make(SandboxSpec())
    finally:
        for descriptor in kept:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await box.run("/bin/echo", "again")).text == "again\n"


async def test_closing_ends_what_runs(sandbox_kind: str, readable_source: str) -> None:
    launcher = launcher_of(sandbox_kind, readable_source)
    await launcher.start()
    sandbox = await launcher.make(SandboxSpec())
    heard = asyncio.Event()
    command = Command(argv=("/bin/sh", "-c", "echo up; sleep 600"), env=ENVIRONMENT, wall_ms=600_000)
    running = asyncio.create_task(sandbox.run(command, lambda *_: heard.set()))
    await heard.wait()
    pid = launcher.pid
    assert pid is not None
    await launcher.close()
    with pytest.raises(SandboxFailure):
        await running
    sandbox.close()
    await until_gone(pid, sandbox.pid)
    assert groups_of(pid) == []


async def test_a_host_that_allows_nothing_says_which_step_failed() -> None:
    launcher = LauncherProcess(python="/bin/false")
    with pytest.raises(SandboxFailure):
        await launcher.start()
    await launcher.close()
