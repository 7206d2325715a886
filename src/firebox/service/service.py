"""What every door offers: run a job, follow it, list what can run. Knows users and permissions, no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import Protocol

import structlog
from msgspec.structs import replace

from firebox.config import Settings
from firebox.engine.containers import Containers
from firebox.errors import FireboxError, SandboxError, ShuttingDown
from firebox.model import Cancel, Executor, File, Finished, Job, Result, Run, RuntimeName
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.service.accounts import Accounts
from firebox.service.callers import Caller
from firebox.service.languages import Languages
from firebox.service.metrics import Metrics, Statistics
from firebox.service.runs import StoredRuns
from firebox.service.snippets import Snippets
from firebox.service.validation import check_job, check_selector
from firebox.storage.stores import Stores

RETRY_AFTER_STOP_S = 5.0
"""When to ask again a server that is stopping: another one may have taken over by then."""

_log = structlog.get_logger("firebox.service")


class MeasuredExecutor(Executor, Protocol):
    """An executor that can be watched."""

    def statistics(self) -> Statistics: ...

    def on_result(self, listener: Callable[[Result], None], /) -> None:
        """Call back with every result."""
        ...


class Service:
    """The use cases, one instance a process.

    runs: the asynchronous ones; metrics: numbers about all of them; accounts, snippets, languages: the use cases about those;
    containers: None without a container engine.
    """

    def __init__(
        self,
        executor: MeasuredExecutor,
        registry: Registry,
        settings: Settings,
        stores: Stores,
        containers: Containers | None = None,
    ) -> None:
        self._executor = executor
        self._registry = registry
        self._live: set[Run] = set()
        self._entered = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._cancelling = False
        self.stopping = False
        self.metrics = Metrics(executor.statistics)
        self.runs = StoredRuns(self.start, self._name_runtime, retention_s=settings.run_retention_s, kept=settings.runs_kept)
        self.accounts = Accounts(stores, settings)
        self.snippets = Snippets(stores, self.accounts, settings)
        self.languages = Languages(stores, registry)
        self.containers = containers
        executor.on_result(self._note)

    def runtimes(self) -> list[Runtime]:
        """List what can run here, in the order of languages and then versions."""
        return self._registry.all()

    def resolve(self, language: str, version: str) -> Runtime:
        """Find the runtime that a name or alias and a version range mean. Raises: UnknownRuntime, InvalidRequest."""
        check_selector(language, version)
        return self._registry.resolve(language, version)

    def statistics(self) -> Statistics:
        """Say how busy the executor is."""
        return self._executor.statistics()

    @asynccontextmanager
    async def start(self, job: Job, caller: Caller) -> AsyncGenerator[Run]:
        """Admit and start a job for `caller`; leaving the context cancels what still runs.

        A file without a name gets the one that its runtime wants.
        Raises, on entry: InvalidRequest and what `Executor.start` raises.
        """
        self._entered += 1
        self._idle.clear()
        try:
            async with self._admit(replace(job, client=caller.key)) as run:
                self._live.add(run)
                if self._cancelling:
                    await run.send(Cancel())
                try:
                    yield run
                finally:
                    self._live.discard(run)
        finally:
            self._entered -= 1
            if not self._entered:
                self._idle.set()

    async def execute(self, job: Job, caller: Caller) -> Result:
        """Run a job to its end. Cancelling this cancels the job.

        Raises: as `start`.
        """
        async with self.start(job, caller) as run:
            async for event in run.events():
                if isinstance(event, Finished):
                    return event.result
        raise SandboxError("the run ended without a result")

    async def stop(self, grace_s: float) -> None:
        """Take no new runs, let the others end for `grace_s` seconds, then cancel them, those that wait for a slot too.

        Returns when nothing is left, or after the same time again: whoever closes the executor ends the rest.
        """
        self.stopping = True
        if not await self._wait_until_idle(grace_s):
            _log.warning("runs cancelled at stop", runs=self._entered)
            self._cancelling = True
            for run in list(self._live):
                await run.send(Cancel())
            await self._wait_until_idle(grace_s)
        await self.runs.close()

    async def _wait_until_idle(self, patience_s: float) -> bool:
        try:
            await asyncio.wait_for(self._idle.wait(), patience_s)
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def _admit(self, job: Job) -> AsyncGenerator[Run]:
        """Check the job and hand it to the executor, counting it if it is refused."""
        entered = False
        try:
            if self.stopping:
                raise ShuttingDown("the server is stopping", retry_after_s=RETRY_AFTER_STOP_S)
            job = self._with_names(job)
            check_job(job)
            async with self._executor.start(job) as run:
                entered = True
                _log.debug("run started", id=run.id, client=job.client)
                yield run
        except FireboxError as error:
            if not entered:
                self.metrics.count_refusal(error)
                _log.info("run refused", code=error.code, client=job.client)
            raise

    def _name_runtime(self, job: Job) -> RuntimeName:
        runtime = self.resolve(job.language, job.version)
        return RuntimeName(runtime.language, runtime.version)

    def _with_names(self, job: Job) -> Job:
        """Name the files that came without a name: the main file as the runtime wants it, the others by their place."""
        if all(file.name for file in job.files):
            return job
        main_name = self.resolve(job.language, job.version).main_name
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
