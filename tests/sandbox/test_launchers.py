"""Several launchers with the interface of one: they share the load, and the death of one does not affect the others."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest

from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.launcher.launchers import Launchers
from firebox.sandbox.spec import Command, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, follow, launcher_of
from tests.sandbox.leftovers import descendants_of, groups_of, is_gone
from tests.support.waiting import until


@pytest.fixture
async def launchers(sandbox_kind: str) -> AsyncIterator[Launchers]:
    both = Launchers(launcher_of(sandbox_kind) for _ in range(2))
    await both.start()
    pids = both.pids
    yield both
    processes = [each for pid in (*pids, *both.pids) for each in (pid, *descendants_of(pid))]
    await both.close()
    await until(lambda: all(map(is_gone, processes)))
    assert [group for pid in (*pids, *both.pids) for group in groups_of(pid)] == []


async def says_hello(sandbox: Sandbox) -> bool:
    heard: list[bytes] = []
    command = Command(argv=("/bin/sh", "-c", "echo hello"), env=ENVIRONMENT)
    ended = await follow(sandbox, command, lambda _stream, data: heard.append(data))
    sandbox.close()
    return ended.status == 0 and heard == [b"hello\n"]


def shares(launchers: Launchers) -> list[int]:
    """Count the child processes of each launcher."""
    return [len(descendants_of(pid)) for pid in launchers.pids]


async def test_launchers_share_the_load(launchers: Launchers) -> None:
    made = [await launchers.make(SandboxSpec()) for _ in range(6)]
    assert shares(launchers) == [3, 3]
    assert launchers.alive == 6
    assert launchers.layers
    assert [await says_hello(sandbox) for sandbox in made] == [True] * 6
    await until(lambda: launchers.alive == 0)
    assert shares(launchers) == [0, 0]


async def test_a_killed_launcher_takes_only_its_own_sandboxes_and_is_started_again(launchers: Launchers) -> None:
    made = [await launchers.make(SandboxSpec()) for _ in range(4)]
    before = launchers.pids
    os.kill(before[0], signal.SIGKILL)
    await until(lambda: sum(sandbox.is_dead for sandbox in made) == 2)
    alive = [sandbox for sandbox in made if not sandbox.is_dead]
    assert [await says_hello(sandbox) for sandbox in alive] == [True, True]
    assert await says_hello(await launchers.make(SandboxSpec()))
    assert launchers.restarts == 1
    assert launchers.pids[1] == before[1]
    for sandbox in made:
        sandbox.close()
