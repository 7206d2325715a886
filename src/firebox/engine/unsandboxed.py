"""Executor without a sandbox, for use inside a container that is one.

Wall time and output are limited. Memory, CPU time, processes and what is written are the container's to limit: a job that asks
for such a limit is refused.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from msgspec.structs import replace

from firebox.domain.errors import InvalidRequest, LimitNotEnforceable
from firebox.domain.limits import LIMIT_NAMES, Limits, StageName
from firebox.domain.model import Job
from firebox.engine.admission import Admission
from firebox.engine.backends.process_backend import ProcessBackend
from firebox.engine.plan import Plan, check_compile_args, is_compiled
from firebox.engine.run import Run
from firebox.engine.run_table import RunTable, new_id
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import Settings

QUEUE_LENGTH = 1000

_ENFORCED = ("wall_ms", "output_bytes", "output_mode")
_CONTAINER_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class UnsandboxedExecutor:
    """Implements `model.Executor`: runs jobs in `folder`, one after the other. The folder must exist; it is not removed."""

    def __init__(self, settings: Settings, registry: Registry, folder: Path) -> None:
        self._settings = settings
        self._registry = registry
        self._backend = ProcessBackend(folder)
        self._admission = Admission(1, QUEUE_LENGTH, QUEUE_LENGTH)
        self._runs = RunTable()

    def submit(self, job: Job) -> Run:
        """Admit a job; see `model.Executor`. A file that cannot be written is the run's `failure`, an OSError."""
        plan = self._plan(job)
        place = self._admission.enter(job.client)
        run = Run(job.id or new_id(), plan, self._backend, self._admission, self._runs, None)
        self._runs.add(run)
        run.start(place)
        return run

    def _plan(self, job: Job) -> Plan:
        """Raises: UnknownRuntime, LimitNotEnforceable, InvalidRequest."""
        runtime = self._registry.resolve(job.language, job.version, installed=job.installed)
        if job.terminal is not None or job.artifacts:
            raise InvalidRequest("terminals and artifacts need the sandbox", where="terminal" if job.terminal else "artifacts")
        check_compile_args(job, runtime)
        files = runtime.place(job.files)
        compile_limits = self._limits("compile", runtime, job)
        has_compile_stage = is_compiled(job, runtime, [file.name for file in files if file.source])
        return Plan(
            job=job,
            runtime=runtime,
            files=files,
            compile_limits=compile_limits if has_compile_stage else None,
            run_limits=self._limits("run", runtime, job),
        )

    def _limits(self, stage: StageName, runtime: Runtime, job: Job) -> Limits:
        asked = job.compile_limits if stage == "compile" else job.run_limits
        for name in LIMIT_NAMES:
            if getattr(asked, name) is not None and name not in _ENFORCED:
                raise LimitNotEnforceable(f"{stage}.{name}", hint="without the sandbox only the container can hold it")
        limits = limit_policy(self._settings).decide(stage, runtime, asked, clamped=job.clamp_limits)
        return replace(limits, memory_bytes=_memory_bytes(limits))


def _memory_bytes(limits: Limits) -> int:
    """Return what a runtime that sizes itself should count on: the stage's limit, or the container's where that is lower."""
    known = [limits.memory_bytes]
    for file in _CONTAINER_MEMORY:
        with contextlib.suppress(OSError, ValueError):  # no such file, or its content is "max"
            known.append(int(file.read_text(encoding="ascii")))
    return min((number for number in known if number), default=0)
