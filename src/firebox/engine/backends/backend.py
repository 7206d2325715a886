"""What `Run` needs from a backend: start a stage, stream its output, signal, resize, kill, and report how it ended."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

from firebox.domain.limits import Limits, StageName
from firebox.domain.model import File, LeftOut, StageResult
from firebox.engine.plan import Plan, variables
from firebox.sandbox.plan.mounts import WORK
from firebox.sandbox.spec import Command, Event, Exit, Pack


class Artifacts(NamedTuple):
    """Files that a run returns. cpu_ms: CPU time spent on finding them."""

    files: tuple[File, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    cpu_ms: float = 0.0


class Stage(Protocol):
    """One stage: `events` once, then `close`. Everything else is for while it runs, and without effect afterwards.

    ended: done once the program has ended or is being killed; its last output may be left to read.
    """

    ended: asyncio.Future[None]

    def events(self, command: Command) -> AsyncGenerator[Event]:
        """Run a command: yield `Started`, then its output as it arrives, then how it ended.

        Without `Started` when it was killed before. Backpressure: a slow consumer blocks the program.
        Raises: CommandRefused when it cannot be started as requested, SandboxFailure and FireboxError when the backend fails.
        """
        ...

    async def write_stdin(self, data: bytes) -> None:
        """Write to the program's stdin; waits while the program does not read. Ignored once it is closed."""
        ...

    def close_stdin(self) -> None: ...

    def signal(self, number: int) -> None:
        """Send a signal to the program's process group."""
        ...

    def resize(self, rows: int, columns: int) -> None: ...

    def kill(self, why: str) -> None:
        """Kill the program and its children. why: `Exit.killed_by`; the first one counts."""
        ...

    def close(self) -> Awaitable[object] | None:
        """Release everything; what still runs is killed. Returns what to wait for until it is gone, or None."""
        ...


S = TypeVar("S", bound=Stage)


class Backend(ABC, Generic[S]):
    """One way to run stages."""

    work = WORK
    """The folder with the job's files."""
    leave_within_s: float | None = None
    """How long leaving a run waits for the rest of it to be gone; the slot is kept until it is. None: until it is gone."""

    @property
    def isolation(self) -> tuple[str, ...]:
        """The layers of isolation that every stage gets, as in `Result.isolation`."""
        return ()

    def environment(self, plan: Plan, stage: StageName) -> Mapping[str, str]:
        """Return the environment of a stage's command."""
        return variables(stage, plan.job, plan.runtime)

    @abstractmethod
    async def open(self, plan: Plan, stage: StageName, command: Command) -> tuple[S, Command]:
        """Prepare a stage, and the command to run in it. Raises: SandboxFailure, FireboxError; OSError for a file of the job."""

    def note_exit(self, stage: S, ended: Exit) -> None:
        """Take note of how a stage ended."""
        del stage, ended

    async def take_produced(self, stage: S, result: StageResult, limits: Limits) -> tuple[StageResult, Pack | None]:
        """Collect what a good compile stage made, for the run stage. Returns the stage's result, an error if that is too much.

        None: the run stage finds it in the same folder. Raises: SandboxFailure.
        """
        del stage, limits
        return result, None

    async def take_artifacts(self, stage: S, ended: Exit, plan: Plan) -> Artifacts:
        """Collect the artifacts that the job asks for."""
        del stage, ended, plan
        return Artifacts()

    def finish(self) -> None:
        """Remove what the stages of a job shared; called once after the last one."""
