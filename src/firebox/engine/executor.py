"""This machine's executor: admits jobs, runs their stages in sandboxes, and turns what happens into events and one result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from itertools import repeat
from typing import NamedTuple, Self

from firebox.domain.errors import SandboxError
from firebox.domain.model import Job, Result, Run
from firebox.engine.admission import Admission, WaitingBytes
from firebox.engine.job_cache import JobCache
from firebox.engine.log import LazyLogger
from firebox.engine.plan import Planner
from firebox.engine.run import LocalRun
from firebox.runtimes.prestart import hook_texts
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.launcher.launcher_start import StartedLauncher
from firebox.sandbox.launcher.launchers import Launchers
from firebox.sandbox.pool.pool import Pool
from firebox.sandbox.spec import SandboxFailure, SandboxSpec
from firebox.settings.settings import Settings

ResultListener = Callable[[Result], None]
CACHE = "job-cache"
"""The folder of data_dir with what is kept of jobs."""

Hold = Callable[[str], AbstractContextManager[object]]
"""Keeps an installed package, named by `Runtime.installed`, from being uninstalled meanwhile. Raises: Conflict."""

_log = LazyLogger()


class Statistics(NamedTuple):
    """What the executor is doing now, for metrics and health.

    in_flight, queued: interactive runs too, which have slots of their own.
    """

    slots: int
    in_flight: int
    queued: int
    ready_sandboxes: int
    ready_target: int
    made_on_demand: int
    started_ahead: int
    restored: int
    launcher_restarts: int


class LocalExecutor:
    """Implements `model.Executor` with sandboxes of this machine. Use it as an asynchronous context manager."""

    def __init__(
        self, settings: Settings, registry: Registry, *, hold: Hold = nullcontext, launcher: StartedLauncher | None = None
    ) -> None:
        """launcher: one that was started, with its settings, before this."""
        folder = settings.data_dir / CACHE
        self._cache = JobCache(folder, max_bytes=settings.job_cache_bytes, max_age_s=settings.job_cache_s)
        self._settings = settings
        self._planner = Planner(settings, registry)
        self._hold = hold
        hooks = hook_texts()
        started = (launcher, *repeat(None, settings.launcher_count - 1))
        self._launchers = Launchers(LauncherProcess(uid_base=settings.uid_base, hooks=hooks, started=each) for each in started)
        waiting_bytes = WaitingBytes(settings.held_bytes, settings.held_bytes_per_client)
        self.admission = Admission(
            settings.slot_count,
            settings.queue_length,
            settings.queue_per_client,
            waiting_bytes=waiting_bytes,
            reserved=settings.reserved_count,
            slots_per_client=settings.slots_per_client,
        )
        self._attended = Admission(
            settings.interactive_slot_count,
            settings.queue_length,
            settings.queue_per_client,
            waiting_bytes=waiting_bytes,
            reserved=settings.interactive_reserved_count,
            slots_per_client=settings.slots_per_client,
        )
        self._pool = Pool(
            self._launchers,
            self._planner.usual_specifications,
            settings.ready_count,
            template_age_s=settings.template_age_s,
            template_runs=settings.template_runs,
            no_template=_note_no_template,
        )
        self._listeners: list[ResultListener] = []
        self._runs: set[LocalRun] = set()

    @property
    def isolation(self) -> tuple[str, ...]:
        """The layers every run gets; known once started."""
        return self._launchers.layers

    @property
    def isolation_reasons(self) -> tuple[str, ...]:
        """Why better kinds of control groups are not used here."""
        return self._launchers.reasons

    @property
    def launcher_pids(self) -> tuple[int, ...]:
        """The processes that make sandboxes; none before the start."""
        return self._launchers.pids

    async def __aenter__(self) -> Self:
        """Start the launchers and begin to keep sandboxes ready. Raises: SandboxError when this host cannot make one."""
        try:
            await self._pool.start()
        except SandboxFailure as failure:
            await self._launchers.close()
            hint = failure.hint or "run `firebox doctor`"
            raise SandboxError(failure.step, failure.errno, detail=failure.detail, hint=hint) from None
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Cancel what runs and end every sandbox; nothing of them is left afterwards."""
        self.admission.close()
        self._attended.close()
        for run in list(self._runs):
            run.cancel()
        await asyncio.gather(*(run.wait() for run in list(self._runs)))
        await self._cache.written()
        await self._pool.close()
        await self._launchers.close()

    def on_result(self, listener: ResultListener) -> None:
        """Have `listener` called with every result, right before its last event."""
        self._listeners.append(listener)

    async def purge(self, runtime: Runtime) -> int:
        """Forget what is kept of jobs of a runtime. Returns how many entries there were. Raises: OSError."""
        return await self._cache.purge(runtime)

    def forget_layers(self, layers: Iterable[str]) -> None:
        """Let go of images whose packages are gone; runs that still use them keep them."""
        gone = set(layers)
        self._pool.forget(gone)
        for layer in gone:
            self._launchers.forget(layer)

    def statistics(self) -> Statistics:
        admission, attended, pool = self.admission.statistics(), self._attended.statistics(), self._pool.statistics()
        return Statistics(
            slots=admission.slots,
            in_flight=admission.in_flight + attended.in_flight,
            queued=admission.queued + attended.queued,
            ready_sandboxes=pool.ready,
            ready_target=pool.target,
            made_on_demand=pool.made_on_demand,
            started_ahead=pool.prestarted,
            restored=pool.restored,
            launcher_restarts=pool.launcher_restarts,
        )

    def start(self, job: Job) -> AbstractAsyncContextManager[Run]:
        """Admit and start a job, as `model.Executor` says."""
        return self._start(job)

    @asynccontextmanager
    async def _start(self, job: Job) -> AsyncGenerator[Run]:
        plan = self._planner.plan(job)
        with self._hold(plan.runtime.installed) if plan.runtime.installed else nullcontext():
            asked_at = time.monotonic()
            await self._admission_of(job).acquire(job.client, _held_bytes(job))
            queue_ms = (time.monotonic() - asked_at) * 1000
            run = LocalRun(
                job.id or _new_id(),
                plan,
                self._pool,
                isolation=self._launchers.layers,
                cache=self._cache,
                queue_ms=queue_ms,
                finished=self._finished,
            )
            self._runs.add(run)
            run.begin()
            try:
                yield run
            finally:
                run.cancel()
                await run.wait()

    def _finished(self, run: LocalRun, result: Result) -> None:
        self._admission_of(run.job).release(run.job.client)
        self._runs.discard(run)
        for listener in self._listeners:
            try:
                listener(result)
            except Exception:  # noqa: BLE001 - a listener's fault must not take the run's result with it
                _log.exception("a result listener failed", run=run.id)

    def _admission_of(self, job: Job) -> Admission:
        return self._attended if job.attended else self.admission


def _new_id() -> str:
    """Make an id for a run. The library is loaded when it is needed: `firebox run` does without."""
    from ulid import ULID

    return str(ULID())


def _held_bytes(job: Job) -> int:
    """Add up what a job holds in memory while it waits: about what its request was."""
    words = (*job.args, *job.compile_args, *job.env, *job.env.values(), *job.artifacts, job.command)
    return len(job.stdin) + sum(len(file.content) + len(file.name) for file in job.files) + sum(map(len, words))


def _note_no_template(kind: SandboxSpec, reason: str) -> None:
    command = kind.prestart.argv if kind.prestart is not None else ()
    _log.warning("there is no template: the interpreter is started each time", command=command, reason=reason)
