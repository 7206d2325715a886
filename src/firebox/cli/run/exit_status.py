"""Exit status of a run, and messages about it on stderr."""

from __future__ import annotations

import signal
import sys

from firebox.cli.failures import EXIT_FAILED
from firebox.domain.model import Result, StageResult, Verdict
from firebox.server.logs import escape

EXIT_TIME = 124
"""As in timeout(1)."""
EXIT_KILLED = 128 + signal.SIGKILL
EXIT_INTERRUPTED = 128 + signal.SIGINT

_STATUS = {
    Verdict.OK: 0,
    Verdict.WALL_TIME: EXIT_TIME,
    Verdict.CPU_TIME: EXIT_TIME,
    Verdict.MEMORY: EXIT_KILLED,
    Verdict.OUTPUT: EXIT_KILLED,
    Verdict.CANCELLED: EXIT_INTERRUPTED,
    Verdict.INTERNAL: EXIT_FAILED,
}


def exit_status(result: Result) -> int:
    """Return the exit status: the program's own if it exited, the compiler's if compiling failed."""
    if result.verdict in _STATUS:
        return _STATUS[result.verdict]
    stage = result.run or result.compile
    return (stage.shell_status if stage is not None else None) or 1


def print_reason(result: Result) -> None:
    """Print why a program was stopped. A plain exit code needs no explanation."""
    if result.verdict not in {Verdict.OK, Verdict.RUNTIME_ERROR}:
        verdict = result.verdict.value.replace("_", " ")
        words = escape(result.reason) or verdict
        print(f"firebox: {words if words.startswith(verdict) else f'{verdict}: {words}'}", file=sys.stderr)
    for stage in (result.compile, result.run):
        if stage is not None and (stage.stdout_truncated or stage.stderr_truncated):
            print(f"firebox: output of the {stage.stage} stage was cut", file=sys.stderr)
    for left_out in result.left_out:
        print(f"firebox: artifact left out: {escape(left_out.name)}: {escape(left_out.reason)}", file=sys.stderr)


def print_summary(result: Result) -> None:
    lines = [f"{result.runtime.language} {result.runtime.version}: {result.verdict.value}"]
    lines += [_summary(stage) for stage in (result.compile, result.run) if stage is not None]
    lines.append(f"  sandbox  {result.timings.prepare_ms:.1f} ms to prepare; layers: {', '.join(result.isolation)}")
    print("\n".join(lines), file=sys.stderr)


def _summary(stage: StageResult) -> str:
    ended = stage.signal or f"exit code {stage.exit_code}"
    memory_mib = stage.memory_peak_bytes / (1 << 20)
    return f"  {stage.stage:<7}  {ended}, {stage.wall_ms:.1f} ms wall, {stage.cpu_ms:.1f} ms cpu, {memory_mib:.1f} MiB"
