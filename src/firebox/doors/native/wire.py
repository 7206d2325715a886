"""JSON of the native API: types, conversion to and from the model, and statuses of errors."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict, replace

from firebox.domain import errors, model
from firebox.domain.limits import LimitRequest
from firebox.doors.http.output import Pieces, is_large, plain_texts
from firebox.doors.http.status import status_of
from firebox.runtimes.runtime import Runtime
from firebox.service.validation import MAX_FILES, check_count, encode_text


class FileRequest(Struct, forbid_unknown_fields=True):
    """A file of a run."""

    content: Annotated[str, Meta(description="The text, or base64 if `encoding` is `base64`.")]
    name: Annotated[
        str | None,
        Meta(description="Relative path. Optional for the main file, which then gets the usual name of its language."),
    ] = None
    encoding: Annotated[
        Literal["utf8", "base64"],
        Meta(description="`base64` for binary data, which is written beside the code and not passed to the compiler."),
    ] = "utf8"


class StageLimits(LimitRequest, frozen=True, forbid_unknown_fields=True):
    """Limits of one stage. The operator's defaults apply to the others."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of both stages."""

    compile: StageLimits = StageLimits()
    run: StageLimits = StageLimits()


class TerminalSize(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows and columns of a terminal."""

    rows: Annotated[int, Meta(description="1 to 1000.")] = 24
    columns: Annotated[int, Meta(description="1 to 1000.")] = 80


class RunRequest(Struct, forbid_unknown_fields=True):
    """A program to run."""

    language: Annotated[str, Meta(description="Name or alias of a language, as listed by `GET /runtimes`.")]
    version: Annotated[str, Meta(description="SemVer range in npm's syntax; the latest match is used.")] = "*"
    files: Annotated[list[FileRequest], Meta(description="The first text file is the main file.")] = []
    code: Annotated[str | None, Meta(description="Shorthand for `files` with a single file.")] = None
    stdin: Annotated[str, Meta(description="Standard input.")] = ""
    args: Annotated[list[str], Meta(description="Command-line arguments of the program.")] = []
    compile_args: Annotated[list[str], Meta(description="Arguments of the compiler; each language allows some.")] = []
    env: Annotated[dict[str, str], Meta(description="Environment variables, added to those of the runtime.")] = {}
    command: Annotated[str, Meta(description="Runs instead of compiling and running: `sh -c` in the folder of the files.")] = ""
    limits: Annotated[Limits, Meta(description="Limits of the compile stage and the run stage.")] = Limits()
    artifacts: Annotated[list[str], Meta(description="Glob patterns of files to return after the run.")] = []
    cache: Annotated[
        model.CacheLevel | None,
        Meta(description="What may be cached: nothing, the compiled program, or the result as well. null: the server's default."),
    ] = None
    fresh: Annotated[
        bool, Meta(description="Start a new process for this run: neither a prestarted one nor one restored from a template.")
    ] = False
    terminal: Annotated[
        bool | TerminalSize, Meta(description="Use a terminal instead of pipes: all output then arrives on stdout.")
    ] = False
    base64: Annotated[
        bool, Meta(description="Also return the exact bytes of output that is not UTF-8, as `stdout_base64` and `stderr_base64`.")
    ] = False


class Stage(Struct, frozen=True, kw_only=True):
    """Result of a stage. Times in milliseconds, memory in bytes."""

    verdict: model.Verdict
    reason: Annotated[str, Meta(description="Explanation of the verdict; empty for `ok`.")]
    exit_code: int | None
    signal: str | None
    stdout_truncated: bool
    stderr_truncated: bool
    wall_ms: float
    cpu_ms: float
    memory_peak_bytes: int


class StageWithOutput(Stage, frozen=True, kw_only=True):
    """Result of a stage, with its output."""

    stdout: str
    stderr: str
    output: Annotated[str, Meta(description="Both streams, interleaved as they arrived.")]
    stdout_base64: str | UnsetType = UNSET
    stderr_base64: str | UnsetType = UNSET


class Artifact(Struct, frozen=True):
    """A file left by the program. content: base64."""

    name: str
    content: bytes
    size: int


class LeftOut(Struct, frozen=True):
    """A requested file that is not returned. name: printable, at most 200 characters; or a pattern."""

    name: str
    reason: str


class Result(Struct, frozen=True, kw_only=True):
    """Result of a run whose output was streamed."""

    id: str
    runtime: model.RuntimeName
    verdict: model.Verdict
    reason: str
    compile: Annotated[Stage | None, Meta(description="null for languages without a compile stage.")]
    run: Annotated[Stage | None, Meta(description="null if compiling failed.")]
    timings: model.Timings
    artifacts: list[Artifact]
    left_out: Annotated[
        list[LeftOut], Meta(description="Files matched by `artifacts` that are not returned, with the reason; the first hundred.")
    ]
    cache: Annotated[model.CacheLevel, Meta(description="Cache level that served the run; cached work takes no time.")]
    isolation: Annotated[list[str], Meta(description="The active isolation layers, by the names of `firebox doctor`.")]


class ResultWithOutput(Result, frozen=True, kw_only=True):
    """Result of a run, with its output."""

    compile: Annotated[StageWithOutput | None, Meta(description="null for languages without a compile stage.")]
    run: Annotated[StageWithOutput | None, Meta(description="null if compiling failed.")]


class RunState(Struct, frozen=True):
    """State of an asynchronous run. result: null until it has ended."""

    id: str
    runtime: model.RuntimeName
    state: Literal["queued", "running", "ended"]
    result: ResultWithOutput | None = None


class RuntimeEntry(Struct, frozen=True):
    """A language at a version that is available here."""

    language: str
    version: str
    aliases: list[str]
    extensions: list[str]
    compiled: bool
    package: Annotated[str | None, Meta(description="Name of the package, if it differs from the language.")]
    installed: Annotated[
        str | None, Meta(description="Name and version of the installed package it comes from; null if installed on the host.")
    ]


class Health(Struct, frozen=True, kw_only=True):
    """Whether new runs are accepted, and the load of the server."""

    status: Literal["ok", "stopping"]
    version: str
    slots: int
    in_flight: int
    queued: int
    ready_sandboxes: int


class ErrorDetail(Struct, frozen=True, omit_defaults=True):
    """What went wrong. code: stable, for programs. where: the field or position; hint: how to fix it."""

    code: str
    message: str
    where: str = ""
    hint: str = ""


class ErrorBody(Struct, frozen=True):
    """The response for every error."""

    error: ErrorDetail


def to_job(request: RunRequest) -> model.Job:
    """Convert a request to a job. The service checks its meaning. Raises: InvalidRequest for content that cannot be decoded, an
    empty name, or `code` together with `files`.
    """
    if request.code is not None:
        if request.files:
            raise errors.InvalidRequest("code and files are mutually exclusive", where="code")
        files = [model.File("", encode_text(request.code, where="code"))]
    else:
        check_count(len(request.files), allowed=MAX_FILES, what="files", where="files")
        files = [_file(file, f"files[{index}]") for index, file in enumerate(request.files)]
    return model.Job(
        language=request.language,
        version=request.version,
        files=tuple(files),
        stdin=encode_text(request.stdin, where="stdin"),
        args=tuple(request.args),
        compile_args=tuple(request.compile_args),
        env=request.env,
        command=request.command,
        compile_limits=request.limits.compile,
        run_limits=request.limits.run,
        artifacts=tuple(request.artifacts),
        cache=request.cache,
        fresh=request.fresh,
        terminal=_terminal(request.terminal),
    )


def _file(file: FileRequest, where: str) -> model.File:
    if file.name == "":
        raise errors.InvalidRequest("the name is empty", where=f"{where}.name", hint="leave it out or give one")
    if file.encoding == "utf8":
        return model.File(file.name or "", encode_text(file.content, where=f"{where}.content"))
    return model.File(file.name or "", from_base64(file.content, where=f"{where}.content"), source=False)


def _terminal(wanted: bool | TerminalSize) -> model.Terminal | None:
    if isinstance(wanted, TerminalSize):
        return model.Terminal(wanted.rows, wanted.columns)
    return model.Terminal() if wanted else None


def from_base64(text: str, *, where: str) -> bytes:
    """Decode strict base64. Raises: InvalidRequest."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise errors.InvalidRequest("not base64", where=where) from None


async def from_result(result: model.Result, pieces: Pieces, *, exact: bool) -> ResultWithOutput:
    """Convert a result with its output; what is large goes to `pieces`. exact: include the bytes of output that is not UTF-8."""
    return ResultWithOutput(
        compile=await _stage_with_output(result.compile, pieces, exact=exact) if result.compile else None,
        run=await _stage_with_output(result.run, pieces, exact=exact) if result.run else None,
        **await _without_stages(result, pieces),
    )


async def from_streamed_result(result: model.Result, pieces: Pieces) -> Result:
    """Convert a result for a client that has received the output already. Large artifacts go to `pieces`."""
    return Result(
        compile=from_stage(result.compile) if result.compile else None,
        run=from_stage(result.run) if result.run else None,
        **await _without_stages(result, pieces),
    )


async def _without_stages(result: model.Result, pieces: Pieces) -> dict[str, Any]:
    # `Artifact` declares bytes, which msgspec encodes as base64; these are encoded already.
    contents: list[Any] = [await pieces.base64(file.content) for file in result.artifacts]
    return {
        "id": result.id,
        "runtime": result.runtime,
        "verdict": result.verdict,
        "reason": result.reason,
        "timings": model.Timings(**{name: round(ms, 3) for name, ms in asdict(result.timings).items()}),
        "artifacts": [
            Artifact(file.name, content, len(file.content)) for file, content in zip(result.artifacts, contents, strict=True)
        ],
        "left_out": [LeftOut(each.name, each.reason) for each in result.left_out],
        "cache": result.cache,
        "isolation": list(result.isolation),
    }


def from_stage(stage: model.StageResult) -> Stage:
    """Convert the result of a stage, without its output."""
    common = msgspec.convert(stage, Stage, from_attributes=True)
    return replace(common, wall_ms=round(stage.wall_ms, 3), cpu_ms=round(stage.cpu_ms, 3))


async def _stage_with_output(stage: model.StageResult, pieces: Pieces, *, exact: bool) -> StageWithOutput:
    text = await pieces.texts(stage) if is_large(stage) else plain_texts(stage)
    output: dict[str, Any] = text._asdict()
    if exact:
        for name, data in (("stdout", stage.stdout), ("stderr", stage.stderr)):
            if not _is_utf8(data):
                output[f"{name}_base64"] = await pieces.base64(data)
    return StageWithOutput(**asdict(from_stage(stage)), **output)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def from_runtime(runtime: Runtime) -> RuntimeEntry:
    """Convert a runtime."""
    return replace(msgspec.convert(runtime, RuntimeEntry, from_attributes=True), installed=runtime.installed or None)


def from_error(error: errors.FireboxError) -> tuple[int, ErrorBody]:
    """Return the status and the body for an error."""
    where = getattr(error, "where", "")
    if isinstance(error, errors.LimitTooHigh | errors.LimitNotEnforceable):
        where = error.limit
    elif isinstance(error, errors.UnknownRuntime):
        where = "language"
    if where.startswith(("compile.", "run.")):
        where = f"limits.{where}"
    return status_of(error), ErrorBody(ErrorDetail(error.code, error.message, where, error.hint))
