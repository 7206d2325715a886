"""One epoll instance watches the descriptors of all sandboxes. It must not confuse reused numbers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

from firebox.sandbox.instance.watcher import Watcher

WAIT_S = 10


class Pipe:
    def __init__(self) -> None:
        self.readable, self.writable = os.pipe()

    def write(self) -> None:
        os.write(self.writable, b"x")

    def close(self) -> None:
        os.close(self.readable)
        os.close(self.writable)


@pytest.fixture
def pipes() -> Iterator[list[Pipe]]:
    pipes = [Pipe(), Pipe()]
    yield pipes
    for pipe in pipes:
        pipe.close()


@pytest.fixture
async def watcher(pipes: list[Pipe]) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    yield watcher
    for pipe in pipes:
        watcher.remove(pipe.readable)
    watcher.close()


async def called(watcher: Watcher, pipe: Pipe) -> None:
    """Wait until the watcher calls back for a readable pipe, and with it for everything ready at the same time."""
    done = asyncio.Event()
    watcher.add(pipe.readable, done.set)
    await asyncio.wait_for(done.wait(), WAIT_S)
    watcher.remove(pipe.readable)


async def test_calls_back_as_long_as_there_is_something_to_read(watcher: Watcher, pipes: list[Pipe]) -> None:
    read = bytearray()
    done = asyncio.Event()

    def take() -> None:
        read.extend(os.read(pipes[0].readable, 1))
        if len(read) == 3:
            done.set()

    watcher.add(pipes[0].readable, take)
    for _ in range(3):
        pipes[0].write()
    await asyncio.wait_for(done.wait(), WAIT_S)
    assert read == b"xxx"


async def test_calls_back_at_the_end(watcher: Watcher, pipes: list[Pipe]) -> None:
    ended = Pipe()
    done = asyncio.Event()
    watcher.add(ended.readable, done.set)
    os.close(ended.writable)
    await asyncio.wait_for(done.wait(), WAIT_S)
    watcher.remove(ended.readable)
    os.close(ended.readable)


async def test_does_not_call_back_after_removal(watcher: Watcher, pipes: list[Pipe]) -> None:
    calls: list[str] = []
    watcher.add(pipes[0].readable, partial(calls.append, "removed"))
    pipes[0].write()
    watcher.remove(pipes[0].readable)
    pipes[1].write()
    await called(watcher, pipes[1])
    assert calls == []


async def test_a_second_callback_replaces_the_first(watcher: Watcher, pipes: list[Pipe]) -> None:
    calls: list[str] = []
    watcher.add(pipes[0].readable, partial(calls.append, "first"))
    pipes[0].write()
    await called(watcher, pipes[0])
    assert calls == []


async def test_a_stale_event_does_not_reach_a_new_descriptor_with_the_same_number(watcher: Watcher, pipes: list[Pipe]) -> None:
    calls: list[str] = []
    done = asyncio.Event()

    def replace(own: Pipe, other: Pipe, name: str) -> None:
        """Replace the other pipe, which is ready too, by an empty one."""
        calls.append(name)
        watcher.remove(own.readable)
        watcher.remove(other.readable)
        os.dup2(empty.readable, other.readable)
        watcher.add(other.readable, partial(calls.append, "mistaken"))
        done.set()

    empty = Pipe()
    watcher.add(pipes[0].readable, partial(replace, pipes[0], pipes[1], "first"))
    watcher.add(pipes[1].readable, partial(replace, pipes[1], pipes[0], "second"))
    for pipe in pipes:
        pipe.write()
    await asyncio.wait_for(done.wait(), WAIT_S)
    empty.close()
    assert calls in (["first"], ["second"])


async def test_a_failing_callback_does_not_stop_the_others(watcher: Watcher, pipes: list[Pipe]) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    def fail() -> None:
        watcher.remove(pipes[0].readable)
        raise ValueError("broken")

    watcher.add(pipes[0].readable, fail)
    for pipe in pipes:
        pipe.write()
    await called(watcher, pipes[1])
    assert [str(context["exception"]) for context in reported] == ["broken"]


async def test_releases_everything_once_nothing_is_watched(pipes: list[Pipe]) -> None:
    await asyncio.sleep(0)  # the loop has opened its own
    watcher = Watcher()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):  # also when it is used once more after its end
        watcher.add(pipes[0].readable, lambda: None)
        watcher.close()
        assert len(os.listdir("/proc/self/fd")) == before + 1
        watcher.remove(pipes[0].readable)
        assert len(os.listdir("/proc/self/fd")) == before
