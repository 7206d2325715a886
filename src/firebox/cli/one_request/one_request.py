"""What `firebox stdio` and `rce-runner` do: one request in, one answer out. Imports little: each request pays for it.

Exit status: 0 when there is an answer, whatever became of the program; 1 when the request is at fault or its files cannot
be written: then nothing is on standard output and words are on standard error.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from firebox.cli.failures import report
from firebox.domain.errors import FireboxError, InvalidRequest, LimitTooHigh, SettingsError, UnknownRuntime
from firebox.domain.limits import STAGES
from firebox.domain.model import Executor, Finished, Job, Result
from firebox.doors.stdio import wire
from firebox.files.folder import read_files, write_files
from firebox.runtimes.definition import read_definitions, shipped_definitions
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.install_hints import installing_hint, named
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.settings.limit_policy import NO_MAXIMA, limit_policy
from firebox.settings.settings import Settings, load_settings

if TYPE_CHECKING:
    from firebox.packages.installed.store import PackageStore

BOOTSTRAP = Path("/bootstrap.tar.gz")
MAX_FILES = 5000
"""Files in the folder of `--path` that a sandbox is given."""
EXIT_BAD_REQUEST = 1

_AT_FAULT = (InvalidRequest, LimitTooHigh, SettingsError)
_CONTAINER_SETTINGS = {
    **{f"{stage}_wall_ms": "1h" for stage in STAGES},
    **{f"max_{stage}_wall_ms": 0 for stage in STAGES},
    **{f"{stage}_output_bytes": "16MiB" for stage in STAGES},
    **{f"max_{stage}_output_bytes": 0 for stage in STAGES},
}
"""Whoever started the container watches clock and output; these only end what was forgotten."""


@dataclass(frozen=True, slots=True)
class Way:
    """How requests are carried out. folder: where the files are put and left; None: a folder of their own that goes again.

    sandbox: False runs them as plain processes, inside_container: the caller says that this is on purpose. config, data_dir: as
    given by flags.
    """

    folder: Path | None = None
    bootstrap: Path = BOOTSTRAP
    sandbox: bool = True
    inside_container: bool = False
    config: Path | None = None
    data_dir: Path | None = None


def answer_one(way: Way) -> int:
    """Read a request from standard input, write its answer to standard output. Returns the exit status."""
    try:
        answer = wire.encode(_answer(way))
    except (FireboxError, OSError) as error:
        report(error)
        return EXIT_BAD_REQUEST
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0


def _answer(way: Way) -> wire.Answer:
    """Raises: what is the request's fault, or this command line's; OSError when a file cannot be read or written."""
    if not way.sandbox and not way.inside_container:
        raise InvalidRequest(
            "code would run with every right of this user",
            where="--no-sandbox",
            hint="inside a container that is the sandbox already, say --no-sandbox --inside-container",
        )
    settings = sandbox_settings(way.config, way.data_dir) if way.sandbox else container_settings()
    job = wire.to_job(wire.read_request(0, settings.max_body_bytes))
    try:
        packaged = _open_store(settings).runtimes()[0] if way.sandbox else None
        registry = find_registry(job.language, settings, without_tools=bool(job.command), packaged=packaged)
    except UnknownRuntime as error:
        if not error.hint:
            raise InvalidRequest(f"unknown language {job.language[:64]!r}", where="language") from None
        return wire.Answer(error=f"{job.language} is not installed here: {error.hint}")
    try:
        with _workspace(way) as folder:
            result = asyncio.run(_run(job, settings, registry, way, folder))
    except FireboxError as error:
        if isinstance(error, _AT_FAULT):
            raise
        return wire.Answer(error=f"{error.message}{': ' + error.hint if error.hint else ''}")
    return wire.from_result(result)


def sandbox_settings(config: Path | None = None, data_dir: Path | None = None) -> Settings:
    """Read the settings. Who calls this is the operator: no maximum but the machine."""
    return load_settings({**NO_MAXIMA, "ready_sandboxes": 0, "slots": 1, "launchers": 1, "data_dir": data_dir}, config)


def container_settings() -> Settings:
    """Read the settings for a container that limits by itself what runs in it."""
    return load_settings(_CONTAINER_SETTINGS)


def find_registry(
    language: str, settings: Settings, *, without_tools: bool = False, packaged: Iterable[Runtime] | None = None
) -> Registry:
    """Find the runtimes of one language. without_tools: the job brings its own command, so none of them is needed.

    packaged: what installed packages bring; None where packages cannot be used, inside a container.
    Raises: UnknownRuntime, with a hint only where the language is known and its tools are not here.
    """
    own = read_definitions(settings.runtimes_dir)
    definitions = named([*own, *shipped_definitions(language.strip().lower())], language)
    scan = scan_host(os.environ.get("PATH", os.defpath), definitions, data_folder=settings.data_dir, only=lambda _each: True)
    wanted = language.strip().lower()
    scan.runtimes[:0] = [runtime for runtime in packaged or () if wanted in {name.lower() for name in runtime.names}]
    if not scan.runtimes and definitions and without_tools:
        known = definitions[0]
        nothing = Runtime(
            language=known.language, version="0.0.0", aliases=tuple(known.aliases), main_name=known.main_name, run=()
        )
        return Registry([nothing])
    if not scan.runtimes:
        if packaged is not None:
            words = installing_hint(language, definitions)
        else:
            words = next(filter(None, (definition.packages.words() for definition in definitions)), "")
        if definitions and not words:
            words = "see docs/rce-runner.md"
        raise UnknownRuntime(language, "*", hint="; ".join(filter(None, [words, *scan.problems[:1]])))
    return Registry(scan.runtimes)


def _open_store(settings: Settings) -> PackageStore:
    """Open the store of installed packages. Loaded late: containers, which have none, do without the libraries."""
    from firebox.service.available_runtimes import open_store

    return open_store(settings)


@contextmanager
def _workspace(way: Way) -> Generator[Path | None]:
    """Give the folder with what comes before the files, None when nothing needs one. Raises: InvalidRequest, OSError."""
    bootstrap = way.bootstrap if way.bootstrap.exists() else None
    if way.folder is not None:
        way.folder.mkdir(parents=True, exist_ok=True)
        _unpack(bootstrap, way.folder)
        yield way.folder.resolve()
    elif bootstrap is None and way.sandbox:
        yield None
    else:
        with tempfile.TemporaryDirectory(prefix="firebox-stdio-", ignore_cleanup_errors=True) as folder:
            _unpack(bootstrap, Path(folder))
            yield Path(folder)


def _unpack(bootstrap: Path | None, folder: Path) -> None:
    if bootstrap is not None:
        from firebox.files.archive import unpack

        unpack(bootstrap, folder)


async def _run(job: Job, settings: Settings, registry: Registry, way: Way, folder: Path | None) -> Result:
    if way.sandbox and folder is not None:
        job = _with_what_is_there(job, settings, registry, folder)
    async with _executor(settings, registry, way, folder) as executor, executor.start(job) as run:
        async for event in run.events():
            if isinstance(event, Finished):
                return event.result
    raise AssertionError("events end with Finished")


def _with_what_is_there(job: Job, settings: Settings, registry: Registry, folder: Path) -> Job:
    """Put the files into the folder, and everything in the folder into the sandbox."""
    runtime = registry.resolve(job.language, job.version)
    files = runtime.place(job.files)
    write_files(folder, files)
    room_bytes = limit_policy(settings).default_limits("run", runtime).writable_bytes
    there = read_files(folder, (file.name for file in files), max_bytes=room_bytes, max_files=MAX_FILES)
    return replace(job, files=(*files, *there))


@asynccontextmanager
async def _executor(settings: Settings, registry: Registry, way: Way, folder: Path | None) -> AsyncGenerator[Executor]:
    """Only what is needed is loaded: each is a good part of the time that a small program takes."""
    if way.sandbox or folder is None:
        from firebox.cli.late_logs import set_up_logs_later
        from firebox.engine.executor import LocalExecutor

        set_up_logs_later("error", "text")  # nothing but the answer may be on standard output
        async with LocalExecutor(settings, registry, hold=_open_store(settings).hold) as executor:
            yield executor
    else:
        from firebox.engine.unsandboxed import UnsandboxedExecutor

        yield UnsandboxedExecutor(settings, registry, folder)
