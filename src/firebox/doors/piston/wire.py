"""Piston's JSON responses: their types, the translation from the domain model, and the error table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from firebox.domain import errors, model
from firebox.domain.limits import StageName
from firebox.domain.model import Verdict, signal_number
from firebox.doors.http import status
from firebox.doors.http.output import Texts, plain_texts
from firebox.runtimes.runtime import Runtime

Status = Literal["RE", "SG", "TO", "OL", "EL", "XX"]
"""Runtime error, signal, timeout, stdout limit, stderr limit, internal error."""

encode = msgspec.json.Encoder().encode


class Message(Struct, frozen=True):
    """The body of every error response."""

    message: str


class Stage(Struct, frozen=True, kw_only=True):
    """The result of a stage. Times in whole milliseconds, memory in bytes."""

    stdout: str
    stderr: str
    output: str
    code: int | None
    signal: str | None
    message: str | None
    status: Status | None
    cpu_time: int
    wall_time: int
    memory: int


class Execution(Struct, frozen=True, kw_only=True):
    """The result of a job; `compile` is present for compiled runtimes only."""

    language: str
    version: str
    run: Stage
    compile: Stage | UnsetType = UNSET


class RuntimeEntry(Struct, frozen=True):
    """A language at a version. runtime: names the package where one package provides several languages."""

    language: str
    version: str
    aliases: tuple[str, ...]
    runtime: str | UnsetType = UNSET


class PackageEntry(Struct, frozen=True):
    """A package in the list."""

    language: str
    language_version: str
    installed: bool


class PackageName(Struct, frozen=True):
    """The package that was installed or uninstalled."""

    language: str
    version: str


def from_result(result: model.Result, texts: Mapping[StageName, Texts]) -> Execution:
    """Translate a result. If the compile stage failed, `run` repeats it, because old clients read `run` only.

    texts: output of stages that is decoded already or replaced by placeholders, see `Pieces`.
    """
    compiled = _stage(result.compile, texts) if result.compile else None
    if result.run is not None:
        run = _stage(result.run, texts)
    elif compiled is not None and compiled.status is not None:
        run = compiled
    else:
        run = _never_ran(result.reason)
    return Execution(
        language=result.runtime.language, version=result.runtime.version, run=run, compile=UNSET if compiled is None else compiled
    )


def from_runtimes(runtimes: Iterable[Runtime]) -> list[RuntimeEntry]:
    runtimes = list(runtimes)
    languages = Counter(package for package, _ in {(each.package, each.language) for each in runtimes})
    return [
        RuntimeEntry(
            each.language, each.version, each.aliases, each.package if each.package and languages[each.package] > 1 else UNSET
        )
        for each in runtimes
    ]


def outcome(stage: model.StageResult) -> tuple[int | None, str | None]:
    """Return exit code and signal of a stage. A stage that exceeded a limit always reports SIGKILL."""
    match stage.verdict:
        case Verdict.OK | Verdict.RUNTIME_ERROR | Verdict.SIGNAL:
            return stage.exit_code, stage.signal
        case Verdict.INTERNAL:
            return None, None
        case _:
            return None, "SIGKILL"


def _stage(stage: model.StageResult, texts: Mapping[StageName, Texts]) -> Stage:
    text = texts.get(stage.stage) or plain_texts(stage)
    code, signal = outcome(stage)
    status, message = _verdict(stage)
    return Stage(
        stdout=text.stdout,
        stderr=text.stderr,
        output=text.output,
        code=code,
        signal=signal,
        message=message,
        status=status,
        cpu_time=round(stage.cpu_ms),
        wall_time=round(stage.wall_ms),
        memory=stage.memory_peak_bytes,
    )


def _verdict(stage: model.StageResult) -> tuple[Status | None, str | None]:
    """Return Piston's status and message for a verdict. For memory the reason is appended in parentheses."""
    match stage.verdict:
        case Verdict.OK:
            return None, None
        case Verdict.WALL_TIME:
            return "TO", "Time limit exceeded (wall clock)"
        case Verdict.CPU_TIME:
            return "TO", "Time limit exceeded"
        case Verdict.OUTPUT if stage.stdout_truncated:
            return "OL", "stdout length exceeded"
        case Verdict.OUTPUT:
            return "EL", "stderr length exceeded"
        case Verdict.SIGNAL:
            return "SG", f"Caught fatal signal {signal_number(stage.signal) if stage.signal else 'of unknown number'}"
        case Verdict.MEMORY:
            return "SG", f"Caught fatal signal 9 ({stage.reason})"
        case Verdict.INTERNAL | Verdict.CANCELLED:
            return "XX", stage.reason
        case _ if stage.exit_code:
            return "RE", f"Exited with error status {stage.exit_code}"
        case _:
            return "RE", stage.reason


def _never_ran(reason: str) -> Stage:
    """Return a run stage for a job that ended before it."""
    return Stage(
        stdout="", stderr="", output="", code=None, signal=None, message=reason, status="XX", cpu_time=0, wall_time=0, memory=0
    )


STATUS: Mapping[type[errors.FireboxError], int] = {
    **status.STATUS,
    # Piston answers 500 when a package is already installed or cannot be installed.
    **dict.fromkeys(
        (errors.Conflict, *(error for error in status.STATUS if issubclass(error, errors.PackageError))),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    ),
}
"""HTTP status of every error class; a test checks that none is missing."""

LIMIT_KEYS = {
    f"{stage}.{limit}": f"{stage}_{key}"
    for limit, key in (("memory_bytes", "memory_limit"), ("wall_ms", "timeout"), ("cpu_ms", "cpu_time"))
    for stage in ("compile", "run")
}
"""Our names of Piston's limits and its keys, in the order in which Piston checks them."""


def from_error(error: errors.FireboxError) -> tuple[int, Message]:
    """Return status and body for an error. Clients show `message` only, so the hint of a package error is appended to it."""
    words = words_of(error)
    if isinstance(error, errors.PackageError | errors.Conflict) and error.hint:
        words = f"{words} ({error.hint})"
    return status.status_of(error, STATUS), Message(words)


def words_of(error: errors.FireboxError) -> str:
    """Return Piston's message for an error."""
    match error:
        case errors.UnknownRuntime():
            return f"{error.selector}-{error.version} runtime is unknown"
        case errors.LimitTooHigh():
            return f"{LIMIT_KEYS.get(error.limit, error.limit)} cannot exceed the configured limit of {error.allowed:.0f}"
        case errors.LimitNotEnforceable():
            return f"{LIMIT_KEYS.get(error.limit, error.limit)} cannot be enforced on this host"
        case errors.InvalidRequest() if error.where:
            return f"{LIMIT_KEYS.get(error.where, error.where)}: {error.message}"
        case _:
            return error.message
