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
from firebox.engine.run_table import RunTable, new_id
from firebox.runtimes.prestart import hook_texts
from firebox.runtimes.registry import Registry
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.launcher.launcher_start import StartedLauncher
from firebox.sandbox.launcher.launchers import Launchers
from firebox.sandbox.pool.pool import Pool, PoolStatistics
from firebox.sandbox.spec import SandboxFailure, SandboxSpec
from firebox.settings.settings import Settings

CACHE = "job-cache"
"""The folder of data_dir with the job cache."""

_log = LazyLogger()


class Statistics(NamedTuple):
    """Load of the executor. in_flight, queued: interactive runs too, which have slots of their own."""

    slots: int
    in_flight: int
    queued: int
    pool: PoolStatistics


class LocalExecutor:
    """Implements `model.Executor` on this machine. Use it as an asynchronous context manager.

    It runs jobs in sandboxes, and those of images in containers. runs: those that have not been left. cache: of their outcomes.
    launchers: the processes that create sandboxes, and what those isolate.
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
        self.cache = JobCache(folder, max_bytes=settings.job_cache_bytes, max_age_s=settings.job_cache_s)
        self._settings = settings
        self._planner = Planner(settings, registry)
        self._hold = hold
        hooks = hook_texts()
        started = (launcher, *repeat(None, settings.launcher_count - 1))
        self.launchers = Launchers(LauncherProcess(uid_base=settings.uid_base, hooks=hooks, started=each) for each in started)
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
            self.launchers,
            self._planner.usual_specifications,
            settings.ready_count,
            template_age_s=settings.template_age_s,
            template_runs=settings.template_runs,
            no_template=_note_no_template,
        )
        self._sandboxes = SandboxBackend(self._pool, self.launchers)
        self._containers = containers
        self.runs = RunTable()
        self.runs.listeners.append(_log_failure)

    @property
    def has_containers(self) -> bool:
        """Whether jobs of images can be run."""
        return self._containers is not None

    async def __aenter__(self) -> Self:
        """Start the launchers and fill the pool. Raises: SandboxError when this host cannot create a sandbox."""
        try:
            await self._pool.start()
        except SandboxFailure as failure:
            await self.launchers.close()
            hint = failure.hint or "run `firebox doctor`"
            raise SandboxError(failure.step, failure.errno, detail=failure.detail, hint=hint) from None
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Cancel what runs and end every sandbox; nothing of them is left afterwards."""
        self._admission.close()
        self._attended.close()
        await self.runs.close()
        await self.cache.written()
        await self._pool.close()
        await self.launchers.close()

    def forget_layers(self, layers: Iterable[str]) -> None:
        """Release the images of uninstalled packages; runs that still use them keep them."""
        gone = set(layers)
        self._pool.forget(gone)
        for layer in gone:
            self.launchers.forget(layer)

    def statistics(self) -> Statistics:
        (slots, running, queued), (_, attended, waiting) = self._admission.statistics(), self._attended.statistics()
        return Statistics(slots, running + attended, queued + waiting, self._pool.statistics())

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
            run = Run(job.id or new_id(), plan, backend, admission, self.runs, self.cache)
            self.runs.add(run, held.pop_all() if held is not None else None)
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
