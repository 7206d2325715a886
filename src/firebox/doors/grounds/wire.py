r"""Messages of grounds-exec: the event `run`, in both directions.

client to server: {"language": "python3", "code": "print(42)"}
server to client: {"stream": "stdout", "chunk": "42\n"}

| stream         | chunk                                                                        |
| -------------- | ---------------------------------------------------------------------------- |
| start          | "": the program, or the compiler of its code, is now running                 |
| stdout, stderr | text, as it arrives                                                          |
| status         | exit code, a number; 128 + N after signal N; 256 less from 128 on            |
| stop           | "": the previous run of this connection was interrupted by a new one         |
| error          | a message                                                                    |

One `status` or `error` is the last reply of every run that no `stop` ends.

Source: github.com/grounds/grounds-exec, README.md and lib/handlers/run.js.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from msgspec import Struct

from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.domain.limits import Deadline, HasLimits, LimitRequest, OutputMode
from firebox.domain.model import File, Job, Result, Verdict
from firebox.runtimes.runtime import Runtime
from firebox.service.validation import encode_text
from firebox.settings.limit_policy import limit_policy
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
    """Check the first argument of an event, any JSON value. Unknown keys are ignored, as in grounds-exec. A request without
    `code` runs an empty program. Raises: InvalidRequest with the message for the client.
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
    # As long as the whole run, or longer for a toolchain whose definition says so.
    compile_ms = max(settings.grounds_wall_ms, runtime.compile_limits.wall_ms or 0)
    memory_bytes = run_memory_bytes(settings, runtime)
    no_cap = 0  # the wall time decides, not how many processors a program keeps busy
    return Job(
        language=request.language,
        files=(File("", encode_text(request.code, where="code")),),
        compile_limits=LimitRequest(wall_ms=compile_ms, cpu_ms=no_cap, output_mode=OutputMode.KILL),
        run_limits=LimitRequest(
            wall_ms=settings.grounds_wall_ms, cpu_ms=no_cap, memory_bytes=memory_bytes, output_mode=OutputMode.KILL
        ),
        clamp_limits=True,
        deadline=Deadline(wall_ms=settings.grounds_wall_ms, compile_wall_ms=compile_ms),
    )


def run_memory_bytes(settings: Settings, runtime: HasLimits) -> int:
    """Return the memory limit of a run, 0 for no cap: an override, else the setting of this door or what the language needs."""
    override = limit_policy(settings).override("run_memory_bytes", runtime.setting_names)
    if override is not None:
        return int(override)
    usual = settings.grounds_memory_bytes
    return max(usual, runtime.limits("run").memory_bytes or 0) if usual else 0


def last_reply(result: Result) -> Reply:
    """Return the last reply of a run."""
    match result.verdict:
        case Verdict.WALL_TIME | Verdict.CPU_TIME:
            return Reply("error", TIMEOUT)
        case Verdict.OUTPUT:
            return Reply("error", TOO_MUCH_OUTPUT)
        case Verdict.CANCELLED:
            return Reply("error", CANCELLED)
        case _:
            stage = result.run or result.compile
            if result.verdict is Verdict.INTERNAL or stage is None:
                return Reply("error", f"The run failed: {result.reason}.")
            status = stage.shell_status
            return Reply("status", status - 256 if status >= 128 else status)  # as a signed byte


def message_of(error: FireboxError) -> str:
    """Return the message of an error, with its hint."""
    return f"{error.message} ({error.hint})" if error.hint else error.message
