"""Parse execute requests into jobs. Checks run in Piston's order and fail with Piston's messages."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable
from typing import Any, cast, get_args

import msgspec

from firebox.domain.errors import InvalidRequest, LimitTooHigh
from firebox.domain.limits import MAX_NUMBER, STAGES, LimitRequest, OutputMode, StageName
from firebox.domain.model import CacheLevel, File, Job
from firebox.doors.http.json_body import parse
from firebox.doors.http.json_size import Checked
from firebox.doors.piston.wire import LIMIT_KEYS
from firebox.runtimes.runtime import Runtime
from firebox.service.validation import MAX_FILES, MAX_WORDS, check_count, encode_text
from firebox.settings.limit_policy import limit_policy
from firebox.settings.other_systems.piston_settings import PREFIX
from firebox.settings.settings import Settings

Document = dict[str, Any]
Resolve = Callable[[str, str], Runtime]

CACHE_LEVELS: tuple[CacheLevel, ...] = get_args(CacheLevel)
MACHINE_CODE = "file"
"""Piston's language for machine code: its main file may be binary."""

_decode = msgspec.json.Decoder().decode


def read_document(body: Checked) -> Document:
    """Parse a JSON object. An empty body and an array both count as an empty object, as in Piston. Raises: InvalidRequest."""
    try:
        document: object = _decode(body) if body else {}
    except RecursionError:
        raise InvalidRequest("the JSON is nested too deeply") from None
    except ValueError:
        # The slow parser accepts what the fast one rejects (byte order mark, huge numbers) or reports where the error is.
        document = parse(body)
    if isinstance(document, dict):
        return cast(Document, document)
    if isinstance(document, list):
        return {}
    raise InvalidRequest("the body is not a JSON object")


def to_job(document: Document, resolve: Resolve, settings: Settings, *, interactive: bool = False) -> Job:
    """Translate an execute request; the service validates the job.

    interactive: input arrives later and `stdin` is ignored.
    Raises: InvalidRequest, UnknownRuntime, LimitTooHigh.
    """
    language, version = read_selector(document)
    entries = _check_entries(document.get("files"))
    runtime = resolve(language, version)
    if runtime.language != MACHINE_CODE and not any(_encoding(entry) == "utf8" for entry in entries):
        raise InvalidRequest("files must include at least one utf8 encoded file")
    compile_limits, run_limits = read_limits(document, runtime, settings)
    return Job(
        language=language,
        version=version,
        files=_read_files(entries, all_code=runtime.language == MACHINE_CODE),
        stdin=b"" if interactive else _read_stdin(document),
        interactive=interactive,
        # An operator who set Piston's own variable expects it to apply to interactive jobs too, as in Piston.
        attended=interactive and PREFIX not in settings.source("run_wall_ms"),
        args=_read_words(document, "args"),
        compile_args=_read_words(document, "compile_args"),
        env={"PISTON_LANGUAGE": runtime.language},
        compile_limits=compile_limits,
        run_limits=run_limits,
    )


def to_package_job(document: Document, runtime: Runtime, settings: Settings) -> Job:
    """Translate a version 3 request that runs code with the runtime of an installed package; the service validates the job.

    The program is either `code`, stored under the language's default file name, or `files`. Standard input is not changed.
    Raises: InvalidRequest, LimitTooHigh.
    """
    code, files = document.get("code"), document.get("files")
    if code is None and files is None:
        raise InvalidRequest("code is required as a string, or files as an array")
    if code is not None and files is not None:
        raise InvalidRequest("code and files exclude each other")
    if code is not None and not isinstance(code, str):
        raise InvalidRequest("code is required as a string")
    compile_limits, run_limits = read_limits(document, runtime, settings)
    return Job(
        language=runtime.language,
        version=runtime.version,
        installed=runtime.installed,
        files=_read_files(_check_entries(files), all_code=False)
        if code is None
        else (File("", encode_text(code, where="code")),),
        stdin=encode_text(_read_input(document), where="stdin"),
        args=_read_words(document, "args"),
        compile_args=_read_words(document, "compile_args"),
        env={"PISTON_LANGUAGE": runtime.language},
        compile_limits=compile_limits,
        run_limits=run_limits,
        cache=_read_cache(document),
    )


def read_limits(document: Document, runtime: Runtime, settings: Settings) -> tuple[LimitRequest, LimitRequest]:
    """Read the limits of both stages. 0, "", false and null ask for none, as in Piston. Raises: InvalidRequest, LimitTooHigh."""
    policy = limit_policy(settings)
    asked: dict[StageName, dict[str, int]] = {"compile": {}, "run": {}}
    for limit, key in LIMIT_KEYS.items():
        value = document.get(key)
        if not value:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(f"If specified, {key} must be a number")
        stage, name = cast("tuple[StageName, str]", limit.split("."))
        maximum: int = getattr(policy.maximum_limits(stage, runtime), name)
        if value > (maximum or MAX_NUMBER):
            raise LimitTooHigh(limit, asked=value, allowed=maximum or MAX_NUMBER)
        if value < 0:
            decided = _read_negative(key, stage, name, maximum, settings)
            if decided is not None:
                asked[stage][name] = decided
        else:
            asked[stage][name] = max(1, round(value))
    compile_limits, run_limits = (LimitRequest(output_mode=OutputMode.KILL, **asked[stage]) for stage in STAGES)
    return compile_limits, run_limits


def _read_negative(key: str, stage: StageName, name: str, maximum: int, settings: Settings) -> int | None:
    """Return what a negative limit asks for: no cap (0) or the default (None). Raises: InvalidRequest.

    Many clients always send -1 for memory, since Piston has no memory limit by default. So it is refused only where the operator
    set a limit under Piston's own name.
    """
    if name != "wall_ms" and not maximum:
        return 0
    if name == "memory_bytes" and PREFIX not in settings.source(f"max_{stage}_{name}"):
        return None
    raise InvalidRequest(f"{key} must be non-negative")


def _read_cache(document: Document) -> CacheLevel | None:
    """Read the cache level; None means the default of the language."""
    level: CacheLevel | None = document.get("cache")
    if level is not None and level not in CACHE_LEVELS:
        raise InvalidRequest(f"cache must be one of {', '.join(CACHE_LEVELS)}")
    return level


def _check_entries(files: object) -> list[Document]:
    if not isinstance(files, list):
        raise InvalidRequest("files is required as an array")
    check_count(len(cast(list[object], files)), allowed=MAX_FILES, what="files", where="files")
    for index, entry in enumerate(cast(list[object], files)):
        if not isinstance(entry, dict) or not isinstance(cast(Document, entry).get("content"), str):
            raise InvalidRequest(f"files[{index}].content is required as a string")
    return cast(list[Document], files)


def read_selector(document: Document) -> tuple[str, str]:
    """Read `language` and `version`. Raises: InvalidRequest."""
    found: list[str] = []
    for key in ("language", "version"):
        value = document.get(key)
        if not value or not isinstance(value, str):
            raise InvalidRequest(f"{key} is required as a string")
        found.append(value)
    return found[0], found[1]


def _read_stdin(document: Document) -> bytes:
    """Read standard input, terminated by a newline."""
    data = encode_text(_read_input(document), where="stdin")
    return data if data.endswith(b"\n") else data + b"\n"


def _read_input(document: Document) -> str:
    text = document.get("stdin")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InvalidRequest("stdin must be a string")
    return text


def _read_words(document: Document, key: str) -> tuple[str, ...]:
    words = document.get(key)
    if words is None:
        return ()
    if not isinstance(words, list):
        raise InvalidRequest(f"{key} must be an array of strings")
    check_count(len(cast(list[object], words)), allowed=MAX_WORDS, what="arguments", where=key)
    for index, word in enumerate(cast(list[object], words)):
        if not isinstance(word, str):
            raise InvalidRequest(f"{key}[{index}] must be a string")
    return tuple(cast(list[str], words))


def _read_files(entries: list[Document], *, all_code: bool) -> tuple[File, ...]:
    """Read the files. For duplicate names the last content wins and keeps the first position, as in Piston.

    all_code: treat binary files as source code too.
    """
    files: dict[str, File] = {}
    for index, entry in enumerate(entries):
        name = _read_name(entry, index)
        encoding = _encoding(entry)
        is_code = all_code or encoding == "utf8" or (name in files and files[name].source)
        files[name] = File(name, _read_content(entry["content"], encoding, f"files[{index}].content"), is_code)
    return tuple(files.values())


def _encoding(entry: Document) -> str:
    """Return the encoding of a file; unknown encodings count as utf8."""
    encoding = entry.get("encoding")
    return encoding if encoding in ("base64", "hex") else "utf8"


def _read_name(entry: Document, index: int) -> str:
    """Read and normalize a file name: `./a//b` becomes `a/b`. Names that leave the folder or name a folder are returned
    unchanged; the service rejects them.
    """
    name = entry.get("name")
    if not name:
        return f"file{index}.code"
    if not isinstance(name, str):
        raise InvalidRequest(f"files[{index}].name must be a string")
    if "./" not in name and "//" not in name and not name.endswith("."):
        return name
    if name.startswith("/") or name.endswith(("/", "/.", "/..")):
        return name
    plain: list[str] = []
    for component in name.split("/"):
        if component == ".." and not plain:
            return name
        if component == "..":
            plain.pop()
        elif component not in ("", "."):
            plain.append(component)
    return "/".join(plain) or name


def _read_content(content: str, encoding: str, where: str) -> bytes:
    if encoding == "utf8":
        return encode_text(content, where=where)
    try:
        return bytes.fromhex(content) if encoding == "hex" else _from_base64(content)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where} is not {encoding}") from None


def _from_base64(text: str) -> bytes:
    """Decode base64 leniently: standard or URL-safe alphabet, optional padding, whitespace ignored."""
    data = text.encode("ascii").translate(_URL_SAFE, delete=_SPACES).rstrip(b"=")
    return b64decode(data + b"=" * (-len(data) % 4), validate=True)


_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_SPACES = b" \t\r\n\v\f\x1c\x1d\x1e\x1f"
