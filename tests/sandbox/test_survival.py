"""Whichever process is killed, nothing is left: processes, cgroups, folders; and the next run works."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.launcher import launcher_start
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.plan import cgroups
from firebox.sandbox.protocol import messages
from firebox.sandbox.spec import Command, SandboxFailure, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, IS_ROOT, SOURCE, Box, follow, launcher_of
from tests.sandbox.conversation import talk
from tests.sandbox.leftovers import descendants_of, groups_of, is_gone
from tests.support.waiting import until


@pytest.fixture
def box(own_box: Box) -> Box:
    """Tests here kill their launcher."""
    return own_box


SERVER = """
import asyncio, sys
from firebox.sandbox.spec import Command, SandboxSpec
from tests.sandbox.conftest import follow, launcher_of

async def main():
    launcher = launcher_of(*sys.argv[1:])
    await launcher.start()
    heard = asyncio.Semaphore(0)
    script = "trap '' HUP INT TERM; setsid sleep 600 & sleep 600 & echo up; sleep 600"
    command = Command(argv=("/bin/sh", "-c", script), env={"PATH": "/bin"}, wall_ms=600_000)
    running = []
    for _ in range(3):
        sandbox = await launcher.make(SandboxSpec())
        running.append(asyncio.create_task(follow(sandbox, command, lambda _stream, data: heard.release())))
    ready = await launcher.make(SandboxSpec())
    for _ in running: await heard.acquire()
    print(launcher.pid, flush=True)
    await asyncio.gather(*running)

asyncio.run(main())
"""
"""A process with three running programs, some with children in sessions of their own, and an idle sandbox."""


@dataclass
class Server:
    """The process, its launcher, and all descendants."""

    process: asyncio.subprocess.Process
    launcher_pid: int
    processes: frozenset[int]

    async def is_gone(self) -> None:
        await self.process.wait()
        await until(lambda: all(map(is_gone, [self.launcher_pid, *self.processes])))


async def start_server(kind: str) -> Server:
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{SOURCE.parent}"}
    # The tests may inherit ignored signals, like background jobs of a shell.
    arguments = ("/usr/bin/env", "--default-signal=HUP,INT,TERM", sys.executable, "-c", SERVER, kind)
    process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    processes = descendants_of(pid)
    assert len(processes) >= 3 * 4 + 1  # PID 1, shell and two sleeps of each; the ready one
    return Server(process, pid, processes)


@pytest.fixture
async def server(sandbox_kind: str) -> Server:
    return await start_server(sandbox_kind)


@asynccontextmanager
async def launched(kind: str) -> AsyncGenerator[LauncherProcess]:
    launcher = launcher_of(kind)
    await launcher.start()
    try:
        yield launcher
    finally:
        await launcher.close()


async def test_a_killed_launcher_is_a_clear_failure_and_the_next_sandbox_works(box: Box) -> None:
    """Every current run fails, every process ends, and the next launcher removes what this one could not."""
    launcher_pid = box.launcher.pid
    assert launcher_pid is not None
    async with AsyncExitStack() as stack:
        runs = [await stack.enter_async_context(talk(box, "/bin/cat")) for _ in range(3)]
        for run in runs:
            await run.ask("up", b"up")
        waiting = [asyncio.create_task(box.launcher.make(SandboxSpec())) for _ in range(2)]
        processes = descendants_of(launcher_pid)
        os.kill(launcher_pid, signal.SIGKILL)
        for run in runs:
            with pytest.raises(SandboxFailure) as failure:
                await run.end()
            assert failure.value.hint
        for made in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(made, Sandbox):
                made.close()  # it was ready before the kill
            else:
                assert isinstance(made, SandboxFailure)
    await until(lambda: all(map(is_gone, processes)))
    assert (await box.run("/bin/echo", "again")).text == "again\n"
    assert box.launcher.starts == 2
    await until(lambda: groups_of(launcher_pid) == [])  # swept by the second launcher


async def test_a_killed_sandbox_is_a_clear_failure_and_touches_no_other(box: Box) -> None:
    """The host may kill PID 1 when it runs out of memory."""
    async with talk(box, "/bin/cat") as one, talk(box, "/bin/cat") as other:
        await one.ask("up", b"up")
        await other.ask("up", b"up")
        os.kill(one.sandbox.pid, signal.SIGKILL)
        with pytest.raises(SandboxFailure):
            await one.end()
        await other.ask("still there", b"still there")
    assert box.launcher.starts == 1
    assert (await box.run("/bin/echo", "again")).text == "again\n"


async def test_a_killed_idle_sandbox_is_detected(box: Box) -> None:
    sandbox = await box.make()
    assert not sandbox.is_dead
    os.kill(sandbox.pid, signal.SIGKILL)
    await until(lambda: sandbox.is_dead)
    with pytest.raises(SandboxFailure):
        await follow(sandbox, Command(("/bin/true",), ENVIRONMENT), lambda *_: None)
    sandbox.close()


async def test_attack_100_a_killed_server_takes_everything_with_it(server: Server) -> None:
    """The launcher notices, ends every sandbox and removes the cgroups by itself, without another launcher."""
    server.process.kill()
    await server.is_gone()
    await until(lambda: groups_of(server.launcher_pid) == [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_server_that_ends_by_a_signal_leaves_nothing(server: Server, number: signal.Signals) -> None:
    server.process.send_signal(number)
    await server.is_gone()
    await until(lambda: groups_of(server.launcher_pid) == [])


async def test_attack_100_server_and_launcher_killed_at_once_are_swept_by_the_next(server: Server, sandbox_kind: str) -> None:
    os.kill(server.launcher_pid, signal.SIGKILL)
    server.process.kill()
    await server.is_gone()
    async with launched(sandbox_kind):
        await until(lambda: groups_of(server.launcher_pid) == [])


async def test_concurrent_launchers_remove_stale_cgroups_without_failure(sandbox_kind: str) -> None:
    """All find the same cgroups of dead launchers; none may conclude that the host has no cgroups."""
    async with launched(sandbox_kind) as launcher:
        wanted = launcher.layers
    for _ in range(2):
        servers = [await start_server(sandbox_kind) for _ in range(2)]
        for server in servers:
            os.kill(server.launcher_pid, signal.SIGKILL)
            server.process.kill()
        for server in servers:
            await server.is_gone()
        launchers = [launcher_of(sandbox_kind) for _ in range(5)]
        try:
            await asyncio.gather(*(launcher.start() for launcher in launchers))
            assert [launcher.layers for launcher in launchers] == [wanted] * 5, launchers[0].reasons
            for server in servers:
                await until(lambda server=server: groups_of(server.launcher_pid) == [])
        finally:
            for launcher in launchers:
                await launcher.close()


async def test_concurrent_removal_of_stale_cgroups_is_no_failure(box: Box) -> None:
    pid = box.launcher.pid
    assert pid is not None
    own = groups_of(pid)
    if not own:
        pytest.skip("no cgroups here")
    for _attempt in range(5):
        dead = Path(own[0]).parent / f"firebox-1-{os.getpid()}-1"
        for leaf in range(40):
            (dead / f"sandbox-{leaf}").mkdir(parents=True)
        await asyncio.gather(*(asyncio.to_thread(cgroups.remove_tree, str(dead)) for _ in range(6)))
        assert not dead.exists()


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


@pytest.fixture
def shared_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with shared mount propagation, which systemd sets for a whole host."""
    subprocess.run(["mount", "-t", "tmpfs", "firebox-test", tmp_path], check=True)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    for name in ("early", "late"):
        (tmp_path / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "firebox-test", tmp_path / "early"], check=True)
    yield tmp_path
    subprocess.run(["umount", "--recursive", tmp_path], check=True)


@pytest.mark.skipif(not IS_ROOT, reason="only root mounts on the host")
async def test_the_host_can_unmount_what_a_launcher_saw_and_sandboxes_see_no_new_mount(shared_folder: Path, box: Box) -> None:
    def sees(pid: int | None, folder: Path) -> bool:
        return str(folder) in Path(f"/proc/{pid}/mountinfo").read_text()

    assert sees(box.launcher.pid, shared_folder / "early")
    sandbox = await box.make()
    try:
        subprocess.run(["umount", shared_folder / "early"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "firebox-test", shared_folder / "late"], check=True)
        assert not sees(box.launcher.pid, shared_folder / "early")  # else its disk would stay busy
        assert not sees(sandbox.pid, shared_folder / "late")
    finally:
        sandbox.close()


async def test_closing_ends_what_runs(sandbox_kind: str) -> None:
    async with launched(sandbox_kind) as launcher:
        async with talk(Box(launcher, sandbox_kind), "/bin/cat") as run:
            await run.ask("up", b"up")
            pid = launcher.pid
            assert pid is not None
            processes = descendants_of(pid)
            await launcher.close()
            with pytest.raises(SandboxFailure):
                await run.end()
        assert all(map(is_gone, [pid, *processes]))
        assert groups_of(pid) == []


@pytest.mark.parametrize("program", ["/bin/false", "/bin/cat", "/nowhere/at/all"])
async def test_a_launcher_that_does_not_start_is_a_clear_failure(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_start, "LAUNCHER", program)
    launcher = LauncherProcess()
    with pytest.raises(SandboxFailure, match="launcher"):
        await launcher.start()
    await launcher.close()


@pytest.mark.skipif(not IS_ROOT, reason="only root's sandboxes have groups that can be kept from going")
async def test_a_remaining_cgroup_does_not_lead_to_a_shared_uid(box: Box) -> None:
    pid = box.launcher.pid
    assert pid is not None
    if not groups_of(pid) or "own-uid" not in box.launcher.layers:
        pytest.skip("no cgroups or no uids here")
    first = await box.make()
    number = first.number
    kept = [Path(group) / f"sandbox-{number}" / "kept" for group in groups_of(pid)]
    for folder in kept:
        folder.mkdir()
    first.close()
    await box.launcher.ended(number)
    sandboxes: list[Sandbox] = []
    try:
        for _ in range(3):
            sandboxes.append(await box.make())
            await asyncio.sleep(0.1)  # the launcher tries again to remove the groups
        uids = {Path(f"/proc/{each.pid}/status").read_text().partition("Uid:")[2].split()[0] for each in sandboxes}
        assert len(uids) == 3, uids
    finally:
        for sandbox in sandboxes:
            sandbox.close()
        for folder in kept:
            folder.rmdir()


async def test_a_sandbox_whose_link_cannot_be_sent_fails_alone(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if programs of the same user had so many descriptors in flight that the kernel refuses more."""
    async with talk(box, "/bin/cat") as run:
        await run.ask("up", b"up")
        send = messages.send

        def refuse(link: socket.socket, message: bytes, descriptors: Sequence[int] = ()) -> None:
            if descriptors:
                raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
            send(link, message)

        with monkeypatch.context() as patch:
            patch.setattr(messages, "send", refuse)
            with pytest.raises(SandboxFailure):
                await box.make()
        await run.ask("still there", b"still there")
    assert (await box.run("/bin/echo", "again")).text == "again\n"
    assert box.launcher.starts == 1


async def test_a_launcher_that_fails_to_start_leaves_no_cgroup(sandbox_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "VERSION", messages.VERSION + 1)
    launcher = launcher_of(sandbox_kind)
    with pytest.raises(SandboxFailure, match="version"):
        await launcher.start()
    pid = launcher.pid
    assert pid is not None
    await launcher.close()
    assert groups_of(pid) == []


async def test_an_unnoticed_death_of_the_launcher_is_a_clear_failure_for_another_spec(box: Box) -> None:
    pid = box.launcher.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while not is_gone(pid):
        time.sleep(0.001)
    with pytest.raises(SandboxFailure):
        await asyncio.wait_for(box.make(trees=("/opt",)), 20)
    assert (await box.run("/bin/echo", "again")).text == "again\n"
