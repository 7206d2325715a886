"""Whatever goes wrong beneath a run, in whichever backend: `Finished` comes exactly once and last, and the slot is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from firebox.domain.errors import FireboxError, NotFound
from firebox.domain.limits import Limits, StageName
from firebox.domain.model import Cancel, Event, File, Finished, Image, Job, Queued, Result, StageResult, Verdict
from firebox.engine.admission import Admission
from firebox.engine.backends.backend import Artifacts, Backend, Stage
from firebox.engine.backends.docker_attachment import Attachment
from firebox.engine.backends.docker_backend import ContainerStage, DockerBackend
from firebox.engine.backends.docker_engine import ContainerEngine
from firebox.engine.backends.docker_sweeper import Sweeper
from firebox.engine.backends.process_backend import ProcessBackend
from firebox.engine.plan import Plan, Planner
from firebox.engine.run import Run
from firebox.engine.run_table import RunTable
from firebox.runtimes.registry import Registry
from firebox.sandbox.spec import Command, CommandRefused, Exit, Output, Pack, SandboxFailure, Started
from firebox.sandbox.spec import Event as SandboxEvent
from firebox.settings.settings import load_settings
from tests.engine.conftest import RUNTIMES, Engine

FAULTS: tuple[type[BaseException], ...] = (
    RuntimeError,
    KeyError,
    AssertionError,
    MemoryError,
    OSError,
    NotImplementedError,
    asyncio.CancelledError,
    asyncio.InvalidStateError,
    BaseExceptionGroup,
)


def fault_of(kind: type[BaseException]) -> BaseException:
    return BaseExceptionGroup("several", [RuntimeError("one")]) if kind is BaseExceptionGroup else kind("injected")


class Failing(Backend[Any]):
    """A real backend, of which one step raises."""

    def __init__(self, inner: Backend[Any], step: str, fault: BaseException) -> None:
        self._inner = inner
        self._step = step
        self._fault = fault
        self.work = inner.work
        self.leave_within_s = inner.leave_within_s

    def _check(self, step: str) -> None:
        if step == self._step:
            raise self._fault

    def environment(self, plan: Plan, stage: StageName) -> Any:
        self._check("environment")
        return self._inner.environment(plan, stage)

    async def open(self, plan: Plan, stage: StageName, command: Command) -> tuple[Stage, Command]:
        self._check("open")
        opened, command = await self._inner.open(plan, stage, command)
        events = opened.events

        async def failing(command: Command) -> AsyncGenerator[SandboxEvent]:
            async with aclosing(events(command)) as inner:
                async for event in inner:
                    if isinstance(event, Exit):
                        self._check("run")
                    yield event
                    if isinstance(event, Started):
                        self._check("started")

        opened.events = failing
        return opened, command

    def note_exit(self, stage: Any, ended: Exit) -> None:
        self._check("note_exit")
        self._inner.note_exit(stage, ended)

    async def take_produced(self, stage: Any, result: StageResult, limits: Limits) -> tuple[StageResult, Pack | None]:
        self._check("take_produced")
        return await self._inner.take_produced(stage, result, limits)

    async def take_artifacts(self, stage: Any, ended: Exit, plan: Plan) -> Artifacts:
        self._check("take_artifacts")
        return await self._inner.take_artifacts(stage, ended, plan)

    def finish(self) -> None:
        self._inner.finish()
        self._check("finish")


class Bench:
    """Runs one job on a backend, in the only slot."""

    def __init__(self, backend: Backend[Any], plan: Plan) -> None:
        self.admission = Admission(1, 1, 1)
        self.runs = RunTable()
        self.results: list[Result] = []
        self.runs.listeners.append(lambda _run, result: self.results.append(result))
        self.run = Run("id", plan, backend, self.admission, self.runs, None)
        self.runs.add(self.run)
        self.run.start(self.admission.enter(""))

    async def events(self) -> list[Event]:
        async with asyncio.timeout(30), self.run:
            return [event async for event in self.run.events()]

    async def check(self) -> Result:
        """Check what holds of every run. Returns its result."""
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        events = await self.events()
        assert isinstance(events[0], Queued)
        assert [type(event) for event in events].count(Finished) == 1
        last = events[-1]
        assert isinstance(last, Finished)
        assert self.results == [last.result]
        assert await self.run.result() == last.result
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert self.admission.statistics() == (1, 0, 0)
        return last.result


def plan_of(job: Job) -> Plan:
    return Planner(load_settings({}, environ={}), Registry(RUNTIMES)).plan(job)


COMPILED = Job(language="copied", files=(File("main.sh", b"echo 'echo ran' > built.sh"),), artifacts=("*",))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "step", ["environment", "open", "started", "run", "note_exit", "take_produced", "take_artifacts", "finish"]
)
async def test_any_error_in_a_sandbox_ends_the_run_once(engine: Engine, step: str, fault: type[BaseException]) -> None:
    result = await Bench(Failing(engine.executor._sandboxes, step, fault_of(fault)), plan_of(COMPILED)).check()
    assert result.verdict is Verdict.INTERNAL
    assert result.reason


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", ["environment", "open", "started", "run", "note_exit", "take_produced", "finish"])
async def test_any_error_with_a_process_ends_the_run_once(tmp_path: Path, step: str, fault: type[BaseException]) -> None:
    result = await Bench(Failing(ProcessBackend(tmp_path), step, fault_of(fault)), plan_of(COMPILED)).check()
    assert result.verdict is Verdict.INTERNAL
    assert result.reason


class FailingEngine(ContainerEngine):
    """A container engine of which one call raises; the others succeed without an engine."""

    def __init__(self, call: str, fault: BaseException) -> None:
        super().__init__("unix:///nonexistent")
        self._failing = call
        self._fault = fault

    async def _answer(self, call: str) -> None:
        await asyncio.sleep(0)
        if call == self._failing:
            raise self._fault

    async def create(self, name: str, configuration: Any) -> None:
        await self._answer("create")

    async def attach(self, name: str, *, stdin: bool) -> Any:
        await self._answer("attach")
        return SilentAttachment()

    async def start(self, name: str) -> None:
        await self._answer("start")

    async def exit_code(self, name: str) -> int:
        await self._answer("exit_code")
        return 0

    async def remove(self, name: str) -> None:
        await self._answer("remove")


class SilentAttachment:
    """The streams of a program that writes nothing."""

    async def output(self) -> AsyncGenerator[Any]:
        nothing: tuple[Any, ...] = ()
        for chunk in nothing:
            yield chunk

    def close(self) -> None:
        return


IMAGE = Job(language="x", image=Image(name="image"))


@pytest.mark.parametrize("fault", [*FAULTS, FireboxError])
@pytest.mark.parametrize("call", ["create", "attach", "start", "exit_code", "remove"])
async def test_any_error_with_a_container_ends_the_run_once(call: str, fault: type[BaseException]) -> None:
    engine = FailingEngine(call, fault_of(fault))
    result = await Bench(DockerBackend(engine, Sweeper(engine)), plan_of(IMAGE)).check()
    assert result.verdict is (Verdict.OK if call == "remove" else Verdict.INTERNAL)


async def test_a_failure_with_a_class_is_kept(engine: Engine) -> None:
    bench = Bench(Failing(engine.executor._sandboxes, "open", NotFound("image", "x")), plan_of(COMPILED))
    result = await bench.check()
    assert isinstance(bench.run.failure, NotFound)
    assert result.reason == bench.run.failure.message


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (SandboxFailure("step", 2, "detail"), "the sandbox failed at 'step': detail"),
        (CommandRefused("terminal", 2, "detail"), "the program could not be started (terminal): detail"),
    ],
)
async def test_a_failure_of_the_sandbox_says_where(engine: Engine, fault: Exception, words: str) -> None:
    assert (await Bench(Failing(engine.executor._sandboxes, "run", fault), plan_of(COMPILED)).check()).reason == words


async def test_a_run_that_is_cancelled_in_the_queue_never_begins(tmp_path: Path) -> None:
    bench = Bench(ProcessBackend(tmp_path), plan_of(COMPILED))
    runs = RunTable()
    second = Run("second", plan_of(COMPILED), ProcessBackend(tmp_path), bench.admission, runs, None)
    runs.add(second)
    second.start(bench.admission.enter(""))
    assert second.is_queued
    async with second:
        await second.send(Cancel())
        events = [event async for event in second.events()]
    assert [type(event) for event in events] == [Queued, Finished]
    assert (await second.result()).verdict is Verdict.CANCELLED
    assert not list(tmp_path.iterdir())
    assert (await bench.check()).verdict is Verdict.OK


class RecordingEngine(ContainerEngine):
    """An engine whose containers write nothing and never end. Records what is asked of it."""

    def __init__(self) -> None:
        super().__init__("unix:///nowhere")
        self.calls: list[str] = []
        self.output_ended = asyncio.Event()

    async def create(self, name: str, configuration: Mapping[str, Any]) -> None:
        self.calls.append("create")

    async def attach(self, name: str, *, stdin: bool) -> Attachment:
        self.calls.append("attach")
        return EndlessAttachment(self.output_ended)

    async def start(self, name: str) -> None:
        self.calls.append("start")

    async def exit_code(self, name: str) -> int:
        self.calls.append("exit_code")
        return 0

    async def remove(self, name: str) -> None:
        self.calls.append("remove")


class EndlessAttachment(Attachment):
    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    async def output(self) -> AsyncGenerator[Output]:
        await self._ended.wait()
        nothing: tuple[Output, ...] = ()
        for output in nothing:
            yield output

    def close(self) -> None:
        self._ended.set()


async def test_a_killed_container_is_only_removed() -> None:
    """Its output ends as that of a program that goes on, but it has no exit code to ask for."""
    engine = RecordingEngine()
    stage = ContainerStage(engine, Sweeper(engine), {})
    events: list[SandboxEvent] = []
    async for event in stage.events(Command(("true",), {})):
        events.append(event)
        asyncio.get_running_loop().call_soon(stage.kill, "wall_time")
    await (stage.close() or asyncio.sleep(0))
    assert [type(event) for event in events] == [Started, Exit]
    assert engine.calls == ["create", "attach", "start", "remove"]
