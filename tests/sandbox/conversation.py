"""A running program whose output tests can wait for, and whose input they can write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.spec import Command, Exit, InputFile, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, Box, follow

PATIENCE_S = 60.0


class Conversation:
    """Talks to a program in a sandbox. Use `sandbox` for signals, sizes and kills."""

    def __init__(self, sandbox: Sandbox, command: Command) -> None:
        self.sandbox = sandbox
        self.streams = {"stdout": b"", "stderr": b""}
        self._news = asyncio.Event()
        self._running = asyncio.create_task(follow(sandbox, command, self._take))
        self._running.add_done_callback(lambda _task: self._news.set())

    @property
    def heard(self) -> bytes:
        return self.streams["stdout"]

    async def hear(self, wanted: bytes) -> None:
        """Wait until the program has written this to stdout since the last `ask`."""
        async with asyncio.timeout(PATIENCE_S):
            while wanted not in self.heard:
                assert not self._running.done(), (self.streams, self._running)
                self._news.clear()
                await self._news.wait()

    async def hears(self, wanted: bytes) -> bool:
        """Return whether the program writes this to stdout before it ends."""
        async with asyncio.timeout(PATIENCE_S):
            while wanted not in self.heard and not self._running.done():
                self._news.clear()
                await self._news.wait()
        return wanted in self.heard

    async def say(self, line: str) -> None:
        await self.sandbox.write_stdin(line.encode() + b"\n")

    async def ask(self, line: str, answer: bytes) -> None:
        """Write a line to stdin and wait for the answer."""
        self.streams["stdout"] = b""
        await self.say(line)
        await self.hear(answer)

    async def end(self) -> Exit:
        """Wait until the program has ended."""
        return await asyncio.wait_for(asyncio.shield(self._running), PATIENCE_S)

    async def kill(self, why: str = "wall_time") -> Exit:
        """End the program as a clock would."""
        self.sandbox.kill(why)
        return await self.end()

    def _take(self, stream: str, data: bytes) -> None:
        self.streams[stream] += data
        self._news.set()

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self.sandbox.close()


@asynccontextmanager
async def talk(
    box: Box, *argv: str, files: dict[str, str] | None = None, specification: SandboxSpec | None = None, **command: Any
) -> AsyncGenerator[Conversation]:
    """Start a program, and kill it on leaving if it still runs. command: fields of `Command`."""
    fields: dict[str, Any] = {"interactive": True, "wall_ms": 120_000, "cpu_ms": 0, **command}
    inputs = tuple(InputFile(name, content.encode()) for name, content in (files or {}).items())
    wanted = Command(argv=argv, env={**ENVIRONMENT, **fields.pop("env", {})}, files=inputs)._replace(**fields)
    sandbox = await box.launcher.make(specification or SandboxSpec())
    conversation = Conversation(sandbox, wanted)
    try:
        yield conversation
    finally:
        await conversation.close()


@asynccontextmanager
async def talk_python(box: Box, code: str, **command: Any) -> AsyncGenerator[Conversation]:
    async with talk(box, PYTHON, "main.py", files={"main.py": code}, **command) as conversation:
        yield conversation


NEIGHBOUR = """
import os, sys, threading
for line in sys.stdin:
    block = bytearray(b'x') * (16 << 20)
    children = []
    for _ in range(10):
        child = os.fork()
        if child == 0:
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    threads = [threading.Thread(target=len, args=(block,)) for _ in range(5)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for folder in ('/tmp', '/dev/shm', '.'):
        with open(folder + '/file', 'wb') as file: file.write(block[:1 << 20])
        os.unlink(folder + '/file')
    pipes = [os.pipe() for _ in range(20)]
    for pipe in pipes:
        for end in pipe: os.close(end)
    del block
    print('well', line, flush=True)
"""
"""An ordinary program of another user, with modest use of memory, processes, threads, files and pipes."""


@asynccontextmanager
async def neighbour(box: Box) -> AsyncGenerator[Conversation]:
    """A run of another user before, during and after an attack. During it: `await other.ask("?", b"well ?")`."""
    async with talk_python(box, NEIGHBOUR, processes=32, memory_bytes=128 << 20) as other:
        await other.ask("before", b"well before")
        yield other
        await other.ask("after", b"well after")
        other.sandbox.close_stdin()
        ended = await other.end()
        assert (ended.status, ended.killed_by, other.streams["stderr"]) == (0, "", b"")
