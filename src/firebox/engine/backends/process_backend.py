"""Stages as plain processes of this machine, with no isolation: for use inside a container that is the sandbox already.

Wall time is limited here, and output by `Run`; ending a stage kills its process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from firebox.domain.limits import StageName
from firebox.domain.model import StreamName
from firebox.engine.backends.backend import Backend, OutputSink
from firebox.engine.plan import Plan
from firebox.files.folder import write_files
from firebox.runtimes.runtime import BASE_ENVIRONMENT
from firebox.sandbox.spec import Command, CommandRefused, Exit

READ_BYTES = 64 << 10
STRAGGLERS_S = 1.0
"""How long to read output of processes that left the group and outlive the program."""


class ProcessBackend(Backend["ProcessStage"]):
    """Runs the stages of one job at a time in one folder, which both stages share. The folder must exist."""

    def __init__(self, folder: Path) -> None:
        self.work = str(folder)
        self._folder = folder
        self._home: tempfile.TemporaryDirectory[str] | None = None

    def environment(self, plan: Plan, stage: StageName) -> Mapping[str, str]:
        if self._home is None:
            self._home = tempfile.TemporaryDirectory(prefix="firebox-home-", ignore_cleanup_errors=True)
        own = {"HOME": self._home.name, "TMPDIR": tempfile.gettempdir()}
        return {**BASE_ENVIRONMENT, **own, **plan.runtime.environment(stage), **plan.job.env}

    async def open(self, plan: Plan, stage: StageName, command: Command) -> tuple[ProcessStage, Command]:
        if stage == "compile" or plan.compile_limits is None:
            await asyncio.to_thread(write_files, self._folder, plan.files)
        return ProcessStage(self._folder), command

    def finish(self) -> None:
        if self._home is not None:
            self._home.cleanup()
            self._home = None


class ProcessStage:
    """One process group, started in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed_by = ""
        self._output: OutputSink = _ignore
        self._stdin = -1
        self._stdin_room: asyncio.Future[None] | None = None
        self._streams: dict[StreamName, int] = {}
        self._drained = asyncio.Event()
        self._paused = False
        self._feeding: asyncio.Task[None] | None = None

    async def run(self, command: Command, output: OutputSink, started: Callable[[], None]) -> Exit:
        started_at = time.monotonic()
        process = self._start(command)
        clock = self._loop.call_later(command.wall_ms / 1000, self.kill, "wall_time")
        try:
            started()
            self._output = output
            self._listen()
            if command.stdin:
                self._feeding = asyncio.create_task(self._feed(command.stdin, close=not command.interactive))
            elif not command.interactive:
                self.close_stdin()
            await _end_of(process.pid)
            wall_ms = (time.monotonic() - started_at) * 1000
            killed_by = self._killed_by
            # What it started goes with it, while its number still cannot be anybody else's.
            self.signal(signal.SIGKILL)
            self._process = None
            status, usage = _reap(process)
            await self._read_the_rest()
        finally:
            clock.cancel()
            self._end(process)
        return Exit(
            status=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            killed_by=killed_by,
            wall_ms=wall_ms,
            cpu_ms=(usage.ru_utime + usage.ru_stime) * 1000,
            memory_peak_bytes=usage.ru_maxrss * 1024,
            memory_limit_hit=False,
            stdout_truncated=False,
            stderr_truncated=False,
        )

    async def write_stdin(self, data: bytes) -> None:
        await self._feed(data, close=False)

    def close_stdin(self) -> None:
        if self._stdin >= 0:
            if self._stdin_room is not None:
                self._loop.remove_writer(self._stdin)
                _wake(self._stdin_room)
            os.close(self._stdin)
            self._stdin = -1

    def signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def resize(self, rows: int, columns: int) -> None:
        """Do nothing: there is no terminal."""

    def pause(self) -> None:
        if not self._paused and not self._killed_by:
            self._paused = True
            for descriptor in self._streams.values():
                self._loop.remove_reader(descriptor)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._listen()

    def kill(self, why: str) -> None:
        if self._process is not None and not self._killed_by:
            self._killed_by = why
            self.signal(signal.SIGKILL)
            self.resume()

    def close(self) -> None:
        """Do nothing: `run` has released everything."""

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        """Start the program. Raises: CommandRefused."""
        try:
            # Starting a program takes a millisecond or two: the loop has nothing else to do.
            process = subprocess.Popen(
                command.argv,
                cwd=self._folder,
                env=command.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            raise CommandRefused("start", getattr(error, "errno", 0) or errno.EINVAL, str(error)) from None
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: S101, PT018
        # The pipes become ours: the objects would close them when they like.
        self._stdin, out, err = (os.dup(pipe.fileno()) for pipe in (process.stdin, process.stdout, process.stderr))
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
        self._streams = {"stdout": out, "stderr": err}
        for descriptor in (self._stdin, out, err):
            os.set_blocking(descriptor, False)
        self._process = process
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what still runs and close every stream."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process = None
            _reap(process)
        if self._feeding is not None:
            self._feeding.cancel()
        self.close_stdin()
        for name in list(self._streams):
            self._close_stream(name)

    def _listen(self) -> None:
        for name, descriptor in self._streams.items():
            self._loop.add_reader(descriptor, partial(self._read, name))

    def _read(self, name: StreamName) -> None:
        try:
            data = os.read(self._streams[name], READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._output(name, data)
        else:
            self._close_stream(name)

    def _close_stream(self, name: StreamName) -> None:
        descriptor = self._streams.pop(name)
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        if not self._streams:
            self._drained.set()

    async def _read_the_rest(self) -> None:
        """Wait for the ends of the streams; a process that left the group may hold them open for ever."""
        while not self._drained.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STRAGGLERS_S):
                    await self._drained.wait()
            if not self._paused:
                return

    async def _feed(self, data: bytes, *, close: bool) -> None:
        rest = memoryview(data)
        while rest and self._stdin >= 0:
            try:
                rest = rest[os.write(self._stdin, rest[:READ_BYTES]) :]
            except BlockingIOError:
                await self._wait_writable()
            except BrokenPipeError:  # the program closed its stdin
                self.close_stdin()
        if close:
            self.close_stdin()

    async def _wait_writable(self) -> None:
        descriptor, room = self._stdin, self._loop.create_future()
        self._stdin_room = room
        self._loop.add_writer(descriptor, _wake, room)
        try:
            await room
        finally:
            self._stdin_room = None
            if descriptor == self._stdin:
                self._loop.remove_writer(descriptor)


async def _end_of(pid: int) -> None:
    """Wait until a child has ended, and leave it to be reaped. Source: pidfd_open(2)."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, _wake, ended)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
    """Reap a child that has ended. Returns its exit code, or minus the signal it died on, and what it used."""
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _ignore(_stream: StreamName, _data: bytes) -> None:
    return
