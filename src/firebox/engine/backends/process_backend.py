"""Stages as plain processes of this machine, with no isolation: for use inside a container that is the sandbox already.

Wall time and output are limited; ending a stage kills its process group.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from firebox.domain.limits import StageName
from firebox.engine.backends.backend import Backend
from firebox.engine.plan import Plan
from firebox.files.folder import write_files
from firebox.runtimes.runtime import BASE_ENVIRONMENT
from firebox.sandbox.instance.input_writer import InputWriter, wake
from firebox.sandbox.instance.output_reader import OutputReader
from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.spec import Command, CommandRefused, Event, Exit, Started

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
        self._watcher = Watcher()
        self._input = InputWriter(self._loop, -1)
        self._changed = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._killed_by = ""
        self._exit: Exit | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    async def events(self, command: Command) -> AsyncGenerator[Event]:
        with ExitStack() as cleanup:
            process, output = self._start(command, cleanup)
            pidfd = os.pidfd_open(process.pid)  # becomes readable with its end. Source: pidfd_open(2)
            cleanup.callback(os.close, pidfd)
            self._watcher.add(pidfd, partial(self._on_end, process, output, pidfd))
            cleanup.callback(self._watcher.remove, pidfd)
            clock = self._loop.call_later(command.wall_ms / 1000, self.kill, "wall_time")
            cleanup.callback(clock.cancel)
            output.start(command, self._changed.set, self._changed.set, self.kill)
            yield Started()
            self._input.feed(command.stdin, then_end=not command.interactive)
            while self._exit is None or not output.is_done:
                if piece := output.take():
                    yield piece
                else:
                    await self._changed.wait()
                    self._changed.clear()
            cut = output.truncated
            yield self._exit._replace(stdout_truncated=cut["stdout"], stderr_truncated=cut["stderr"])

    async def write_stdin(self, data: bytes) -> None:
        await self._input.write(memoryview(data))

    def close_stdin(self) -> None:
        self._input.end()

    def signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def resize(self, rows: int, columns: int) -> None:
        """Do nothing: there is no terminal."""

    def kill(self, why: str) -> None:
        if self._process is not None and not self._killed_by:
            self._killed_by = why
            self.signal(signal.SIGKILL)
            wake(self.ended)

    def close(self) -> None:
        """Do nothing: `events` has released everything."""

    def _start(self, command: Command, cleanup: ExitStack) -> tuple[subprocess.Popen[bytes], OutputReader]:
        """Start the program. cleanup: kills what still runs, and closes every stream. Raises: CommandRefused."""
        descriptors: list[int] = []
        self._started_at = time.monotonic()
        try:
            for _stream in range(3):
                descriptors += os.pipe()
            descriptors.append(os.open(os.devnull, os.O_WRONLY))
            their_stdin, stdin, stdout, their_stdout, stderr, their_stderr, null = descriptors
            # Starting a program takes a millisecond or two: the loop has nothing else to do.
            process = subprocess.Popen(
                command.argv,
                cwd=self._folder,
                env=command.env,
                stdin=their_stdin,
                stdout=their_stdout,
                stderr=their_stderr,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            for descriptor in descriptors:
                os.close(descriptor)
            raise CommandRefused("start", getattr(error, "errno", 0) or errno.EINVAL, str(error)) from None
        for descriptor in (their_stdin, their_stdout, their_stderr):
            os.close(descriptor)
        for descriptor in (stdin, stdout, stderr):
            os.set_blocking(descriptor, False)
        self._process = process
        self._input = InputWriter(self._loop, stdin)
        output = OutputReader(self._watcher, null, stdout, stderr)
        cleanup.callback(self._watcher.close)
        cleanup.callback(os.close, null)
        cleanup.callback(output.close)
        cleanup.callback(self._input.close)
        cleanup.callback(lambda: self._process is not None and self._reap(process))
        return process, output

    def _on_end(self, process: subprocess.Popen[bytes], output: OutputReader, pidfd: int) -> None:
        """Note how the program ended, and read the last output of it and of processes that left the group."""
        wall_ms = (time.monotonic() - self._started_at) * 1000
        self._watcher.remove(pidfd)
        status, usage = self._reap(process)
        self._exit = Exit(
            status=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            killed_by=self._killed_by,
            wall_ms=wall_ms,
            cpu_ms=(usage.ru_utime + usage.ru_stime) * 1000,
            memory_peak_bytes=usage.ru_maxrss * 1024,
        )
        wake(self.ended)
        self._changed.set()
        self._loop.call_later(STRAGGLERS_S, self._end_stragglers, output)

    def _end_stragglers(self, output: OutputReader) -> None:
        """Stop reading, unless the reader is slow: a process that left the group may hold the streams open for ever."""
        if output.is_paused:
            self._loop.call_later(STRAGGLERS_S, self._end_stragglers, output)
        else:
            output.close()
            self._changed.set()

    def _reap(self, process: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
        """Reap the program. Returns its exit code, or minus the signal it died on, and what it used.

        What it started is killed with it, while its number still cannot be anybody else's.
        """
        self.signal(signal.SIGKILL)
        self._process = None
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage
