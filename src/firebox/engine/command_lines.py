"""The command line of a stage, and the environment of its command in a sandbox."""

from __future__ import annotations

from collections.abc import Sequence

from firebox.domain.errors import InvalidRequest
from firebox.domain.limits import StageName
from firebox.domain.model import Job
from firebox.runtimes.runtime import BASE_ENVIRONMENT, Runtime, shell_line

TERM = "xterm-256color"
"""The type of a terminal, unless the job sets it."""

_LEAK_OPTIONS, _NO_LEAKS = "LSAN_OPTIONS", "detect_leaks=0"
"""LeakSanitizer, a part of AddressSanitizer, traces the program when it ends. Tracing is refused here, and it would report that
as an error of a correct program. The last value of this variable counts; ASAN_OPTIONS does not."""


def variables(stage: StageName, job: Job, runtime: Runtime) -> dict[str, str]:
    """Return the environment of a stage's command in a sandbox."""
    terminal = {"TERM": TERM} if job.terminal is not None and stage == "run" else {}
    chosen = {**BASE_ENVIRONMENT, **terminal, **runtime.environment(stage), **job.env}
    own = chosen.get(_LEAK_OPTIONS)
    return {**chosen, _LEAK_OPTIONS: f"{own}:{_NO_LEAKS}" if own else _NO_LEAKS}


def command_line(stage: StageName, job: Job, runtime: Runtime, sources: Sequence[str], memory_bytes: int) -> list[str]:
    """Return the command line of a stage. sources: names of the source files, main first. memory_bytes: 0 for no limit."""
    if job.image is not None:
        return list(job.args)
    if job.command:
        return ["/bin/sh", "-c", job.command, "sh", *job.args]
    if stage == "compile":
        steps = runtime.compile_commands(sources, memory_bytes, job.compile_args)
        return steps[0] if len(steps) == 1 else ["/bin/sh", "-c", shell_line(steps)]
    return runtime.run_command(sources, job.args, memory_bytes)


def check_compile_args(job: Job, runtime: Runtime) -> None:
    """Check the compiler arguments of a job. Raises: InvalidRequest."""
    if job.command and job.compile_args:
        raise InvalidRequest("a command replaces the compiler", where="compile_args")
    runtime.check_compile_args(job.compile_args)


def is_compiled(job: Job, runtime: Runtime, sources: Sequence[str]) -> bool:
    """Check whether a job has a compile stage."""
    return not job.command and runtime.has_compile_commands(sources)
