"""The command line and the variables of a stage: the same wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence

from firebox.errors import InvalidRequest
from firebox.model import Job, StageName
from firebox.runtimes.runtime import Runtime, shell_line


def command_line(stage: StageName, job: Job, runtime: Runtime, sources: Sequence[str], memory_bytes: int) -> list[str]:
    """Give the words of a stage's command. sources: names of the source files, main first. memory_bytes: 0 for no limit."""
    if job.command:
        return ["/bin/sh", "-c", job.command, "sh", *job.args]
    if stage == "compile":
        steps = runtime.compile_commands(sources, memory_bytes, job.compile_args)
        return steps[0] if len(steps) == 1 else ["/bin/sh", "-c", shell_line(steps)]
    return runtime.run_command(sources, job.args, memory_bytes)


def check_compile_args(job: Job, runtime: Runtime) -> None:
    """Refuse arguments for a compiler that is not run, or that it may not be given. Raises: InvalidRequest."""
    if job.command and job.compile_args:
        raise InvalidRequest("a command replaces the compiler", where="compile_args")
    runtime.check_compile_args(job.compile_args)


def is_compiled(job: Job, runtime: Runtime, sources: Sequence[str]) -> bool:
    """Tell whether there is something to compile for this job."""
    return not job.command and bool(runtime.compile_commands(sources, 0))
