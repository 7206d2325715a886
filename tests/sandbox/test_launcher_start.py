"""A launcher that is started, and whose first sandbox is requested, before a `LauncherProcess` takes it over."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import pytest

from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.launcher.launcher_start import StartedLauncher, start_launcher
from firebox.sandbox.spec import Command, SandboxFailure, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, IS_ROOT, ORDINARY_USER, follow
from tests.sandbox.leftovers import descendants_of, groups_of, is_gone
from tests.support.waiting import until

FIRST = SandboxSpec(writable_bytes=1 << 20)


@contextmanager
def asked_for(first: SandboxSpec, kind: str, *, is_smoke_test: bool = False) -> Generator[StartedLauncher]:
    """A launcher that creates its first sandbox."""
    run_as = ORDINARY_USER if kind == "rootless" and IS_ROOT else None
    started = start_launcher(run_as=run_as)
    try:
        started.configure(uid_base=210_000, hooks={})
        started.request_first(first, is_smoke_test=is_smoke_test)
        yield started
    finally:
        started.end()


@asynccontextmanager
async def taken_over(started: StartedLauncher) -> AsyncGenerator[LauncherProcess]:
    """The launcher in a `LauncherProcess`. Nothing of it remains afterwards."""
    before = set(os.listdir("/proc/self/fd"))
    launcher = LauncherProcess(started=started)
    try:
        await launcher.start()
        processes = [started.pid, *descendants_of(started.pid)]
        yield launcher
    finally:
        await launcher.close()
    assert all(map(is_gone, processes))
    assert groups_of(started.pid) == []
    assert set(os.listdir("/proc/self/fd")) <= before


async def says_hello(launcher: LauncherProcess, specification: SandboxSpec) -> bool:
    sandbox = await launcher.make(specification)
    heard: list[bytes] = []
    command = Command(argv=("/bin/sh", "-c", "echo hello"), env=ENVIRONMENT)
    ended = await follow(sandbox, command, lambda _stream, data: heard.append(data))
    sandbox.close()
    return ended.status == 0 and heard == [b"hello\n"]


async def test_the_first_sandbox_is_the_smoke_test_and_is_used_once(sandbox_kind: str) -> None:
    with asked_for(FIRST, sandbox_kind) as started:
        async with taken_over(started) as launcher:
            assert "seccomp" in launcher.layers
            assert len(descendants_of(started.pid)) == launcher.alive == 1
            assert [await says_hello(launcher, FIRST) for _ in range(2)] == [True, True]


async def test_a_pure_smoke_test_is_not_kept(sandbox_kind: str) -> None:
    with asked_for(FIRST, sandbox_kind, is_smoke_test=True) as started:
        async with taken_over(started) as launcher:
            assert "seccomp" in launcher.layers
            assert launcher.alive == 0
            assert await says_hello(launcher, FIRST)


async def test_a_failed_smoke_test_is_the_reason_for_no_launcher(sandbox_kind: str) -> None:
    with asked_for(SandboxSpec(layers=("/nowhere/at/all",)), sandbox_kind, is_smoke_test=True) as started:
        launcher = LauncherProcess(started=started)
        try:
            with pytest.raises(SandboxFailure, match="/nowhere/at/all"):
                await launcher.start()
        finally:
            await launcher.close()


async def test_a_first_sandbox_with_another_spec_is_kept(sandbox_kind: str) -> None:
    with asked_for(FIRST, sandbox_kind) as started:
        async with taken_over(started) as launcher:
            assert await says_hello(launcher, SandboxSpec())


async def test_an_unused_first_sandbox_is_released_when_the_launcher_dies(sandbox_kind: str) -> None:
    with asked_for(FIRST, sandbox_kind) as started:
        before = set(os.listdir("/proc/self/fd"))
        launcher = LauncherProcess(started=started)
        try:
            assert await says_hello(launcher, SandboxSpec())
            os.kill(started.pid, signal.SIGKILL)
            os.waitid(os.P_PIDFD, started.pidfd, os.WEXITED | os.WNOWAIT)
        finally:
            await launcher.close()
        assert set(os.listdir("/proc/self/fd")) <= before


async def test_a_failing_first_sandbox_does_not_fail_others(sandbox_kind: str) -> None:
    impossible = SandboxSpec(layers=("/nowhere/at/all",))
    with asked_for(impossible, sandbox_kind) as started:
        async with taken_over(started) as launcher:
            with pytest.raises(SandboxFailure, match="/nowhere/at/all"):
                await launcher.make(impossible)
            await until(lambda: launcher.alive == 0)
            assert await says_hello(launcher, SandboxSpec())


def test_an_abandoned_launcher_ends_with_its_link(sandbox_kind: str) -> None:
    with asked_for(FIRST, sandbox_kind) as started:
        assert not started.has_ended()
    assert started.has_ended()
    assert groups_of(started.pid) == []


async def test_a_failed_configuration_is_reported_after_a_requested_sandbox() -> None:
    started = start_launcher()
    try:
        started.configure(uid_base=210_000, hooks={"no/such/folder": ""})
        started.request_first(FIRST)
        launcher = LauncherProcess(started=started)
        with pytest.raises(SandboxFailure, match="no/such/folder"):
            await launcher.start()
        await launcher.close()
    finally:
        started.end()


@pytest.mark.parametrize("hooks", [{}, {"no/such/folder": ""}], ids=["and succeeds", "and fails"])
async def test_a_start_continues_when_its_first_caller_is_cancelled(hooks: dict[str, str]) -> None:
    launcher = LauncherProcess(hooks=hooks)
    try:
        beginning, made = asyncio.ensure_future(launcher.start()), asyncio.ensure_future(launcher.make(FIRST))
        await asyncio.sleep(0)
        assert launcher.starts == 1
        beginning.cancel()
        done, _ = await asyncio.wait([made], timeout=60)
        assert done
        if hooks:
            assert "no/such/folder" in str(made.exception())
        else:
            made.result().close()
            assert "seccomp" in launcher.layers
            assert launcher.starts == 1
    finally:
        await launcher.close()


async def test_a_launcher_reaps_sandboxes_although_its_parent_ignores_sigchld(sandbox_kind: str) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        started = start_launcher(run_as=ORDINARY_USER if sandbox_kind == "rootless" and IS_ROOT else None)
    finally:
        signal.signal(signal.SIGCHLD, before)
    async with taken_over(started) as launcher:
        sandbox = await launcher.make(FIRST)
        sandbox.close()
        await asyncio.wait_for(launcher.ended(sandbox.number), 10)
