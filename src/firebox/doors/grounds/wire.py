r"""What goes over the wire of grounds-exec: the event `run`, both ways.

client to server: {"language": "python3", "code": "print(42)"}
server to client: {"stream": "stdout", "chunk": "42\n"}

| stream         | chunk                                                                        |
| -------------- | ---------------------------------------------------------------------------- |
| start          | "": the program, or the compiler of its code, is now running                 |
| stdout, stderr | text, as it arrives                                                          |
| status         | exit code, a number; 128 + N for a program that signal N killed; 128 and more less 256 |
| stop           | "": the previous run of this connection was interrupted by a new one         |
| error          | words                                                                        |

One `status` or `error` is the last reply of every run that no `stop` ends.

Source: github.com/grounds/grounds-exec, README.md and lib/handlers/run.js.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from msgspec import Struct

from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.domain.model import File, Job, LimitRequest, OutputMode, Result, StageResult, Verdict
from firebox.runtimes.runtime import Runtime
from firebox.service.validation import check_text
from firebox.settings.settings import Settings

EVENT = "run"
CODE_CHARACTERS = 65_536

EMPTY = "Request is empty."
TOO_LONG = "Program too long."
SPAM = "Spam prevention."
TIMEOUT = "Timeout exceeded."
TOO_MUCH_OUTPUT = "Output limit exceeded."
CANCELLED = "The run was cancelled."
BUG = "The run failed: an error in the server."

Stream = Literal["start", "stdout", "stderr", "status", "stop", "error"]


class Request(Struct, frozen=True):
    """A run as a client requests it."""

    language: str
    code: str


class Reply(Struct, frozen=True):
    """A message to a client about its run."""

    stream: Stream
    chunk: str | int = ""

    @property
    def is_last(self) -> bool:
        """Whether this is the last reply of its run."""
        return self.stream in {"status", "error"}


def read_request(document: object) -> Request:
    """Check the first argument of an event, any JSON value. Unknown keys are ignored, as in grounds-exec.

    A request without `code` runs an empty program.
    Raises: InvalidRequest with the message for the client.
    """
    if not document:
        raise InvalidRequest(EMPTY)
    if not isinstance(document, dict):
        raise InvalidRequest("The request is not an object.")
    fields = cast("Mapping[str, object]", document)
    language, code = fields.get("language"), fields.get("code")
    if isinstance(code, str) and len(code) > CODE_CHARACTERS:
        raise InvalidRequest(TOO_LONG)
    if language is None:
        raise InvalidRequest("The language is missing.", where="language")
    return Request(language=_text(language, "language"), code="" if code is None else _text(code, "code"))


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"The {key} is not text.", where=key)
    return value


def to_job(request: Request, runtime: Runtime, settings: Settings) -> Job:
    """Convert a request to a job. Raises: InvalidRequest for code that cannot be written as UTF-8."""
    compile_maximum = settings.maximum_limits("compile", runtime.setting_names)
    run_maximum = settings.maximum_limits("run", runtime.setting_names)
    return Job(
        language=request.language,
        files=(File("", check_text(request.code, "code")),),
        compile_limits=LimitRequest(
            wall_ms=_at_most(compile_wall_ms(runtime, settings), compile_maximum.wall_ms),
            # The wall clock decides, not how many processors a program keeps busy.
            cpu_ms=compile_maximum.cpu_ms,
            output_mode=OutputMode.KILL,
        ),
        run_limits=LimitRequest(
            wall_ms=_at_most(settings.grounds_wall_ms, run_maximum.wall_ms),
            cpu_ms=run_maximum.cpu_ms,
            memory_bytes=_at_most(
                run_memory_bytes(settings, runtime.setting_names, runtime.run_limits.memory_bytes), run_maximum.memory_bytes
            ),
            output_mode=OutputMode.KILL,
        ),
    )


def compile_wall_ms(runtime: Runtime, settings: Settings) -> int:
    """Decide how long compiling may take: as long as the whole run, longer for a toolchain whose definition says so."""
    return max(settings.grounds_wall_ms, runtime.compile_limits.wall_ms or 0)


def run_memory_bytes(settings: Settings, names: Sequence[str], needed: int | None = None) -> int:
    """Decide the memory of a run, 0 for no cap.

    names: of the language, for the operator's own word about it; needed: without which it does not start, by its definition.
    """
    for name in names:
        overridden = settings.limit_overrides.get(name.lower(), {}).get("run_memory_bytes")
        if overridden is not None:
            return int(overridden)
    wanted = settings.grounds_memory_bytes
    return max(wanted, needed or 0) if wanted else 0


def _at_most(wanted: int, maximum: int) -> int:
    """Hold a limit under its maximum. 0 is no cap, and no maximum."""
    if not maximum:
        return wanted
    return min(wanted, maximum) if wanted else maximum


def last_words(result: Result, *, expired: bool) -> Reply:
    """Return the last reply of a run. expired: the timeout of the run cancelled it."""
    match result.verdict:
        case Verdict.WALL_TIME | Verdict.CPU_TIME:
            return Reply("error", TIMEOUT)
        case Verdict.OUTPUT:
            return Reply("error", TOO_MUCH_OUTPUT)
        case Verdict.CANCELLED:
            return Reply("error", TIMEOUT if expired else CANCELLED)
        case _:
            stage = result.run or result.compile
            if result.verdict is Verdict.INTERNAL or stage is None:
                return Reply("error", f"The run failed: {result.reason}.")
            return Reply("status", signed(exit_status(stage)))


def exit_status(stage: StageResult) -> int:
    """Return the exit status as a shell reports it: 128 + N for a program that signal N killed."""
    if stage.exit_code is not None:
        return stage.exit_code
    return 128 + _signal_number(stage.signal or "SIGKILL")


def _signal_number(name: str) -> int:
    return int(signal.Signals[name]) if name in signal.Signals.__members__ else int(name.removeprefix("SIG"))


def signed(status: int) -> int:
    """Convert an exit status to a signed byte."""
    return status - 256 if status >= 128 else status


def words_of(error: FireboxError) -> str:
    """Return the message of an error, with its hint."""
    return f"{error.message} ({error.hint})" if error.hint else error.message
