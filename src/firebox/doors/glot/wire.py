"""JSON of glot-run's API: types, conversion to and from the model, and statuses of errors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from firebox.domain import errors
from firebox.domain.limits import Deadline, LimitRequest, OutputMode
from firebox.domain.model import File, Image, Job, Result, Verdict
from firebox.doors.http import refusals
from firebox.doors.http.json_body import parse_object
from firebox.doors.http.json_size import Checked
from firebox.doors.http.status import status_of
from firebox.service.languages import Native
from firebox.service.validation import MAX_FILES, check_count, encode_text
from firebox.settings.settings import Settings
from firebox.storage.records import Language, User

RUNNER = "/home/glot/runner"
"""Protocol of a language image: it reads one JSON object and writes one."""
IMAGE_USER = "glot"
IMAGE_HOSTNAME = "glot-runner"
PROCESSES = 100
OPEN_FILES = 100

MASK = "********"
"""Shown in place of a token, followed by its last characters if they are stored."""
SHOWN_CHARACTERS = 4000

encode = msgspec.json.Encoder().encode


class Message(Struct, frozen=True):
    """Body of every error response. error: stable, for programs; message: for people."""

    error: str
    message: str


class Root(Struct, frozen=True):
    """Body of `GET /` and `GET /admin`. urls: by name."""

    urls: dict[str, str]
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    version: str | UnsetType = UNSET


class NamedLink(Struct, frozen=True):
    """A language."""

    name: str
    url: str


class VersionLink(Struct, frozen=True):
    """A version of a language."""

    version: str
    url: str


class ImageLink(Struct, frozen=True):
    """An image, and the address that runs a program in it."""

    image: str
    url: str


class UserEntry(Struct, frozen=True):
    """A user. token: in full only right after it was set; times: ISO 8601 in UTC, with a Z."""

    id: str
    token: str
    created: str
    modified: str
    url: str


class LanguageEntry(Struct, frozen=True):
    """A language at a version. url: omitted when it was requested by its own address."""

    id: str
    name: str
    version: str
    image: str
    url: str | UnsetType = UNSET


class FileEntry(Struct, frozen=True):
    """A file of a run."""

    name: str
    content: str


class RunRequest(Struct, frozen=True):
    """A program to run: the first file is the one that runs."""

    files: list[FileEntry]
    stdin: str = ""
    command: str = ""


class Answer(Struct, frozen=True):
    """Result of a run. error: "" on success, `Exit code: N`, or a message."""

    stdout: str
    stderr: str
    error: str


class RunFailed(errors.RequestError):
    """The program was stopped, or its container failed. The message is sent to the client."""

    code = "run.failed"


class TooSlow(RunFailed):
    code = "run.timeout"

    def __init__(self) -> None:
        super().__init__("Code exceeded the maximum allowed running time")


class TooMuchOutput(RunFailed):
    code = "run.output"

    def __init__(self) -> None:
        super().__init__("Output exceeded the maximum allowed size")


class Links:
    """Links in responses. base: URL of the API, without a trailing slash."""

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")

    def to(self, *parts: str) -> str:
        """Return the URL of a path."""
        return "/".join((self._base, *(quote(part, safe="+") for part in parts)))


def read_run(body: Checked) -> RunRequest:
    """Parse a program to run. Unknown keys are ignored. Raises: InvalidRequest."""
    document = parse_object(body)
    entries = document.get("files")
    if not isinstance(entries, list) or not entries:
        raise errors.InvalidRequest("Missing files")
    check_count(len(cast("list[object]", entries)), allowed=MAX_FILES, what="files", where="files")
    files: list[FileEntry] = []
    for entry in cast("list[object]", entries):
        fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        name, content = fields.get("name"), fields.get("content")
        if not isinstance(name, str) or not isinstance(content, str) or not name or not content:
            raise errors.InvalidRequest("One or more files are incomplete")
        index = len(files)
        encode_text(name, where=f"files[{index}].name")
        encode_text(content, where=f"files[{index}].content")
        files.append(FileEntry(name, content))
    return RunRequest(files, _text(document, "stdin"), _text(document, "command"))


def read_token(body: Checked) -> str:
    """Parse the token of a new user. Raises: InvalidRequest when it is missing."""
    return _required(parse_object(body), "token")


def read_language(body: Checked) -> tuple[str, str, str]:
    """Parse name, version and image. Raises: InvalidRequest."""
    document = parse_object(body)
    found: list[str] = []
    for key in ("name", "version", "image"):
        found.append(_required(document, key))
        encode_text(found[-1], where=key)
    return found[0], found[1], found[2]


def to_image_job(request: RunRequest, language: Language, settings: Settings) -> Job:
    """Translate a run for the image of its language, which gets the request on standard input."""
    return Job(
        language=language.name,
        image=Image(name=language.image, entrypoint=(RUNNER,), user=IMAGE_USER, hostname=IMAGE_HOSTNAME),
        stdin=encode({"language": language.name, **asdict(request)}),
        run_limits=LimitRequest(
            memory_bytes=settings.docker_memory_bytes,
            wall_ms=settings.docker_run_timeout_ms,
            output_bytes=settings.glot_output_bytes,
            output_mode=OutputMode.KILL,
            processes=PROCESSES,
            open_files=OPEN_FILES,
        ),
    )


def to_job(request: RunRequest, native: Native, settings: Settings) -> Job:
    """Convert a request to a job for the sandbox, under the limits of a container and at most the operator's maxima."""
    wall_ms = settings.docker_run_timeout_ms
    limits = LimitRequest(wall_ms=wall_ms, cpu_ms=wall_ms, output_bytes=settings.glot_output_bytes, output_mode=OutputMode.KILL)
    return Job(
        language=native.language,
        version=native.version,
        files=tuple(File(file.name, file.content.encode()) for file in request.files),
        stdin=request.stdin.encode(),
        command=request.command,
        compile_limits=limits,
        run_limits=limits,
        clamp_limits=True,
        deadline=Deadline(wall_ms=wall_ms),
    )


def from_result(result: Result, output_bytes: int) -> Answer:
    """Convert a result: the output of the program, or of the compiler if that failed. output_bytes: limit of the response.
    Raises: TooSlow, TooMuchOutput, SandboxError for a failure of the sandbox.
    """
    _check_stopped(result)
    if result.verdict is Verdict.INTERNAL:
        raise errors.SandboxError("run", detail=result.reason)
    stage = result.run or result.compile
    if stage is None:
        return Answer("", "", result.reason)
    failed = result.verdict in (Verdict.RUNTIME_ERROR, Verdict.COMPILE_ERROR) and stage.exit_code is not None
    answer = Answer(
        stdout=stage.stdout.decode(errors="replace"),
        stderr=stage.stderr.decode(errors="replace"),
        error=f"Exit code: {stage.exit_code}" if failed else result.reason,
    )
    if len(encode(answer)) > output_bytes:
        raise TooMuchOutput
    return answer


def from_container(result: Result) -> Answer:
    """Read what the program of an image wrote: exactly one JSON object. Raises: RunFailed, with the stderr of the container;
    TooSlow, TooMuchOutput, ContainerError, ShuttingDown.
    """
    _check_stopped(result)
    stage = result.run
    if stage is None:
        raise errors.ContainerError(result.reason)
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.json.decode(stage.stdout.decode(errors="replace"), type=Answer)
    words = stage.stderr.decode(errors="replace").strip()
    if not words:
        words = f"the program of the image gave no {'valid ' if stage.stdout.strip() else ''}answer"
        if stage.exit_code:
            words += f" (exit status {stage.exit_code})"
    raise RunFailed(words[:SHOWN_CHARACTERS])


def _check_stopped(result: Result) -> None:
    """Raises: TooSlow, TooMuchOutput, ShuttingDown for a run that was stopped."""
    match result.verdict:
        case Verdict.WALL_TIME | Verdict.CPU_TIME:
            raise TooSlow
        case Verdict.OUTPUT:
            raise TooMuchOutput
        case Verdict.CANCELLED:
            raise errors.ShuttingDown("the run was cancelled", retry_after_s=1.0)
        case _:
            pass


def from_user(user: User, links: Links, token: str = "") -> UserEntry:
    """Convert a user. token: if it was just set; otherwise only its end is known."""
    return UserEntry(
        id=user.uuid,
        token=token or MASK + user.token_hint,
        created=_time(user.created_at),
        modified=_time(user.modified_at),
        url=links.to("admin", "users", user.uuid),
    )


def from_language(language: Language, links: Links | None) -> LanguageEntry:
    """Convert a language. links: None when it was requested by its own address."""
    url = links.to("admin", "languages", language.id) if links else UNSET
    return LanguageEntry(language.id, language.name, language.version, language.image, url)


ERROR_KEYS: Mapping[type[errors.FireboxError], str] = {
    errors.InvalidRequest: "request.parse",
    errors.NotFound: "not_found",
    errors.Unauthenticated: "access_token",
    errors.Forbidden: "access_token",
    refusals.TransportError: "request.parse",
}
"""Error keys of glot-run; every other error has our own code."""

NOT_FOUND = Message("route.not_found", "Route not found")
WRONG_METHOD = Message("route.method_not_allowed", "Method not allowed")
BUG = Message("internal", "internal error; see the server log")


def from_error(error: errors.FireboxError) -> tuple[int, Message]:
    """Return the status and the body for an error."""
    key = next((ERROR_KEYS[class_] for class_ in type(error).__mro__ if class_ in ERROR_KEYS), error.code)
    words = error.message
    if isinstance(error, errors.InvalidRequest) and error.where:
        words = f"{error.where}: {words}"
    return status_of(error), Message(key, f"{words} ({error.hint})" if error.hint else words)


def _required(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise errors.InvalidRequest(f"Missing {key}")
    return value


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise errors.InvalidRequest("must be a string", where=key)
    encode_text(value, where=key)
    return value


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
