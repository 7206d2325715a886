"""One job from admission to its last event: its stages, its events in order, its result exactly once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self

from msgspec.structs import replace as replace_fields

from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.domain.limits import Limits, StageName
from firebox.domain.model import (
    SIGNALS,
    CacheLevel,
    Cancel,
    Dispatched,
    Eof,
    Event,
    Finished,
    Message,
    Resize,
    Result,
    RuntimeName,
    Signal,
    StageExited,
    StageResult,
    StageStarted,
    Stdin,
    Timings,
    Verdict,
)
from firebox.engine.admission import Admission, Place
from firebox.engine.backends.backend import Artifacts, Backend, Stage
from firebox.engine.event_buffer import EventBuffer
from firebox.engine.input import IdleClock, InputQueue
from firebox.engine.log import LazyLogger
from firebox.engine.plan import Plan
from firebox.engine.run_table import RunTable
from firebox.engine.transcript import Transcript
from firebox.engine.verdicts import conclude, never_started, refused, result_of
from firebox.sandbox.spec import Command, CommandRefused, Exit, Output, Pack, SandboxFailure, Started

if TYPE_CHECKING:  # without a cache there is no need to load it
    from firebox.engine.job_cache import JobCache

_MAX_TERMINAL_SIZE = 1000
"""Rows and columns each."""

_REPEATABLE = (Verdict.OK, Verdict.RUNTIME_ERROR)
"""Verdicts of a stage that would end the same way again; what a clock or a client ended differs each time."""

_KEPT_OUTCOMES = (*_REPEATABLE, Verdict.COMPILE_ERROR, Verdict.SIGNAL)

_DISPATCHED = Dispatched()

_log = LazyLogger()


class Run:
    """Implements `model.Run` for every backend."""

    def __init__(
        self, identifier: str, plan: Plan, backend: Backend[Any], admission: Admission, table: RunTable, cache: JobCache | None
    ) -> None:
        self.id = identifier
        self.job = plan.job
        self.runtime = RuntimeName(plan.runtime.language, plan.runtime.version)
        self.failure: FireboxError | OSError | None = None
        self._plan = plan
        self._backend = backend
        self._admission = admission
        self._table = table
        self._cache = cache if plan.cache_level != "none" else None
        self._submitted_at = time.monotonic()
        self._queue_ms = 0.0
        self._prepare_ms = 0.0
        self._started_at = 0.0  # the first program of the job; 0: none yet
        self._place: Place | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_slot = False
        self._events = EventBuffer()
        self._input = InputQueue(plan.job.stdin) if plan.job.interactive else None
        self._terminal_size = (plan.job.terminal.rows, plan.job.terminal.columns) if plan.job.terminal else None
        self._idle = IdleClock(plan.idle_ms, self._end_idle)
        self._cancelled = False
        self._early_signals: dict[str, None] = {}
        self._served: CacheLevel = "none"
        self._turn: asyncio.Task[asyncio.Lock] | None = None
        self._stage: Stage | None = None
        self._is_running = False  # the program of the stage
        self._leaving: Awaitable[object] | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._compiled: StageResult | None = None
        self._ran: StageResult | None = None
        self._artifacts = Artifacts()
        self._result: Result | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        try:
            self.cancel()
            if self._task is not None and not self._task.done():
                await asyncio.wait({self._task}, timeout=self._backend.leave_within_s)
        finally:
            if self._task is None or self._task.done():
                self._table.left(self)
            else:
                self._task.add_done_callback(lambda _task: self._table.left(self))

    @property
    def is_queued(self) -> bool:
        """Whether it waits for a slot."""
        return self._place is not None

    def start(self, place: Place | None) -> None:
        """Run the job, or wait for a slot. place: in the queue; None when there is a slot already."""
        self._place = place
        if place is not None:
            place.dispatch = self._begin
        else:
            self._begin()

    def cancel(self) -> None:
        """Kill what runs, or leave the queue. Without effect once there is a result."""
        if self._result is not None:
            return
        self._cancelled = True
        if self._place is not None:
            self._admission.leave(self._place)
            self._place = None
            self._queue_ms = (time.monotonic() - self._submitted_at) * 1000
            self._finish("cancelled while it waited for a slot")
            return
        if self._turn is not None:
            self._turn.cancel()
        if self._stage is not None:
            self._stage.kill("cancelled")

    async def gone(self) -> None:
        """Wait until nothing of the run is left."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def events(self) -> AsyncIterator[Event]:
        """Yield every event, ending with `Finished`. Backpressure: a slow reader makes the program wait."""
        return self._events.read()

    async def result(self) -> Result:
        """Wait for the result; see `model.Run`. Cancelling the wait does not affect the run."""
        await self._events.finished()
        assert self._result is not None  # noqa: S101 - set before the last event
        return self._result

    async def send(self, message: Message) -> None:
        """Pass a message to the program; see `model.Run`."""
        match message:
            case Signal(name) if name not in SIGNALS:
                raise InvalidRequest(f"no such signal: {name!r}", where="signal", hint="one of " + " ".join(SIGNALS))
            case Resize(rows, columns) if not (1 <= rows <= _MAX_TERMINAL_SIZE and 1 <= columns <= _MAX_TERMINAL_SIZE):
                raise InvalidRequest("rows and columns must be from 1 to 1000", where="resize")
            case Signal(name):
                if self._stage is not None and self._is_running:
                    self._stage.signal(signal.Signals[name])
                else:
                    self._early_signals[name] = None
            case Resize(rows, columns):
                self._terminal_size = (rows, columns)
                if self._stage is not None:
                    self._stage.resize(rows, columns)
            case Cancel():
                self.cancel()
            case Stdin() | Eof():
                self._idle.touch()
                if self._input is not None:
                    await self._input.put(message)

    def _begin(self) -> None:
        """Take the slot and begin to work."""
        self._place = None
        self._has_slot = True
        self._queue_ms = (time.monotonic() - self._submitted_at) * 1000
        self._events.put(_DISPATCHED)
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(self._settle)

    async def _work(self) -> None:
        """Do the job. Whatever this raises, `_settle` writes the last event."""
        reason = ""
        key = ""
        kept: Result | None = None
        try:
            if self._cache is not None and (key := self._outcome_key(self._cache)):
                kept = await self._cache.outcome(self._plan.runtime, key)
            if kept is not None:
                self._repeat(kept)
                key = ""
            else:
                await self._run_stages()
        except SandboxFailure as failure:
            reason = f"the sandbox failed at {failure.step!r}: {failure.detail or os.strerror(failure.errno)}"
            _log.error("sandbox failure", run=self.id, step=failure.step, errno=failure.errno, detail=failure.detail)
        except CommandRefused as refusal:
            reason = f"the program could not be started ({refusal.step}): {refusal.detail}"
        except FireboxError as error:
            self.failure = error
            reason = error.message
        except Exception as error:  # noqa: BLE001 - a slot is free once nothing of its run is left, whatever went wrong
            reason = f"an error in the engine: {type(error).__name__}"
            if isinstance(error, OSError):
                self.failure = error
            else:
                self._report(error)
        finally:
            if self._feeding is not None:
                self._feeding.cancel()
            self._backend.finish()
        try:
            self._finish(reason, keep_as=key)
        finally:
            if self._leaving is not None:
                await self._leaving
        self._release()

    def _settle(self, task: asyncio.Task[None]) -> None:
        """Emit the last event and release the slot if the work did not, whatever ended it."""
        error = None if task.cancelled() else task.exception()
        try:
            if self._result is None:
                self._finish(f"an error in the engine: {type(error).__name__}" if error is not None else "the engine was stopped")
        finally:
            self._release()
        if error is not None:
            self._report(error)

    def _report(self, error: BaseException) -> None:
        context = {"message": f"an error in the engine, run {self.id}", "exception": error, "task": self._task}
        asyncio.get_running_loop().call_exception_handler(context)

    def _release(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._admission.release(self.job.client)

    async def _run_stages(self) -> None:
        plan = self._plan
        packed: Pack | None = None
        try:
            if plan.compile_limits is not None:
                self._compiled, packed = await self._compile(plan.compile_limits)
            if self._compiled is None or self._compiled.verdict is Verdict.OK:
                self._ran, _nothing = await self._run_stage("run", plan.run_limits, packed)
        finally:
            if packed is not None:
                os.close(packed.descriptor)

    async def _compile(self, limits: Limits) -> tuple[StageResult, Pack | None]:
        """Run the compile stage, or find what it made before. Of several jobs that want the same, one compiles."""
        plan = self._plan
        if self._cache is None:
            return await self._run_stage("compile", limits, None)
        command = self._command("compile", limits)
        key = self._cache.key(plan.runtime, list(command.argv), sorted(command.env.items()), plan.files, limits)
        found = await self._cache.compiled(plan.runtime, key)
        if found is None:
            if self._cancelled:  # before there was anything to wake up
                return never_started("compile"), None
            self._turn = asyncio.create_task(self._cache.take_turn(key))
            try:
                turn = await self._turn
            except asyncio.CancelledError:
                return never_started("compile"), None
            finally:
                self._turn = None
            kept = False
            try:
                found = await self._cache.compiled(plan.runtime, key)
                if found is None:
                    result, pack = await self._run_stage("compile", limits, None)
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

    def _outcome_key(self, cache: JobCache) -> str:
        """Return the cache key of the job's outcome, "" where it must not be cached: interactive runs never repeat."""
        plan, job = self._plan, self._plan.job
        if plan.cache_level != "output" or job.interactive or job.terminal is not None:
            return ""
        stages: list[tuple[StageName, Limits | None]] = [("run", plan.run_limits), ("compile", plan.compile_limits)]
        commands = [self._command(stage, limits) for stage, limits in stages if limits is not None]
        words = [(command.argv, sorted(command.env.items())) for command in commands]
        parts = [words, plan.files, job.stdin, job.artifacts, plan.run_limits, plan.compile_limits, job.deadline]
        return "outcome-" + cache.key(plan.runtime, *parts, plan.artifact_bytes, plan.artifact_files)

    def _repeat(self, kept: Result) -> None:
        """Emit a cached outcome as if it happened now."""
        self._served = "output"
        self._artifacts = Artifacts(kept.artifacts, kept.left_out)
        self._compiled, self._ran = (
            self._repeat_stage(stage) if stage is not None else None for stage in (kept.compile, kept.run)
        )

    def _repeat_stage(self, kept: StageResult) -> StageResult:
        """Emit a cached stage as if it happened now; it cost nothing this time."""
        result = replace_fields(kept, wall_ms=0.0, cpu_ms=0.0, memory_peak_bytes=0)
        self._emit_stage(result)
        return result

    def _emit_stage(self, result: StageResult) -> None:
        """Emit every event of a stage that has ended already."""
        self._events.put(StageStarted(sequence=self._events.next_sequence(), stage=result.stage))
        for chunk in result.chunks:
            self._events.put_output(result.stage, chunk.stream, chunk.data)
        self._events.put(StageExited(sequence=self._events.next_sequence(), result=result))

    async def _run_stage(self, name: StageName, limits: Limits, packed: Pack | None) -> tuple[StageResult, Pack | None]:
        """Run one stage. Returns its result and, of a good compile stage, what it made."""
        if self._cancelled:
            return never_started(name), None
        if self.job.deadline is not None:
            elapsed_ms = (time.monotonic() - self._started_at) * 1000 if self._started_at else 0.0
            limits = self.job.deadline.shorten(name, limits, elapsed_ms=elapsed_ms)
        backend = self._backend
        transcript = Transcript(limits.output_bytes)
        opened_at = time.monotonic()
        stage, command = await backend.open(self._plan, name, self._command(name, limits, packed))
        self._stage = stage
        try:
            if self._cancelled:
                return never_started(name), None
            try:
                ended = await self._follow(stage, name, command, transcript, opened_at)
            except CommandRefused as refusal:
                result = refused(name, command.argv[0], refusal, limits, backend.work)
                if result is None:
                    raise
                self._emit_stage(result)
                return result, None
            if ended is None:
                return never_started(name), None
            backend.note_exit(stage, ended)
            result = result_of(name, transcript.mark(ended), limits, transcript.chunks())
            if self._idle.is_over and ended.killed_by == "wall_time":
                result = replace_fields(result, reason=f"idle: no input and no output for {self._plan.idle_ms} ms")
            produced: Pack | None = None
            if name == "compile" and result.verdict is Verdict.OK:
                result, produced = await backend.take_produced(stage, result, limits)
            elif name == "run" and self.job.artifacts:
                self._artifacts = await backend.take_artifacts(stage, ended, self._plan)
                result = replace_fields(result, cpu_ms=result.cpu_ms + self._artifacts.cpu_ms)
        finally:
            self._is_running = False
            self._idle.stop()
            self._stage = None
            self._leaving = stage.close()
        self._events.put(StageExited(sequence=self._events.next_sequence(), result=result))
        return result, produced

    def _command(self, stage: StageName, limits: Limits, packed: Pack | None = None) -> Command:
        env = self._backend.environment(self._plan, stage)
        return self._plan.command(stage, limits, env, packed=packed, terminal=self._terminal_size)

    async def _follow(
        self, stage: Stage, name: StageName, command: Command, transcript: Transcript, opened_at: float
    ) -> Exit | None:
        """Run the program of a stage to its end, passing on what happens. Returns None when it was killed before it started."""
        ended: Exit | None = None
        async with aclosing(stage.events(command)) as events:
            async for event in events:
                match event:
                    case Started():
                        self._announce(stage, name, opened_at)
                    case Output(stream, data):
                        self._idle.touch()
                        kept = transcript.add(stream, data)
                        if len(kept) < len(data) and command.kill_on_output:  # a container does not do it by itself
                            stage.kill("output")
                        if kept:
                            self._events.put_output(name, stream, kept)
                            if self._events.is_full and not stage.ended.done():
                                # A slow reader makes a program wait, but does not keep one that has ended, or its slot.
                                await asyncio.wait({self._events.has_room(), stage.ended}, return_when=asyncio.FIRST_COMPLETED)
                    case Exit():
                        ended = event
        return ended if self._is_running else None

    def _announce(self, stage: Stage, name: StageName, opened_at: float) -> None:
        """Emit the start of a stage, and begin what is for a running program."""
        self._is_running = True
        now = time.monotonic()
        self._started_at = self._started_at or now
        self._prepare_ms += (now - opened_at) * 1000
        self._events.put(StageStarted(sequence=self._events.next_sequence(), stage=name))
        for early in self._early_signals:
            stage.signal(signal.Signals[early])
        self._early_signals.clear()
        if name == "run":
            self._idle.start()
            if self._input is not None:
                self._feeding = asyncio.create_task(self._input.feed(stage))

    def _end_idle(self) -> None:
        if self._stage is not None:
            self._stage.kill("wall_time")

    def _finish(self, reason: str, *, keep_as: str = "") -> None:
        """Write the result and the last event. reason: what went wrong on our side, "" for nothing. keep_as: a cache key."""
        compiled, ran = self._compiled, self._ran
        if self._input is not None:
            self._input.close()
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
            isolation=self._backend.isolation,
        )
        if self._cache is not None and keep_as and verdict in _KEPT_OUTCOMES:
            self._cache.keep_outcome(self._plan.runtime, keep_as, result)
        self._result = result
        try:
            self._table.ended(self, result)
        finally:
            self._events.finish(Finished(sequence=self._events.next_sequence(), result=result))
