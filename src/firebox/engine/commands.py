"""The command line and the variables of a stage: the same wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence

from firebox.model import Job, StageName
from firebox.runtimes.runtime import Runtime, shell_line


def command_line(stage: StageName, job: Job, runtime: Runtime, sources: Sequence[str], memory_bytes: int) -> list[str]:
    """Give the words of a stage's command. sources: names of the source files, main first. memory_bytes: 0 for no limit."""
    if job.command:
        return ["/bin/sh", "-c", job.command, "sh", *job.args]
    if stage == "compile":
        steps = runtime.compile_commands(sources, memory_bytes)
        return steps[0] if len(steps) == 1 else ["/bin/sh", "-c", shell_line(steps)]
    return runtime.run_command(sources, job.args, memory_bytes)


def is_compiled(job: Job, runtime: Runtime, sources: Sequence[str]) -> bool:
    """Tell whether there is something to compile for this job."""
    return not job.command and bool(runtime.compile_commands(sources, 0))
