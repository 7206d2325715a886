"""Runs in this process's own engine: the cost of the sandbox without HTTP."""

from __future__ import annotations

import asyncio
import time
from typing import Self

import uvloop

from firebox.bench.contender import SETTLE_S, BenchmarkFailed, Contender
from firebox.bench.programs import Program
from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Job, Result, Verdict
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.registry import Registry
from firebox.settings.settings import Settings

ENGINE = "engine"
_PATIENT = LimitRequest(wall_ms=60_000, cpu_ms=60_000)


class Engine:
    """An executor with an event loop that runs only during measurements. A context manager."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._turn = self._runner.get_loop().run_until_complete
        self.executor = LocalExecutor(settings, registry)

    def __enter__(self) -> Self:
        """Start the executor. Raises: SandboxError."""
        self._turn(self.executor.__aenter__())
        return self

    def __exit__(self, *_exception: object) -> None:
        self._turn(self.executor.__aexit__())
        self._runner.close()

    def runs(self, program: Program) -> Contender:
        """Return the contender that runs a program in this engine."""
        file = File(program.runtime.main_name, program.source.encode())
        job = Job(language=program.language, files=(file,), compile_limits=_PATIENT, run_limits=_PATIENT)

        def run() -> float:
            started = time.perf_counter()
            result = self._turn(self._execute(job))
            elapsed_ms = (time.perf_counter() - started) * 1000
            self._turn(asyncio.sleep(SETTLE_S))
            if result.verdict is not Verdict.OK or result.run is None or result.run.stdout.strip() != program.expected:
                raise BenchmarkFailed(f"{program.language} in the engine: {result.verdict}: {result.reason}")
            return elapsed_ms

        return Contender(ENGINE, run)

    async def _execute(self, job: Job) -> Result:
        async with self.executor.submit(job) as run:
            return await run.result()
