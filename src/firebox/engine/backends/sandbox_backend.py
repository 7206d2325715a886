"""Stages in sandboxes of this machine: taken from the pool, with the program prestarted where that is possible.

Artifacts are files that a program leaves. Those that match are returned, the others are listed with the reason. They come with
the result of a run and never change its verdict. Names and contents are untrusted: names are checked, and bounded in number and
length.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from msgspec.structs import replace

from firebox.domain.limits import Limits, StageName
from firebox.domain.model import File, LeftOut, StageResult, Verdict
from firebox.engine.backends.backend import Artifacts, Backend
from firebox.engine.log import LazyLogger
from firebox.engine.plan import Plan
from firebox.runtimes.prestart import compile_words, plan_ahead, plan_compiler_ahead
from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.launcher.launchers import Launchers
from firebox.sandbox.pool.pool import Pool
from firebox.sandbox.protocol import pack as packs
from firebox.sandbox.spec import Command, Exit, Pack, SandboxFailure, SandboxSpec

SEARCH_LEAST_MS = 500.0
"""Search time after a program that used up its wall time; without it nothing could be returned."""
SEARCH_MOST_MS = 2_000.0
COMPILE_SEARCH_MS = 10_000.0

_LEFT_OUT = 100
_CHARACTERS = 200
_TOO_MUCH = (packs.TOO_LARGE, packs.TOO_MANY, packs.TOO_MANY_ENTRIES, packs.OUT_OF_TIME)

_log = LazyLogger()


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
        most_bytes, most_files = limits.writable_bytes, limits.writable_inodes
        pack, skipped, cpu_ms = await stage.collect(["*"], most_bytes, most_files, COMPILE_SEARCH_MS)
        result = replace(result, cpu_ms=result.cpu_ms + cpu_ms)
        reason = next((why for _name, why in skipped if why in _TOO_MUCH), "")
        if not reason:
            return result, pack
        os.close(pack.descriptor)
        words = f"what it made cannot be taken to the run stage: {_in_words(reason, most_bytes, most_files)}"
        return replace(result, verdict=Verdict.RUNTIME_ERROR, reason=words), None

    async def take_artifacts(self, stage: Sandbox, ended: Exit, plan: Plan) -> Artifacts:
        """Collect the artifacts that the job asks for. A failure becomes the reason in `left_out`.

        The search takes at most the rest of the run's wall time, within bounds.
        """
        patterns, most_bytes, most_files = plan.job.artifacts, plan.artifact_bytes, plan.artifact_files
        budget_ms = min(max(plan.run_limits.wall_ms - ended.wall_ms, SEARCH_LEAST_MS), SEARCH_MOST_MS)
        try:
            pack, skipped, cpu_ms = await stage.collect(patterns, most_bytes, most_files, budget_ms)
        except SandboxFailure as failure:
            _log.info("artifacts not collected", step=failure.step, errno=failure.errno, detail=failure.detail)
            reason = "the program was killed together with its files" if ended.killed_by else "the files could not be collected"
            return Artifacts(left_out=_named(((pattern, reason) for pattern in patterns), most_bytes, most_files))
        try:
            good = [each for each in pack.files if each.name.isprintable()]
            skipped += [(each.name, "its name is not printable") for each in pack.files if not each.name.isprintable()]
            files = tuple(File(each.name, os.pread(pack.descriptor, each.size, each.offset)) for each in good)
        finally:
            os.close(pack.descriptor)
        return Artifacts(files, _named(skipped, most_bytes, most_files), cpu_ms)


def _prestarted(plan: Plan, stage: StageName, spec: SandboxSpec, command: Command) -> tuple[SandboxSpec, Command]:
    """Ask for a sandbox in which the program of a stage is prestarted, where it can be."""
    job, runtime = plan.job, plan.runtime
    if stage == "run":
        words, alone = job.args, len(job.files) == 1
        ahead = plan_ahead(
            runtime, command.argv, words, command.env, plan.preload, job_env=job.env, alone=alone, template=plan.template
        )
    elif runtime.compile_ahead is None:
        return spec, command
    else:
        words = compile_words(runtime.compile_commands(plan.sources, command.memory_bytes, job.compile_args))
        ahead = plan_compiler_ahead(runtime, words, command.env, command.memory_bytes, job_env=job.env)
    if ahead is not None and runtime.limits(stage).stack_bytes:
        ahead = ahead._replace(stack_bytes=command.stack_bytes)
    return spec._replace(prestart=ahead), command._replace(resume_words=words if ahead is not None else None)


def _named(skipped: Iterable[tuple[str, str]], most_bytes: int, most_files: int) -> tuple[LeftOut, ...]:
    found = [LeftOut(_shown(name) or ".", _shown(_in_words(why, most_bytes, most_files))) for name, why in skipped]
    return tuple(found[:_LEFT_OUT])


def _in_words(why: str, most_bytes: int, most_files: int) -> str:
    words = {
        packs.TOO_LARGE: f"too large: all files together may have {most_bytes} bytes",
        packs.TOO_MANY: f"too many: at most {most_files} files are taken",
        packs.TOO_MANY_ENTRIES: "too many files and folders to look through",
        packs.OUT_OF_TIME: "the time to look for files was over",
    }
    return words.get(why, why)


def _shown(text: str) -> str:
    """Return untrusted text in a form that can be shown: printable, valid UTF-8 and short."""
    start = text[:_CHARACTERS]
    if not start.isprintable():
        start = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in start)
    return start if len(text) <= _CHARACTERS else start + "..."
