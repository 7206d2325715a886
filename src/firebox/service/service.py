"""What every door offers: run a job, follow it, list what can run. Knows users and permissions, no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

import structlog
from msgspec.structs import replace
from ulid import ULID

from firebox.domain.errors import FireboxError, PartUnavailable, ShuttingDown
from firebox.domain.model import Cancel, Executor, File, Job, Result, Run, RuntimeName
from firebox.engine.container_spec import ContainerSpec
from firebox.engine.containers import Containers
from firebox.packages.installed.store import Installed
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.service.accounts import Accounts
from firebox.service.allowances import Allowances, Charge
from firebox.service.callers import Caller
from firebox.service.languages import Languages
from firebox.service.packages import Packages
from firebox.service.run_metrics import Metrics, Statistics
from firebox.service.runs import StoredRuns
from firebox.service.snippets import Snippets
from firebox.service.validation import check_job, check_selector
from firebox.settings.settings import Settings
from firebox.storage.stores import Stores

if TYPE_CHECKING:
    from firebox.engine.container_run import ContainerRun

RETRY_AFTER_STOP_S = 5.0
"""When to ask again a server that is stopping: another one may have taken over by then."""

_log = structlog.get_logger("firebox.service")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job that was checked and counted. charge: None when its caller has no limits."""

    job: Job
    charge: Charge | None


class MeasuredExecutor(Executor, Protocol):
    """An executor that can be watched."""

    def statistics(self) -> Statistics: ...

    def on_result(self, listener: Callable[[Result], None], /) -> None:
        """Call back with every result."""
        ...

    async def purge(self, runtime: Runtime, /) -> int:
        """Forget what is kept of jobs of a runtime; say how many entries there were."""
        ...


class Service:
    """The use cases, one instance a process.

    runs: the asynchronous ones; metrics: numbers about all of them; accounts, snippets, languages: the use cases about those;
    allowances: what each caller may use; leaving: set when the server begins to stop; containers: None without an engine;
    packages: None where none are installed through this process.
    """

    def __init__(
        self,
        executor: MeasuredExecutor,
        registry: Registry,
        settings: Settings,
        stores: Stores,
        containers: Containers | None = None,
        packages: Packages | None = None,
    ) -> None:
        self._executor = executor
        self._registry = registry
        self._live: set[Run] = set()
        self._entered = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._cancelling = False
        self._charges: dict[str, Charge] = {}
        self.leaving = asyncio.Event()
        self.metrics = Metrics(executor.statistics)
        self.runs = StoredRuns(
            self.admit, self.start_admitted, self._name_runtime, retention_s=settings.run_retention_s, kept=settings.runs_kept
        )
        self.accounts = Accounts(stores, settings)
        self.allowances = Allowances(lambda: stores.counters, settings)
        self.snippets = Snippets(stores, settings, self.execute)
        self.languages = Languages(stores, registry, has_containers=containers is not None)
        self.containers = containers
        self.packages = packages
        executor.on_result(self._note)

    def runtimes(self) -> list[Runtime]:
        """List what can run here, in the order of languages and then versions."""
        return self._registry.all()

    def resolve(self, language: str, version: str) -> Runtime:
        """Find the runtime that a name or alias and a version range mean. Raises: UnknownRuntime, InvalidRequest."""
        check_selector(language, version)
        return self._registry.resolve(language, version)

    async def purge_cache(self, package: Installed) -> int:
        """Forget what is kept of jobs with an installed package. Returns how many entries there were. Raises: OSError."""
        runtimes = self._registry.of_package(package.id)
        return sum([await self._executor.purge(runtime) for runtime in runtimes])

    def statistics(self) -> Statistics:
        """Say how busy the executor is."""
        return self._executor.statistics()

    @property
    def stopping(self) -> bool:
        """Whether no new runs are taken any more."""
        return self.leaving.is_set()

    def resolve_job(self, job: Job) -> Runtime:
        """Find the runtime that a job means. Raises: as `resolve`."""
        check_selector(job.language, job.version)
        return self._registry.resolve(job.language, job.version, job.installed)

    @asynccontextmanager
    async def start(self, job: Job, caller: Caller, *, counted: bool = True) -> AsyncGenerator[Run]:
        """Admit and start a job for `caller`; leaving the context cancels what still runs.

        A file without a name gets the one that its runtime wants. Entering waits for a slot. counted: as of `admit`.
        Raises, on entry: as `admit`, and what `Executor.start` raises.
        """
        async with self.start_admitted(await self.admit(job, caller, counted=counted)) as run:
            yield run

    async def admit(self, job: Job, caller: Caller, *, counted: bool = True) -> Ticket:
        """Check a job and count it against what `caller` may use. Whoever gets a ticket starts it.

        counted: False for a job that nobody's allowance is charged with.
        Raises: InvalidRequest, UnknownRuntime, RateLimited, PartUnavailable, ShuttingDown.
        """
        job = replace(job, client=caller.key, account=caller.account)
        try:
            self._check_open()
            job = self._with_names(job)
            check_job(job)
            charge = await self.allowances.take(caller) if counted else None
        except FireboxError as error:
            self._note_refusal(job, error)
            raise
        return Ticket(job, None) if charge is None else Ticket(replace(job, id=job.id or str(ULID())), charge)

    @asynccontextmanager
    async def start_admitted(self, ticket: Ticket) -> AsyncGenerator[Run]:
        """Start a job that was admitted, as `start` does. Raises, on entry: what `Executor.start` raises."""
        self._entered += 1
        self._idle.clear()
        try:
            charging = self._charging(ticket.job.id, ticket.charge) if ticket.charge is not None else nullcontext()
            async with charging, self._carry_out(ticket.job) as run:
                yield run
        finally:
            self._entered -= 1
            if not self._entered:
                self._idle.set()

    async def execute(self, job: Job, caller: Caller, *, counted: bool = True) -> Result:
        """Run a job to its end. Cancelling this cancels the job. counted: as of `admit`.

        Raises: as `start`.
        """
        async with self.start(job, caller, counted=counted) as run:
            return await run.result()

    @asynccontextmanager
    async def start_container(self, spec: ContainerSpec, caller: Caller) -> AsyncGenerator[ContainerRun]:
        """Run a container for `caller`; leaving the context removes it. Its wall clock counts as processor time.

        Raises, on entry: RateLimited, ShuttingDown, and what `Containers.start` raises.
        """
        self._entered += 1
        self._idle.clear()
        try:
            async with AsyncExitStack() as stack:
                try:
                    self._check_open()
                    if self.containers is None:
                        raise PartUnavailable("container engine", detail="there is none", hint="the setting docker_url names one")
                    charge = await stack.enter_async_context(self.allowances.charged(caller))
                    run = await stack.enter_async_context(self.containers.start(spec, caller.key))
                except FireboxError as error:
                    self.metrics.count_refusal(error)
                    _log.info("container refused", code=error.code, client=caller.key)
                    raise
                try:
                    yield run
                finally:
                    charge.cpu_ms += run.wall_ms
                    self.metrics.count_container(run.outcome)
                    _log.info("container ended", image=spec.image, outcome=run.outcome, wall_ms=round(run.wall_ms, 1))
        finally:
            self._entered -= 1
            if not self._entered:
                self._idle.set()

    async def stop(self, grace_s: float) -> None:
        """Take no new runs, let the others end for `grace_s` seconds, then cancel them, those that wait for a slot too.

        Returns when nothing is left, or after the same time again: whoever closes the executor ends the rest.
        """
        self.leaving.set()
        if not await self._wait_until_idle(grace_s):
            _log.warning("runs cancelled at stop", runs=self._entered)
            self._cancelling = True
            for run in list(self._live):
                await run.send(Cancel())
            if self.containers is not None:
                self.containers.cancel()
            await self._wait_until_idle(grace_s)
        if self.packages is not None:
            await self.packages.close()
        await self.runs.close()
        await self.allowances.close()

    async def _wait_until_idle(self, patience_s: float) -> bool:
        try:
            await asyncio.wait_for(self._idle.wait(), patience_s)
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def _charging(self, job_id: str, charge: Charge) -> AsyncGenerator[None]:
        """Hold a job's place, and have its result charged."""
        self._charges[job_id] = charge
        try:
            async with charge.held():
                yield
        finally:
            del self._charges[job_id]

    @asynccontextmanager
    async def _carry_out(self, job: Job) -> AsyncGenerator[Run]:
        """Hand a job to the executor, counting it if it is refused."""
        entered = False
        try:
            self._check_open()
            async with self._executor.start(job) as run:
                entered = True
                _log.debug("run started", id=run.id, client=job.client)
                self._live.add(run)
                try:
                    if self._cancelling:
                        await run.send(Cancel())
                    yield run
                finally:
                    self._live.discard(run)
        except FireboxError as error:
            if not entered:
                self._note_refusal(job, error)
            raise

    def _check_open(self) -> None:
        if self.stopping:
            raise ShuttingDown("the server is stopping", retry_after_s=RETRY_AFTER_STOP_S)

    def _note_refusal(self, job: Job, error: FireboxError) -> None:
        self.metrics.count_refusal(error)
        _log.info("run refused", code=error.code, client=job.client)

    def _name_runtime(self, job: Job) -> RuntimeName:
        runtime = self.resolve_job(job)
        return RuntimeName(runtime.language, runtime.version)

    def _with_names(self, job: Job) -> Job:
        """Name the files that came without a name: the main file as the runtime wants it, the others by their place."""
        if all(file.name for file in job.files):
            return job
        main_name = self.resolve_job(job).main_name
        suffix = PurePosixPath(main_name).suffix
        taken = {file.name for file in job.files}
        main = next((index for index, file in enumerate(job.files) if file.source), None)
        files: list[File] = []
        for index, file in enumerate(job.files):
            if not file.name:
                name = main_name if index == main and main_name not in taken else f"file{index}{suffix if file.source else ''}"
                file = replace(file, name=name)
            files.append(file)
        return replace(job, files=tuple(files))

    def _note(self, result: Result) -> None:
        """Count a result and write its line in the log: never code, input or output."""
        charge = self._charges.get(result.id)
        if charge is not None:
            charge.cpu_ms += sum(stage.cpu_ms for stage in (result.compile, result.run) if stage is not None)
        self.metrics.count_result(result)
        _log.info(
            "run ended",
            id=result.id,
            language=result.runtime.language,
            version=result.runtime.version,
            verdict=result.verdict.value,
            queue_ms=round(result.timings.queue_ms, 1),
            prepare_ms=round(result.timings.prepare_ms, 1),
            compile_ms=round(result.timings.compile_ms, 1),
            run_ms=round(result.timings.run_ms, 1),
        )
