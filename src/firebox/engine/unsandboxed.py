"""Jobs as plain processes of this machine, with no isolation at all: for use inside a container that is the sandbox already.

Implements `model.Executor`. Held here are the wall clock and the output caps; ending a run kills its process group. Memory,
processor time, processes and what is written are the container's to limit: a job that asks for such a limit is refused.
Both stages share one folder, and what a program leaves in it stays until the folder goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from firebox.domain.errors import InvalidRequest, LimitNotEnforceable
from firebox.domain.limits import LIMIT_NAMES, LimitRequest, Limits, OutputMode, StageName
from firebox.domain.model import (
    SIGNALS,
    Cancel,
    Eof,
    Event,
    Finished,
    Job,
    Message,
    Output,
    Result,
    Run,
    RuntimeName,
    Signal,
    StageExited,
    StageResult,
    StageStarted,
    Stdin,
    StreamName,
    Timings,
    Verdict,
)
from firebox.engine.command_lines import check_compile_args, command_line, is_compiled
from firebox.engine.transcript import Transcript
from firebox.engine.verdicts import conclude, refused, result_of
from firebox.files.folder import write_files
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import BASE_ENVIRONMENT, Runtime
from firebox.sandbox.spec import CommandRefused, Exit
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import Settings

READ_BYTES = 64 << 10
BUFFERED_BYTES = 1 << 20
"""Output that waits for a slow reader of events; past it the program has to wait."""
EVENT_BYTES = 200
"""What an event costs besides its data."""
STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")
STRAGGLERS_S = 1.0
"""How long output of what a dead program left behind is still read."""

_ENFORCED = ("wall_ms", "output_bytes", "output_mode")
_CONTAINER_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class UnsandboxedExecutor:
    """Runs jobs in `folder`, one after the other. The folder must exist; it is not removed."""

    def __init__(self, settings: Settings, registry: Registry, folder: Path) -> None:
        self._settings = settings
        self._registry = registry
        self._folder = folder
        self._busy = asyncio.Lock()

    def start(self, job: Job) -> AbstractAsyncContextManager[Run]:
        """Start a job when the one before it has ended, as `model.Executor` says.

        Raises, on entry: UnknownRuntime, LimitNotEnforceable, InvalidRequest; OSError when a file cannot be written.
        """
        return self._start(job)

    @asynccontextmanager
    async def _start(self, job: Job) -> AsyncGenerator[Run]:
        runtime = self._registry.resolve(job.language, job.version, job.installed)
        if job.terminal is not None or job.artifacts:
            raise InvalidRequest("terminals and artifacts need the sandbox", where="terminal" if job.terminal else "artifacts")
        check_compile_args(job, runtime)
        limits: dict[StageName, Limits] = {
            "compile": self._limits("compile", runtime, job.compile_limits),
            "run": self._limits("run", runtime, job.run_limits),
        }
        asked_at = time.monotonic()
        async with self._busy:
            files = runtime.place(job.files)
            await asyncio.to_thread(write_files, self._folder, files)
            sources = [file.name for file in files if file.source]
            run = UnsandboxedRun(job, runtime, sources, limits, self._folder, queue_ms=(time.monotonic() - asked_at) * 1000)
            run.begin()
            try:
                yield run
            finally:
                run.cancel()
                await run.wait()

    def _limits(self, stage: StageName, runtime: Runtime, asked: LimitRequest) -> Limits:
        for name in LIMIT_NAMES:
            if getattr(asked, name) is not None and name not in _ENFORCED:
                raise LimitNotEnforceable(f"{stage}.{name}", hint="without the sandbox only the container can hold it")
        return limit_policy(self._settings).decide(stage, runtime, asked)


class UnsandboxedRun:
    """Implements `model.Run`."""

    def __init__(
        self,
        job: Job,
        runtime: Runtime,
        sources: list[str],
        limits: dict[StageName, Limits],
        folder: Path,
        *,
        queue_ms: float,
    ) -> None:
        self.id = job.id or _new_id()
        self.runtime = RuntimeName(runtime.language, runtime.version)
        self._job = job
        self._runtime = runtime
        self._sources = sources
        self._limits = limits
        self._folder = folder
        self._queue_ms = queue_ms
        self._events: deque[Event] = deque()
        self._buffered_bytes = 0
        self._sequence = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._input: asyncio.Queue[Stdin | Eof] = asyncio.Queue(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._killed_by = ""
        self._cancelled = False
        self._over = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._work())

    def cancel(self) -> None:
        """Kill what runs. Nothing happens when it is over."""
        if not self._over:
            self._cancelled = True
            self._room.set()  # nobody has to read the events any more
            self._kill("cancelled")

    async def wait(self) -> None:
        """Wait until the last event has been written."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def events(self) -> AsyncIterator[Event]:
        """Yield every event, ending with `Finished`. A reader that is slow makes the program wait, not the memory grow."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Output):
                    self._buffered_bytes -= len(event.data) + EVENT_BYTES
                    self._room.set()
                yield event
                if isinstance(event, Finished):
                    return
            self._arrived.clear()
            await self._arrived.wait()

    async def result(self) -> Result:
        """Wait for the result, as `model.Run` says."""
        [result] = [event.result async for event in self.events() if isinstance(event, Finished)]
        return result

    async def send(self, message: Message) -> None:
        """Pass a message to the program, as `model.Run` says; there is no terminal to be resized."""
        match message:
            case Signal(name) if name not in SIGNALS:
                raise InvalidRequest(f"no such signal: {name!r}", where="signal", hint="one of " + " ".join(SIGNALS))
            case Signal(name):
                self._signal(signal.Signals[name])
            case Cancel():
                self.cancel()
            case Stdin() | Eof():
                putting = asyncio.create_task(self._input.put(message))
                over = [self._task] if self._task is not None else []
                await asyncio.wait([putting, *over], return_when=asyncio.FIRST_COMPLETED)
                putting.cancel()
            case _:
                pass

    async def _work(self) -> None:
        compiled: StageResult | None = None
        ran: StageResult | None = None
        reason = ""
        with tempfile.TemporaryDirectory(prefix="firebox-home-", ignore_cleanup_errors=True) as home:
            try:
                if is_compiled(self._job, self._runtime, self._sources):
                    compiled = await self._run_stage("compile", home)
                if compiled is None or compiled.verdict is Verdict.OK:
                    ran = await self._run_stage("run", home)
            except (OSError, ValueError) as error:
                reason = f"the program could not be started: {getattr(error, 'strerror', None) or error}"
        self._over = True
        self._emit(Finished(sequence=self._next(), result=self._result(compiled, ran, reason)))

    async def _run_stage(self, stage: StageName, home: str) -> StageResult:
        """Run one stage to its end. Raises: OSError, ValueError when it cannot be started and that is our fault."""
        limits = self._limits[stage]
        words = command_line(stage, self._job, self._runtime, self._sources, _memory_bytes(limits))
        try:
            return await self._run_command(stage, words, home)
        except OSError as error:
            refusal = CommandRefused("start", error.errno or 0, str(error))
            result = refused(stage, words[0], refusal, limits, str(self._folder))
            if result is None:
                raise
        self._emit(StageStarted(sequence=self._next(), stage=stage))
        for chunk in result.chunks:
            self._buffered_bytes += len(chunk.data) + EVENT_BYTES
            self._emit(Output(sequence=self._next(), stage=stage, stream=chunk.stream, data=chunk.data))
        self._emit(StageExited(sequence=self._next(), result=result))
        return result

    async def _run_command(self, stage: StageName, words: list[str], home: str) -> StageResult:
        """Run the command of a stage to its end. Raises: OSError, ValueError when it cannot be started."""
        limits = self._limits[stage]
        transcript = Transcript()
        truncated: set[StreamName] = set()
        self._killed_by = ""
        started_at = time.monotonic()
        # Starting a program takes a millisecond or two: the loop has nothing else to do.
        with subprocess.Popen(  # noqa: ASYNC220
            words,
            cwd=self._folder,
            env=self._environment(stage, home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        ) as process:
            pipes = [pipe.fileno() for pipe in (process.stdin, process.stdout, process.stderr) if pipe is not None]
            for descriptor in pipes:
                os.set_blocking(descriptor, False)
            self._process = process
            self._emit(StageStarted(sequence=self._next(), stage=stage))
            reads = [
                asyncio.create_task(self._read(stage, name, descriptor, transcript, truncated))
                for name, descriptor in zip(STREAMS, pipes[1:], strict=True)
            ]
            feeding = asyncio.create_task(self._feed(stage, process, pipes[0]))
            clock = asyncio.get_running_loop().call_later(limits.wall_ms / 1000, self._kill, "wall_time")
            try:
                if self._cancelled:
                    self._kill("cancelled")
                await _end_of(process.pid)
                wall_ms = (time.monotonic() - started_at) * 1000
                killed_by = self._killed_by
                # What it started goes with it, while its number still cannot be anybody else's.
                self._signal(signal.SIGKILL)
                self._process = None
                status, usage = _reap(process)
                await self._read_the_rest(reads)
            finally:
                clock.cancel()
                self._signal(signal.SIGKILL)
                self._process = None
                for task in (*reads, feeding):
                    task.cancel()
                await asyncio.gather(*reads, feeding, return_exceptions=True)
        ended = Exit(
            status=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            killed_by=killed_by,
            wall_ms=wall_ms,
            cpu_ms=(usage.ru_utime + usage.ru_stime) * 1000,
            memory_peak_bytes=usage.ru_maxrss * 1024,
            memory_limit_hit=False,
            stdout_truncated="stdout" in truncated,
            stderr_truncated="stderr" in truncated,
        )
        result = result_of(stage, ended, limits, transcript.chunks())
        self._emit(StageExited(sequence=self._next(), result=result))
        return result

    async def _read(
        self, stage: StageName, stream: StreamName, descriptor: int, transcript: Transcript, truncated: set[StreamName]
    ) -> None:
        """Take the output of one stream to its end; past the cap it is thrown away."""
        limits = self._limits[stage]
        room_bytes = limits.output_bytes
        while True:
            while self._is_full() and not self._cancelled:
                self._room.clear()
                await self._room.wait()
            try:
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                await _ready(descriptor, for_writing=False)
                continue
            if not data:
                return
            if len(data) > room_bytes:
                truncated.add(stream)
                if limits.output_mode is OutputMode.KILL:
                    self._kill("output")
            data = data[:room_bytes]
            room_bytes -= len(data)
            if data:
                transcript.add(stream, data)
                self._buffered_bytes += len(data) + EVENT_BYTES
                self._emit(Output(sequence=self._next(), stage=stage, stream=stream, data=data))

    async def _read_the_rest(self, reads: list[asyncio.Task[None]]) -> None:
        """Wait for the ends of the streams; something that left the process group may hold them open for ever."""
        waiting = set(reads)
        while waiting:
            _done, waiting = await asyncio.wait(waiting, timeout=STRAGGLERS_S)
            if not self._is_full():
                return

    async def _feed(self, stage: StageName, process: subprocess.Popen[bytes], descriptor: int) -> None:
        """Give the program its input. One that closes its end has had enough."""
        try:
            if stage == "run":
                await _write(descriptor, self._job.stdin)
            while stage == "run" and self._job.interactive:
                message = await self._input.get()
                if isinstance(message, Eof):
                    break
                await _write(descriptor, message.data)
        except BrokenPipeError:
            pass
        if process.stdin is not None:
            process.stdin.close()

    def _environment(self, stage: StageName, home: str) -> dict[str, str]:
        own = {"HOME": home, "TMPDIR": tempfile.gettempdir()}
        return {**BASE_ENVIRONMENT, **own, **self._runtime.environment(stage), **self._job.env}

    def _kill(self, why: str) -> None:
        """Kill the process group. why: goes to the verdict; the first one counts."""
        if self._process is not None and not self._killed_by:
            self._killed_by = why
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _result(self, compiled: StageResult | None, ran: StageResult | None, reason: str) -> Result:
        verdict, reason = conclude(compiled, ran, reason, cancelled=self._cancelled)
        return Result(
            id=self.id,
            runtime=self.runtime,
            verdict=verdict,
            reason=reason,
            compile=compiled,
            run=ran,
            timings=Timings(
                queue_ms=self._queue_ms,
                prepare_ms=0.0,
                compile_ms=compiled.wall_ms if compiled else 0.0,
                run_ms=ran.wall_ms if ran else 0.0,
            ),
            artifacts=(),
            isolation=(),
        )

    def _is_full(self) -> bool:
        return self._buffered_bytes > BUFFERED_BYTES

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        self._arrived.set()

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


async def _end_of(pid: int) -> None:
    """Wait until a child has ended, and leave it to be reaped. Source: pidfd_open(2)."""
    descriptor = os.pidfd_open(pid)
    try:
        await _ready(descriptor, for_writing=False)
    finally:
        os.close(descriptor)


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
    """Reap a child that has ended. Returns its exit code, or minus the signal it died on, and what it used."""
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage


async def _ready(descriptor: int, *, for_writing: bool) -> None:
    """Wait until a descriptor can be read, or written."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if for_writing else (loop.add_reader, loop.remove_reader)
    add(descriptor, wake)
    try:
        await ready
    finally:
        remove(descriptor)


async def _write(descriptor: int, data: bytes) -> None:
    """Write everything. Raises: BrokenPipeError when nobody reads any more."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest[:READ_BYTES]) :]
        except BlockingIOError:
            await _ready(descriptor, for_writing=True)


def _memory_bytes(limits: Limits) -> int:
    """What a runtime that sizes itself should count on: the stage's limit, or the container's where that is lower."""
    known = [limits.memory_bytes]
    for file in _CONTAINER_MEMORY:
        with contextlib.suppress(OSError, ValueError):  # no such file, or it says "max"
            known.append(int(file.read_text(encoding="ascii")))
    return min((number for number in known if number), default=0)


def _new_id() -> str:
    from ulid import ULID

    return str(ULID())
