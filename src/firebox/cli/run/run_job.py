"""The job of a command line, with limits such as `5s`, `256m`, `processes=20`, `compile.wall=30s`.

A bare number is in the unit of the name, as in `wall_ms=500`. Where the name has no unit, a bare time is in seconds, and a bare
size is refused: some users mean bytes, others megabytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import cast, get_args

from msgspec.structs import replace

from firebox.cli.run.run_files import Program, read_files
from firebox.cli.run.run_flags import RunRequest
from firebox.domain.errors import InvalidRequest
from firebox.domain.limits import LIMIT_NAMES, STAGES, LimitRequest, OutputMode, StageName
from firebox.domain.model import CacheLevel, Job
from firebox.runtimes.runtime import Runtime
from firebox.service.validation import check_job
from firebox.settings.settings_table import ROWS

_UNIT = re.compile(r"_(ms|bytes)$")
_BARE = re.compile(r"\s*\d+(\.\d+)?\s*", re.ASCII)
_BY_SHORT_NAME = {_UNIT.sub("", name): name for name in LIMIT_NAMES}


def read_job(request: RunRequest, program: Program, runtime: Runtime) -> Job:
    """Return the job of a command line. Raises: InvalidRequest."""
    limits = read_limits(request.limit, _named_limits(request))
    files = read_files(program, request.file, runtime.extensions, runtime.main_name)
    environment, terminal = _variables(request.env), None
    if request.tty:
        from firebox.cli.run.session import terminal_size

        environment = {**{name: os.environ[name] for name in ("TERM",) if os.environ.get(name)}, **environment}
        terminal = terminal_size()
    job = Job(
        # Only the JSON output contains it, and creating one costs more than running a small program.
        id="" if request.as_json else "run",
        language=runtime.language,
        version=runtime.version,
        files=files,
        interactive=True,
        attended=request.tty or os.isatty(0),
        args=request.args,
        compile_args=tuple(request.compile_arg),
        env=environment,
        command=request.command or "",
        compile_limits=limits["compile"],
        run_limits=limits["run"],
        artifacts=tuple(request.artifact),
        cache=_cache_level(request.cache),
        fresh=request.fresh,
        terminal=terminal,
    )
    check_job(job)
    return job


def _variables(words: Sequence[str]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise InvalidRequest(f"{word!r} is not NAME=VALUE", where="--env")
    return dict(word.split("=", 1) for word in words)


def _cache_level(word: str | None) -> CacheLevel | None:
    if word is not None and word not in get_args(CacheLevel):
        raise InvalidRequest(f"unknown level {word!r}", where="--cache", hint="one of " + ", ".join(get_args(CacheLevel)))
    return cast(CacheLevel | None, word)


def _named_limits(request: RunRequest) -> LimitRequest:
    limits = LimitRequest()
    for flag in ("time", "cpu", "memory", "stack", "processes"):
        value = getattr(request, flag)
        if value is not None:
            name = "wall" if flag == "time" else flag
            limits = read_limits([f"{name}={value}"], limits, where=f"--{flag}")["run"]
    return limits


def read_limits(words: Iterable[str], wanted: LimitRequest, *, where: str = "--limit") -> dict[StageName, LimitRequest]:
    """Read `[compile.|run.]name=value` words; they override `wanted`, the limits of the run stage so far.

    The unit of the name may be left out; the default stage is `run`. Raises: InvalidRequest.
    """
    limits: dict[StageName, LimitRequest] = {"compile": LimitRequest(), "run": wanted}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidRequest(f"{word!r} is not NAME=VALUE", where=where, hint=f"names: {', '.join(_BY_SHORT_NAME)}")
        stage: StageName = "run"
        for known in STAGES:
            if name.startswith(f"{known}."):
                stage, name = known, name.removeprefix(f"{known}.")
        limits[stage] = replace(limits[stage], **{_full_name(name, where=where): read_limit(name, value, where=where)})
    return limits


def read_limit(name: str, value: str, *, where: str) -> int | OutputMode:
    """Read one value as its setting is read, except for bare numbers (see above). Raises: InvalidRequest."""
    full_name = _full_name(name, where=where)
    row = ROWS[f"run_{full_name}"]
    allowed, unit = row.allowed, ""
    if name.replace("-", "_") != full_name:
        is_bare = _BARE.fullmatch(value) is not None
        if row.kind == "bytes":
            allowed = f"a size with its unit, like 256m or 1g, of at least {max(row.minimum, row.least)} bytes"
            if is_bare:
                hint = f"{value.strip()}m for MiB, {value.strip()}b for bytes"
                raise InvalidRequest(f"{value!r} has no unit; allowed: {allowed}", where=where, hint=hint)
        elif row.kind == "ms":
            allowed = "a time like 5s or 500ms; a number alone is seconds"
            unit = "s" if is_bare else ""
    try:
        read = row.read(f"{value.strip()}{unit}")
    except ValueError:
        raise InvalidRequest(f"{value!r} is not possible; allowed: {allowed}", where=where) from None
    return OutputMode(read) if isinstance(read, str) else int(str(read))


def _full_name(name: str, *, where: str) -> str:
    name = name.replace("-", "_")
    if name in LIMIT_NAMES:
        return name
    if name in _BY_SHORT_NAME:
        return _BY_SHORT_NAME[name]
    raise InvalidRequest(f"no limit is called {name!r}", where=where, hint=f"names: {', '.join(_BY_SHORT_NAME)}")
