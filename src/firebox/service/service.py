"""Use cases that every door offers: run a job, follow it, list the runtimes. Knows users and permissions, no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import PurePosixPath

import structlog
from msgspec.structs import replace

from firebox.domain.errors import FireboxError, ShuttingDown
from firebox.domain.model import File, Job, Result, Run
from firebox.engine.executor import LocalExecutor, Statistics
from firebox.packages.installed.store import Installed
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.service.accounts import Accounts
from firebox.service.callers import Caller
from firebox.service.languages import Languages
from firebox.service.packages import Packages
from firebox.service.quotas import Quotas
from firebox.service.run_metrics import Metrics, RunRecords
from firebox.service.runs import StoredRuns
from firebox.service.snippets import Snippets
from firebox.service.validation import check_job, check_selector
from firebox.settings.settings import Settings
from firebox.storage.stores import Stores

RETRY_AFTER_STOP_S = 5.0
"""When to ask again a server that is stopping: another one may have taken over by then."""

_log = structlog.get_logger("firebox.service")


class Service:
    """The use cases, one instance per process.

    runs: the asynchronous ones. metrics: numbers about all of them. accounts, snippets, languages: the use cases about those.
    quotas: usage limits of each client. leaving: set when the server begins to stop. packages: None where none are installed
    through this process. has_containers: whether languages may be container images.
    """

    def __init__(
        self, executor: LocalExecutor, registry: Registry, settings: Settings, stores: Stores, packages: Packages | None = None
    ) -> None:
        self._executor = executor
        self._registry = registry
        self.leaving = asyncio.Event()
        self.metrics = Metrics(executor.statistics)
        self._records = RunRecords(self.metrics)
        self.runs = StoredRuns(self.start, retention_s=settings.run_retention_s, kept=settings.runs_kept)
        self.accounts = Accounts(stores, settings)
        self.quotas = Quotas(lambda: stores.counters, settings)
        self.snippets = Snippets(stores, settings, self.execute)
        self.has_containers = executor.has_containers
        self.languages = Languages(stores, registry, has_containers=self.has_containers)
        self.packages = packages
        executor.runs.listeners.append(self._records.note_result)

    def runtimes(self) -> list[Runtime]:
        """List the runtimes, in the order of languages and then versions."""
        return self._registry.all()

    def resolve(self, language: str, version: str) -> Runtime:
        """Find the runtime that a name or alias and a version range mean. Raises: UnknownRuntime, InvalidRequest."""
        check_selector(language, version)
        return self._registry.resolve(language, version)

    async def purge_cache(self, package: Installed) -> int:
        """Delete what is cached for an installed package. Returns how many entries there were. Raises: OSError."""
        runtimes = self._registry.of_package(package.id)
        return sum([await self._executor.cache.purge(runtime) for runtime in runtimes])

    def statistics(self) -> Statistics:
        """Return how busy the executor is."""
        return self._executor.statistics()

    @property
    def stopping(self) -> bool:
        """Whether new runs are refused."""
        return self.leaving.is_set()

    @asynccontextmanager
    async def start(self, job: Job, caller: Caller, *, counted: bool = True) -> AsyncGenerator[Run]:
        """Admit a job of `caller`, which then runs or waits for a slot; leaving the context cancels it.

        A file without a name gets the one that its runtime wants. counted: False charges no quota.
        Raises, on entry: InvalidRequest, UnknownRuntime, RateLimited, PartUnavailable, ShuttingDown, and what `Executor.submit`
        raises.
        """
        job = replace(job, client=caller.key, account=caller.account)
        async with AsyncExitStack() as context:
            try:
                job = self._check(job)
                charge = await self.quotas.take(caller) if counted else None
                if charge is not None:
                    await context.enter_async_context(self.quotas.held(charge))
                self._check_open()
                run = self._executor.submit(job)
            except FireboxError as error:
                self._records.note_refusal(job, error)
                raise
            if charge is not None:
                self._records.charge(run.id, charge)
            _log.debug("run started", id=run.id, client=job.client)
            async with run:
                yield run

    async def execute(self, job: Job, caller: Caller, *, counted: bool = True) -> Result:
        """Run a job to its end. Cancelling this cancels the job. counted: as of `start`. Raises: as `start`."""
        async with self.start(job, caller, counted=counted) as run:
            return await run.result()

    async def stop(self, grace_s: float) -> None:
        """Refuse new runs, let the others end for `grace_s` seconds, then cancel them, those in the queue too.

        Returns when nothing is left, or after the same time again: closing the executor ends the rest.
        """
        self.leaving.set()
        if not await self._executor.runs.drain(grace_s):
            statistics = self.statistics()
            _log.warning("runs cancelled at stop", runs=statistics.in_flight + statistics.queued)
            self._executor.runs.cancel()
            await self._executor.runs.drain(grace_s)
        if self.packages is not None:
            await self.packages.close()
        await self.runs.close()
        await self.quotas.close()

    def _check(self, job: Job) -> Job:
        """Check a job and name its files. Raises: InvalidRequest, UnknownRuntime, ShuttingDown."""
        self._check_open()
        if job.image is not None:
            return job
        if not all(file.name for file in job.files):
            check_selector(job.language, job.version)
            runtime = self._registry.resolve(job.language, job.version, installed=job.installed)
            job = replace(job, files=_with_names(job.files, runtime.main_name))
        check_job(job)
        return job

    def _check_open(self) -> None:
        if self.stopping:
            raise ShuttingDown("the server is stopping", retry_after_s=RETRY_AFTER_STOP_S)


def _with_names(files: tuple[File, ...], main_name: str) -> tuple[File, ...]:
    """Name the files without a name: the main file `main_name`, as its runtime wants it, the others by their position."""
    suffix = PurePosixPath(main_name).suffix
    taken = {file.name for file in files}
    main = next((index for index, file in enumerate(files) if file.source), None)
    named: list[File] = []
    for index, file in enumerate(files):
        if not file.name:
            name = main_name if index == main and main_name not in taken else f"file{index}{suffix if file.source else ''}"
            file = replace(file, name=name)
        named.append(file)
    return tuple(named)
