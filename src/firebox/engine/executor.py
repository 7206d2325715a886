"""This machine's executor: admits jobs and runs them on the backend that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple, Self

from firebox.domain.errors import PartUnavailable, SandboxError
from firebox.domain.model import Job, Result
from firebox.engine.admission import Admission, WaitingBytes
from firebox.engine.backends.backend import Backend
from firebox.engine.backends.sandbox_backend import SandboxBackend
from firebox.engine.job_cache import JobCache
from firebox.engine.log import LazyLogger
from firebox.engine.plan import Planner
from firebox.engine.run import Run
from firebox.engine.run_table import ResultListener, RunTable, new_id
from firebox.runtimes.prestart import hook_texts
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.launcher.launcher_start import StartedLauncher
from firebox.sandbox.launcher.launchers import Launchers
from firebox.sandbox.pool.pool import Pool
from firebox.sandbox.spec import SandboxFailure, SandboxSpec
from firebox.settings.settings import Settings

CACHE = "job-cache"
"""The folder of data_dir with the job cache."""

_log = LazyLogger()


class Statistics(NamedTuple):
    """Load of the executor, for metrics and health.

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
    """Implements `model.Executor` on this machine. Use it as an asynchronous context manager.

    It runs jobs in sandboxes, and those of images in containers.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        *,
        hold: Callable[[str], AbstractContextManager[object]] = nullcontext,
        launcher: StartedLauncher | None = None,
        containers: Backend[Any] | None = None,
    ) -> None:
        """launcher: one that was started, with its settings, before this. containers: None without a container engine.

        hold: keeps an installed package, named by `Runtime.installed`, from being uninstalled meanwhile. Raises: Conflict.
        """
        folder = settings.data_dir / CACHE
        self._cache = JobCache(folder, max_bytes=settings.job_cache_bytes, max_age_s=settings.job_cache_s)
        self._settings = settings
        self._planner = Planner(settings, registry)
        self._hold = hold
        hooks = hook_texts()
        started = (launcher, *repeat(None, settings.launcher_count - 1))
        self._launchers = Launchers(LauncherProcess(uid_base=settings.uid_base, hooks=hooks, started=each) for each in started)
        admission = partial(
            Admission,
            queue_length=settings.queue_length,
            queue_per_client=settings.queue_per_client,
            waiting_bytes=WaitingBytes(settings.held_bytes, settings.held_bytes_per_client),
            slots_per_client=settings.slots_per_client,
        )
        self._admission = admission(settings.slot_count, reserved=settings.reserved_count)
        self._attended = admission(settings.interactive_slot_count, reserved=settings.interactive_reserved_count)
        self._pool = Pool(
            self._launchers,
            self._planner.usual_specifications,
            settings.ready_count,
            template_age_s=settings.template_age_s,
            template_runs=settings.template_runs,
            no_template=_note_no_template,
        )
        self._sandboxes = SandboxBackend(self._pool, self._launchers)
        self._containers = containers
        self._runs = RunTable()
        self._runs.listeners.append(_log_failure)

    @property
    def has_containers(self) -> bool:
        """Whether jobs of images can be run."""
        return self._containers is not None

    @property
    def isolation(self) -> tuple[str, ...]:
        """The layers every run gets; known once started."""
        return self._launchers.layers

    @property
    def isolation_reasons(self) -> tuple[str, ...]:
        """Why better cgroups are not used on this host."""
        return self._launchers.reasons

    @property
    def launcher_pids(self) -> tuple[int, ...]:
        """The processes that create sandboxes; none before the start."""
        return self._launchers.pids

    async def __aenter__(self) -> Self:
        """Start the launchers and fill the pool. Raises: SandboxError when this host cannot create a sandbox."""
        try:
            await self._pool.start()
        except SandboxFailure as failure:
            await self._launchers.close()
            hint = failure.hint or "run `firebox doctor`"
            raise SandboxError(failure.step, failure.errno, detail=failure.detail, hint=hint) from None
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Cancel what runs and end every sandbox; nothing of them is left afterwards."""
        self._admission.close()
        self._attended.close()
        await self._runs.close()
        await self._cache.written()
        await self._pool.close()
        await self._launchers.close()

    def on_result(self, listener: ResultListener) -> None:
        """Have `listener` called with every run and its result, right before the last event."""
        self._runs.listeners.append(listener)

    def cancel(self) -> None:
        """Cancel every run."""
        self._runs.cancel()

    async def drain(self, patience_s: float) -> bool:
        """Wait until every run has been left. Returns False when that takes longer than `patience_s`."""
        return await self._runs.drain(patience_s)

    async def purge(self, runtime: Runtime) -> int:
        """Delete the cache entries of a runtime. Returns how many there were. Raises: OSError."""
        return await self._cache.purge(runtime)

    def forget_layers(self, layers: Iterable[str]) -> None:
        """Release the images of uninstalled packages; runs that still use them keep them."""
        gone = set(layers)
        self._pool.forget(gone)
        for layer in gone:
            self._launchers.forget(layer)

    def statistics(self) -> Statistics:
        admission, attended, pool = self._admission.statistics(), self._attended.statistics(), self._pool.statistics()
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

    def submit(self, job: Job) -> Run:
        """Admit a job; see `model.Executor`."""
        if job.image is None:
            backend: Backend[Any] = self._sandboxes
        elif self._containers is not None:
            backend = self._containers
        else:
            raise PartUnavailable("container engine", detail="there is none", hint="the setting docker_url names one")
        plan = self._planner.plan(job)
        installed = plan.runtime.installed
        with ExitStack() if installed else nullcontext() as held:
            if held is not None:
                held.enter_context(self._hold(installed))
            admission = self._attended if job.attended else self._admission
            place = admission.enter(job.client, _held_bytes(job))
            run = Run(job.id or new_id(), plan, backend, admission, self._runs, self._cache)
            self._runs.add(run, held.pop_all() if held is not None else None)
        run.start(place)
        return run


def _log_failure(run: Run, _result: Result) -> None:
    if isinstance(run.failure, OSError):
        _log.error("engine failure", run=run.id, exc_info=run.failure)


def _held_bytes(job: Job) -> int:
    """Return about how much memory a queued job holds."""
    words = (*job.args, *job.compile_args, *job.env, *job.env.values(), *job.artifacts, job.command)
    return len(job.stdin) + sum(len(file.content) + len(file.name) for file in job.files) + sum(map(len, words))


def _note_no_template(kind: SandboxSpec, reason: str) -> None:
    command = kind.prestart.argv if kind.prestart is not None else ()
    _log.warning("there is no template: the interpreter is started each time", command=command, reason=reason)
