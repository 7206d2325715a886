"""One job under way: its stages, its events in order, its result exactly once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from msgspec.structs import replace as replace_fields

from firebox.domain.errors import InvalidRequest, SandboxError
from firebox.domain.limits import Limits, OutputMode, StageName
from firebox.domain.model import (
    SIGNALS,
    CacheLevel,
    Cancel,
    Eof,
    Event,
    Finished,
    Message,
    Output,
    Resize,
    Result,
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
from firebox.engine.artifacts import Artifacts, take_artifacts, take_produced
from firebox.engine.command_lines import command_line, variables
from firebox.engine.idle import IdleClock
from firebox.engine.input import InputQueue
from firebox.engine.job_cache import JobCache, Turn, compile_key, outcome_key, toolchain_state
from firebox.engine.log import LazyLogger
from firebox.engine.plan import Plan
from firebox.engine.transcript import Transcript
from firebox.engine.verdicts import conclude, refused, result_of
from firebox.runtimes.prestart import compile_words, plan_ahead, plan_compiler_ahead
from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.pool.pool import Pool
from firebox.sandbox.spec import Command, CommandRefused, InputFile, Pack, SandboxFailure, SandboxSpec

BUFFERED_BYTES = 1 << 20
"""Output that waits for a slow reader of events; past it the program has to wait."""

EVENT_BYTES = 200
"""What an event costs besides its data."""

_TERMINAL_ROWS_AND_COLUMNS_AT_MOST = 1000

_PROCESSES_AT_MOST = 4_000_000
"""The kernel takes no larger number, and has no more processes. Source: Linux, PID_MAX_LIMIT."""

_REPEATABLE = (Verdict.OK, Verdict.RUNTIME_ERROR)
"""How a stage may end so that it would end so again; what a clock or a client ended is another thing each time."""

_log = LazyLogger()


class LocalRun:
    """Implements `model.Run`."""

    def __init__(
        self,
        identifier: str,
        plan: Plan,
        pool: Pool,
        *,
        isolation: tuple[str, ...],
        cache: JobCache | None,
        queue_ms: float,
        finished: Callable[[LocalRun, Result], None],
    ) -> None:
        self.id = identifier
        self.job = plan.job
        self.runtime = RuntimeName(plan.runtime.language, plan.runtime.version)
        self._plan = plan
        self._pool = pool
        self._isolation = isolation
        self._cache = cache if plan.cache_level != "none" else None
        self._served: CacheLevel = "none"
        self._waiting: asyncio.Task[Turn] | None = None
        self._queue_ms = queue_ms
        self._prepare_ms = 0.0
        self._started_at = 0.0  # the first program of the job; 0: none yet
        self._on_finished = finished
        self._events: deque[Event] = deque()
        self._buffered_bytes = 0
        self._sequence = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sandbox: Sandbox | None = None
        self._stage: StageName = "run"
        self._transcript = Transcript()
        self._announce: Callable[[], None] | None = None
        self._cancelled = False
        self._result: Result | None = None
        self._keeps_events = True
        self._input = InputQueue(BUFFERED_BYTES, plan.job.stdin if plan.job.interactive else b"")
        self._terminal_size = (plan.job.terminal.rows, plan.job.terminal.columns) if plan.job.terminal else None
        self._feeding: asyncio.Task[None] | None = None
        self._artifacts = Artifacts()
        self._idle = IdleClock(plan.idle_ms, self._end_idle)

    def begin(self) -> None:
        self._task = asyncio.create_task(self._work())

    def cancel(self) -> None:
        """Kill what runs. Nothing happens when it is over."""
        if self._result is None:
            self._cancelled = True
            if self._waiting is not None:
                self._waiting.cancel()
            if self._sandbox is not None:
                self._sandbox.kill("cancelled")
                self._sandbox.resume()  # nobody has to read the events any more

    async def wait(self) -> None:
        """Wait until the last event has been written. Being cancelled while waiting does not touch the run."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def events(self) -> AsyncIterator[Event]:
        """Yield every event, ending with `Finished`. A reader that is slow makes the program wait, not the memory grow."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Output):
                    self._buffered_bytes -= len(event.data) + EVENT_BYTES
                    if self._sandbox is not None and self._buffered_bytes <= BUFFERED_BYTES // 2:
                        self._sandbox.resume()
                yield event
                if isinstance(event, Finished):
                    return
            self._arrived.clear()
            await self._arrived.wait()

    async def result(self) -> Result:
        """Wait for the result, as `model.Run` says. Being cancelled while waiting does not touch the run."""
        self._keeps_events = False
        self._events.clear()
        if self._sandbox is not None:
            self._sandbox.resume()  # what has been written meanwhile is in the transcript
        await self.wait()
        if self._result is None:
            raise SandboxError("run", detail="it ended without a result")
        return self._result

    async def send(self, message: Message) -> None:
        """Pass a message to the program, as `model.Run` says."""
        match message:
            case Signal(name) if name not in SIGNALS:
                raise InvalidRequest(f"no such signal: {name!r}", where="signal", hint="one of " + " ".join(SIGNALS))
            case Resize(rows, columns) if not _is_terminal_size(rows, columns):
                raise InvalidRequest("rows and columns must be from 1 to 1000", where="resize")
            case Signal(name):
                if self._sandbox is not None:
                    self._sandbox.signal(signal.Signals[name])
            case Resize(rows, columns):
                self._terminal_size = (rows, columns)
                if self._sandbox is not None:
                    self._sandbox.resize(rows, columns)
            case Cancel():
                self.cancel()
            case Stdin() | Eof():
                self._idle.touch()
                await self._input.put(message)

    async def _work(self) -> None:
        compiled: StageResult | None = None
        ran: StageResult | None = None
        reason = ""
        packed: Pack | None = None
        plan = self._plan
        key = self._outcome_key()
        kept = await self._cache.outcome(plan.runtime, key) if self._cache is not None and key else None
        if kept is not None:
            await self._input.close()
            self._repeat(kept)
            return
        try:
            if plan.compile_limits is not None:
                compiled, packed = await self._compile(plan.compile_limits)
            if compiled is None or compiled.verdict is Verdict.OK:
                ran, _nothing = await self._run_stage("run", plan.run_limits, plan.run_specification, packed)
        except SandboxFailure as failure:
            reason = f"the sandbox failed at {failure.step!r}: {failure.detail or os.strerror(failure.errno)}"
            _log.error("sandbox failure", run=self.id, step=failure.step, errno=failure.errno, detail=failure.detail)
        except CommandRefused as refused:
            reason = f"the program could not be started ({refused.step}): {refused.detail}"
        except Exception as error:  # noqa: BLE001 - whatever happens, the last event comes
            reason = f"an error in the engine: {type(error).__name__}"
            _log.exception("engine failure", run=self.id)
        finally:
            if packed is not None:
                os.close(packed.descriptor)
            if self._feeding is not None:
                self._feeding.cancel()
            await self._input.close()
        self._finish(compiled, ran, reason, keep_as=key)

    async def _compile(self, limits: Limits) -> tuple[StageResult, Pack | None]:
        """Run the compile stage, or find what it made before. Of several jobs that want the same, one compiles."""
        plan = self._plan
        if self._cache is None:
            return await self._run_stage("compile", limits, plan.compile_specification, None)
        command = self._command("compile", limits, None)
        key = compile_key(plan.runtime, list(command.argv), dict(command.env), plan.files, limits)
        found = await self._cache.compiled(plan.runtime, key)
        if found is None:
            if self._cancelled:  # before there was anything to wake up
                return _never_started("compile"), None
            self._waiting = asyncio.create_task(self._cache.take_turn(key))
            try:
                turn = await self._waiting
            except asyncio.CancelledError:
                return _never_started("compile"), None
            finally:
                self._waiting = None
            kept = False
            try:
                found = await self._cache.compiled(plan.runtime, key)
                if found is None:
                    result, pack = await self._run_stage("compile", limits, plan.compile_specification, None)
                    if result.verdict is Verdict.OK or (result.verdict in _REPEATABLE and result.exit_code):
                        self._cache.keep_compiled(plan.runtime, key, result, pack, turn)
                        kept = True  # and the turn is released when it is written
                    return result, pack
            finally:
                if not kept:
                    turn.release()
        result, pack = found
        self._served = "binary"
        result = self._repeat_stage(result)
        if result.verdict is not Verdict.OK:
            os.close(pack.descriptor)
        return result, pack if result.verdict is Verdict.OK else None

    def _outcome_key(self) -> str:
        """Name the outcome of the job, "" where nothing may be kept of it: a person's answers are nobody else's."""
        plan, job = self._plan, self._plan.job
        if plan.cache_level != "output" or job.interactive or job.terminal is not None:
            return ""
        stages: list[tuple[StageName, Limits | None]] = [("run", plan.run_limits), ("compile", plan.compile_limits)]
        commands = [self._command(stage, limits, None) for stage, limits in stages if limits is not None]
        words = [(command.argv, sorted(command.env.items())) for command in commands]
        parts = [plan.runtime, words, plan.files, job.stdin, job.artifacts, plan.run_limits, plan.compile_limits]
        return outcome_key([*parts, plan.artifact_bytes, plan.artifact_files, toolchain_state(plan.runtime)])

    def _repeat(self, kept: Result) -> None:
        """Tell of an outcome as if it happened now."""
        self._served = "output"
        self._artifacts = Artifacts(kept.artifacts, kept.left_out)
        stages = [self._repeat_stage(stage) if stage is not None else None for stage in (kept.compile, kept.run)]
        self._finish(stages[0], stages[1], "")

    def _repeat_stage(self, kept: StageResult) -> StageResult:
        """Tell of a stage as if it happened now; it cost nothing this time."""
        result = replace_fields(kept, wall_ms=0.0, cpu_ms=0.0, memory_peak_bytes=0)
        self._tell(result)
        return result

    def _tell(self, result: StageResult) -> None:
        """Emit every event of a stage that is over already."""
        self._emit(StageStarted(sequence=self._next(), stage=result.stage))
        for chunk in result.chunks:
            self._buffered_bytes += len(chunk.data) + EVENT_BYTES
            self._emit(Output(sequence=self._next(), stage=result.stage, stream=chunk.stream, data=chunk.data))
        self._emit(StageExited(sequence=self._next(), result=result))

    async def _run_stage(
        self, stage: StageName, limits: Limits, specification: SandboxSpec, packed: Pack | None
    ) -> tuple[StageResult, Pack | None]:
        """Run one stage in a sandbox of its own. Returns its result and, of a good compile stage, what it produced."""
        if self._cancelled:
            return _never_started(stage), None
        self._stage = stage
        self._transcript = Transcript()
        if self._plan.job.deadline is not None:
            elapsed_ms = (time.monotonic() - self._started_at) * 1000 if self._started_at else 0.0
            limits = self._plan.job.deadline.shorten(stage, limits, elapsed_ms=elapsed_ms)
        command = self._command(stage, limits, packed)
        if self._plan.may_start_ahead:
            specification, command = self._started_ahead(stage, specification, command)
        taken_at = time.monotonic()
        sandbox = await self._pool.take(specification)
        self._sandbox = sandbox
        try:
            if self._cancelled:
                return _never_started(stage), None

            def started() -> None:
                if self._announce is None:
                    return
                self._announce = None
                self._started_at = self._started_at or time.monotonic()
                self._prepare_ms += (time.monotonic() - taken_at) * 1000
                self._emit(StageStarted(sequence=self._next(), stage=stage))
                if stage == "run":
                    self._idle.start()
                if self._plan.job.interactive and stage == "run":
                    self._feeding = asyncio.create_task(self._input.feed(sandbox))

            self._announce = started
            try:
                ended = await sandbox.run(command, self._take_output, started)
                self._pool.count_start(sandbox, ended)
            except CommandRefused as refusal:
                result = refused(stage, command.argv[0], refusal, limits)
                if result is None:
                    raise
                self._announce = None
                self._tell(result)
                return result, None
            result = result_of(stage, ended, limits, self._transcript.chunks())
            if self._idle.is_over and ended.killed_by == "wall_time":
                result = replace_fields(result, reason=f"idle: no input and no output for {self._plan.idle_ms} ms")
            produced: Pack | None = None
            if stage == "compile" and result.verdict is Verdict.OK:
                result, produced = await take_produced(sandbox, result, limits)
            elif stage == "run" and self._plan.job.artifacts:
                self._artifacts = await take_artifacts(
                    sandbox, ended, limits, self._plan.job.artifacts, self._plan.artifact_bytes, self._plan.artifact_files
                )
                result = replace_fields(result, cpu_ms=result.cpu_ms + self._artifacts.cpu_ms)
        finally:
            self._idle.stop()
            self._sandbox = None
            sandbox.close()
        self._emit(StageExited(sequence=self._next(), result=result))
        return result, produced

    def _started_ahead(self, stage: StageName, specification: SandboxSpec, command: Command) -> tuple[SandboxSpec, Command]:
        """Ask for a sandbox in which the program of a stage waits already, where it can."""
        job, runtime = self._plan.job, self._plan.runtime
        if stage == "run":
            words = job.args
            ahead = plan_ahead(
                runtime,
                command.argv,
                words,
                command.env,
                self._plan.preload,
                job_env=job.env,
                alone=len(job.files) == 1,
                template=self._plan.template,
            )
        elif runtime.compile_ahead is None:
            return specification, command
        else:
            words = compile_words(runtime.compile_commands(self._sources(), command.memory_bytes, job.compile_args))
            ahead = plan_compiler_ahead(runtime, words, command.env, command.memory_bytes, job_env=job.env)
        if ahead is not None and runtime.limits(stage).stack_bytes:
            ahead = ahead._replace(stack_bytes=command.stack_bytes)
        return specification._replace(ahead=ahead), command._replace(tell=words if ahead is not None else None)

    def _command(self, stage: StageName, limits: Limits, packed: Pack | None) -> Command:
        job, runtime = self._plan.job, self._plan.runtime
        argv = command_line(stage, job, runtime, self._sources(), limits.memory_bytes)
        is_run = stage == "run"
        return Command(
            argv=tuple(argv),
            env=variables(stage, job, runtime),
            files=() if packed is not None else tuple(InputFile(file.name, file.content) for file in self._plan.files),
            packed=packed,
            stdin=job.stdin if is_run and not job.interactive else b"",
            interactive=job.interactive and is_run,
            terminal=self._terminal_size if is_run else None,
            wall_ms=limits.wall_ms,
            cpu_ms=limits.cpu_ms,
            memory_bytes=limits.memory_bytes,
            stack_bytes=limits.stack_bytes,
            processes=min(limits.processes, _PROCESSES_AT_MOST),
            open_files=limits.open_files,
            file_size_bytes=limits.file_size_bytes,
            output_bytes=limits.output_bytes,
            kill_on_output=limits.output_mode is OutputMode.KILL,
            keep_files=is_run and bool(job.artifacts),
        )

    def _sources(self) -> list[str]:
        return [file.name for file in self._plan.files if file.source]

    def _take_output(self, stream: StreamName, data: bytes) -> None:
        if self._announce is not None:  # a program may write before its start is reported
            self._announce()
        self._idle.touch()
        self._transcript.add(stream, data)
        if not self._keeps_events:
            return
        self._buffered_bytes += len(data) + EVENT_BYTES
        self._emit(Output(sequence=self._next(), stage=self._stage, stream=stream, data=data))
        if self._buffered_bytes > BUFFERED_BYTES and self._sandbox is not None and not self._cancelled:
            self._sandbox.pause()

    def _end_idle(self) -> None:
        if self._sandbox is not None:
            self._sandbox.kill("wall_time")

    def _finish(self, compiled: StageResult | None, ran: StageResult | None, reason: str, *, keep_as: str = "") -> None:
        verdict, reason = conclude(compiled, ran, reason, cancelled=self._cancelled)
        result = Result(
            id=self.id,
            runtime=self.runtime,
            verdict=verdict,
            reason=reason,
            compile=compiled,
            run=ran,
            timings=Timings(
                queue_ms=self._queue_ms,
                prepare_ms=self._prepare_ms,
                compile_ms=compiled.wall_ms if compiled else 0.0,
                run_ms=ran.wall_ms if ran else 0.0,
            ),
            artifacts=self._artifacts.files,
            left_out=self._artifacts.left_out,
            cache=self._served,
            isolation=self._isolation,
        )
        if self._cache is not None and keep_as and result.verdict in (*_REPEATABLE, Verdict.COMPILE_ERROR, Verdict.SIGNAL):
            self._cache.keep_outcome(self._plan.runtime, keep_as, result)
        self._result = result
        self._on_finished(self, result)
        self._emit(Finished(sequence=self._next(), result=result))

    def _emit(self, event: Event) -> None:
        if self._keeps_events:
            self._events.append(event)
            self._arrived.set()

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


def _never_started(stage: StageName) -> StageResult:
    """Return what is left of a stage that was cancelled before its program ran."""
    return StageResult(
        stage=stage,
        verdict=Verdict.CANCELLED,
        reason="cancelled by the client",
        exit_code=None,
        signal=None,
        chunks=(),
        stdout_truncated=False,
        stderr_truncated=False,
        wall_ms=0.0,
        cpu_ms=0.0,
        memory_peak_bytes=0,
    )


def _is_terminal_size(rows: int, columns: int) -> bool:
    return all(1 <= size <= _TERMINAL_ROWS_AND_COLUMNS_AT_MOST for size in (rows, columns))
