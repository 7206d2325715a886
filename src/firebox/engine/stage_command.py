"""The command of a stage: what the plan says, in the terms of the floor below."""

from __future__ import annotations

from collections.abc import Mapping

from firebox.domain.limits import Limits, OutputMode, StageName
from firebox.engine.command_lines import command_line
from firebox.engine.plan import Plan
from firebox.sandbox.spec import Command, InputFile, Pack

_MAX_PROCESSES = 4_000_000
"""The kernel takes no larger number, and has no more processes. Source: Linux, PID_MAX_LIMIT."""


def stage_command(
    plan: Plan,
    stage: StageName,
    limits: Limits,
    env: Mapping[str, str],
    *,
    packed: Pack | None = None,
    terminal: tuple[int, int] | None = None,
) -> Command:
    """Return the command of a stage. packed: what the compile stage made. terminal: rows and columns."""
    job = plan.job
    is_run = stage == "run"
    return Command(
        argv=tuple(command_line(stage, job, plan.runtime, plan.sources, limits.memory_bytes)),
        env=env,
        files=() if packed is not None else tuple(InputFile(file.name, file.content) for file in plan.files),
        packed=packed,
        stdin=job.stdin if is_run and not job.interactive else b"",
        interactive=job.interactive and is_run,
        terminal=terminal if is_run else None,
        wall_ms=limits.wall_ms,
        cpu_ms=limits.cpu_ms,
        memory_bytes=limits.memory_bytes,
        stack_bytes=limits.stack_bytes,
        processes=min(limits.processes, _MAX_PROCESSES),
        open_files=limits.open_files,
        file_size_bytes=limits.file_size_bytes,
        output_bytes=limits.output_bytes,
        kill_on_output=limits.output_mode is OutputMode.KILL,
        keep_files=is_run and bool(job.artifacts),
    )
