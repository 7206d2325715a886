"""Stages in sandboxes of this machine: taken from the pool, with the program prestarted where that is possible."""

from __future__ import annotations

from firebox.domain.limits import Limits, StageName
from firebox.domain.model import StageResult
from firebox.engine.artifacts import take_artifacts, take_produced
from firebox.engine.backends.backend import Artifacts, Backend
from firebox.engine.plan import Plan
from firebox.runtimes.prestart import compile_words, plan_ahead, plan_compiler_ahead
from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.launcher.launchers import Launchers
from firebox.sandbox.pool.pool import Pool
from firebox.sandbox.spec import Command, Exit, Pack, SandboxSpec


class SandboxBackend(Backend[Sandbox]):
    """Runs each stage in a sandbox of its own."""

    def __init__(self, pool: Pool, launchers: Launchers) -> None:
        self._pool = pool
        self._launchers = launchers

    @property
    def isolation(self) -> tuple[str, ...]:
        return self._launchers.layers

    async def open(self, plan: Plan, stage: StageName, command: Command) -> tuple[Sandbox, Command]:
        spec = plan.run_specification if stage == "run" else plan.compile_specification
        if plan.may_start_ahead:
            spec, command = _prestarted(plan, stage, spec, command)
        return await self._pool.take(spec), command

    def note_exit(self, stage: Sandbox, ended: Exit) -> None:
        self._pool.count_start(stage, ended)

    async def take_produced(self, stage: Sandbox, result: StageResult, limits: Limits) -> tuple[StageResult, Pack | None]:
        return await take_produced(stage, result, limits)

    async def take_artifacts(self, stage: Sandbox, ended: Exit, plan: Plan) -> Artifacts:
        return await take_artifacts(stage, ended, plan.run_limits, plan.job.artifacts, plan.artifact_bytes, plan.artifact_files)


def _prestarted(plan: Plan, stage: StageName, spec: SandboxSpec, command: Command) -> tuple[SandboxSpec, Command]:
    """Ask for a sandbox in which the program of a stage is prestarted, where it can be."""
    job, runtime = plan.job, plan.runtime
    if stage == "run":
        words = job.args
        ahead = plan_ahead(
            runtime,
            command.argv,
            words,
            command.env,
            plan.preload,
            job_env=job.env,
            alone=len(job.files) == 1,
            template=plan.template,
        )
    elif runtime.compile_ahead is None:
        return spec, command
    else:
        words = compile_words(runtime.compile_commands(plan.sources, command.memory_bytes, job.compile_args))
        ahead = plan_compiler_ahead(runtime, words, command.env, command.memory_bytes, job_env=job.env)
    if ahead is not None and runtime.limits(stage).stack_bytes:
        ahead = ahead._replace(stack_bytes=command.stack_bytes)
    return spec._replace(prestart=ahead), command._replace(resume_words=words if ahead is not None else None)
