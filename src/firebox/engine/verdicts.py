"""Verdicts: what became of a stage or job, and the reason with its evidence."""

from __future__ import annotations

import errno
import os
import signal

from firebox.domain.limits import Limits, StageName
from firebox.domain.model import Chunk, StageResult, Verdict
from firebox.sandbox.plan.mounts import WORK
from firebox.sandbox.spec import CommandRefused, Exit

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
"""As a shell's. Source: POSIX, "Exit Status for Commands"."""

_MIB = 1 << 20
_BY_LIMITS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE)


def result_of(stage: StageName, ended: Exit, limits: Limits, chunks: tuple[Chunk, ...]) -> StageResult:
    """Return the result of a stage. chunks: its complete output."""
    verdict, reason = Verdict.OK, ""
    if ended.killed_by:
        verdict, reason = Verdict(ended.killed_by), _limit_reason(ended, limits)
    elif ended.signal is not None:
        verdict, reason = Verdict.SIGNAL, _signal_reason(ended.signal, limits)
    elif ended.status != 0:
        verdict, reason = Verdict.RUNTIME_ERROR, f"exit code {ended.status}"
    return _stage_result(stage, verdict, reason, ended, chunks)


def refused(stage: StageName, program: str, refusal: CommandRefused, limits: Limits, work: str = WORK) -> StageResult | None:
    """Return the result of a stage whose program could not be started, with a shell's exit code; None when that is our fault.

    Files of the job, or of its compile stage, may be missing, not executable, or too large for its limits. A missing toolchain is
    our fault. work: the folder with the job's files.
    """
    words = ""
    verdict = Verdict.RUNTIME_ERROR
    code: int | None = EXIT_NOT_EXECUTABLE
    number = refusal.errno
    match refusal.step:
        case "memory":
            verdict, code = Verdict.MEMORY, None
            words = f"memory limit: {limits.memory_bytes} bytes are not enough to start the program"
        case "files" if number in (errno.ENOSPC, errno.EDQUOT):
            bounds = f"{limits.writable_bytes} bytes and {limits.writable_inodes} files and folders"
            words = f"the files do not fit into what the {stage} stage may write: {bounds}"
        case "files" if number != errno.EIO:
            words = f"the files cannot be written: {refusal.detail}"
        case "start" if number == errno.E2BIG:
            words = "arguments, variables and names of files are too long together"
        case "start" if number in _BY_LIMITS or not program.startswith("/") or program.startswith(f"{work}/"):
            words = f"cannot start {program}: {os.strerror(number)}" if number else refusal.detail
            code = EXIT_NOT_FOUND if number == errno.ENOENT else EXIT_NOT_EXECUTABLE
        case _:
            return None
    chunk = Chunk("stderr", f"firebox: {words}\n".encode(errors="backslashreplace"))
    return _stage_result(stage, verdict, words, Exit(status=code, signal=None, killed_by="", wall_ms=0.0), (chunk,))


def never_started(stage: StageName) -> StageResult:
    """Return the result of a stage that was cancelled before its program ran."""
    ended = Exit(status=None, signal=None, killed_by="cancelled", wall_ms=0.0)
    return _stage_result(stage, Verdict.CANCELLED, "cancelled by the client", ended)


def _stage_result(stage: StageName, verdict: Verdict, reason: str, ended: Exit, chunks: tuple[Chunk, ...] = ()) -> StageResult:
    return StageResult(
        stage=stage,
        verdict=verdict,
        reason=reason,
        exit_code=ended.status,
        signal=signal_name(ended.signal) if ended.signal is not None else None,
        chunks=chunks,
        stdout_truncated=ended.stdout_truncated,
        stderr_truncated=ended.stderr_truncated,
        wall_ms=ended.wall_ms,
        cpu_ms=ended.cpu_ms,
        memory_peak_bytes=ended.memory_peak_bytes,
    )


def conclude(compiled: StageResult | None, ran: StageResult | None, failure: str, *, cancelled: bool) -> tuple[Verdict, str]:
    """Return the verdict of a job and its reason. failure: what went wrong on our side, in words; "" for nothing."""
    last = ran or compiled
    if failure or last is None:
        return (Verdict.CANCELLED if cancelled else Verdict.INTERNAL), failure
    if ran is None and last.verdict in (Verdict.RUNTIME_ERROR, Verdict.SIGNAL):
        return Verdict.COMPILE_ERROR, last.reason
    return last.verdict, last.reason


def signal_name(number: int) -> str:
    """Return "SIGKILL" for 9; real-time signals have no name of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _limit_reason(ended: Exit, limits: Limits) -> str:
    match ended.killed_by:
        case "wall_time":
            return f"wall time limit: {ended.wall_ms:.0f} ms of {limits.wall_ms} ms"
        case "cpu_time":
            return f"CPU time limit: {ended.cpu_ms:.0f} ms of {limits.cpu_ms} ms"
        case "memory":
            return f"memory limit: peak {ended.memory_peak_bytes / _MIB:.0f} MiB of {limits.memory_bytes / _MIB:.0f} MiB"
        case "output":
            cut = {"stdout": ended.stdout_truncated, "stderr": ended.stderr_truncated}
            return f"output limit: {' and '.join(name for name in cut if cut[name])} reached {limits.output_bytes} bytes"
        case _:
            return "cancelled by the client"


def _signal_reason(number: int, limits: Limits) -> str:
    match signal_name(number):
        case "SIGXFSZ":
            return f"died on SIGXFSZ: wrote a file larger than {limits.file_size_bytes} bytes"
        case "SIGSYS":
            return "died on SIGSYS: made a system call of a foreign ABI"
        case name:
            return f"died on {name}"
