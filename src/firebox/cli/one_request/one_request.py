"""One-shot execution for `firebox stdio` and `rce-runner`: one request in, one answer out. Keeps imports few for fast startup.

Exit status: 0 if there is an answer, whatever the program did; 1 if the request is invalid or its files cannot be written. Then
standard output is empty, and the error is on standard error.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Generator, Iterable
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from firebox.cli.failures import report
from firebox.domain.errors import FireboxError, InvalidRequest, LimitTooHigh, SettingsError, UnknownRuntime
from firebox.domain.limits import STAGES
from firebox.domain.model import Executor, Job, Result
from firebox.doors.stdio import wire
from firebox.files.folder import read_files, write_files
from firebox.runtimes.definition import read_definitions, shipped_definitions
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.install_hints import installing_hint, named
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.settings.limit_policy import OF_ONE_RUN, limit_policy
from firebox.settings.settings import Settings, load_settings

if TYPE_CHECKING:
    from firebox.packages.installed.store import PackageStore

BOOTSTRAP = Path("/bootstrap.tar.gz")
MAX_FILES = 5000
"""Maximum files in the `--path` folder that a sandbox gets."""
EXIT_BAD_REQUEST = 1

_CONTAINER_SETTINGS = {
    **{f"{stage}_wall_ms": "1h" for stage in STAGES},
    **{f"max_{stage}_wall_ms": 0 for stage in STAGES},
    **{f"{stage}_output_bytes": "16MiB" for stage in STAGES},
    **{f"max_{stage}_output_bytes": 0 for stage in STAGES},
}
"""The container's owner limits time and output; these limits only stop forgotten programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of one-shot execution. folder: for the files, which are kept; None: a temporary folder.

    sandbox: False runs plain processes, which inside_container must confirm. config, data_dir: from flags.
    """

    folder: Path | None = None
    bootstrap: Path = BOOTSTRAP
    sandbox: bool = True
    inside_container: bool = False
    config: Path | None = None
    data_dir: Path | None = None


def answer_request(options: RunOptions) -> int:
    """Answer a request from standard input on standard output. Return the exit status."""
    try:
        answer = wire.encode(_answer(options))
    except (FireboxError, OSError) as error:
        report(error)
        return EXIT_BAD_REQUEST
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0


def _answer(options: RunOptions) -> wire.Answer:
    """Raises: FireboxError for an invalid request or command line; OSError if a file cannot be read or written."""
    if not options.sandbox and not options.inside_container:
        raise InvalidRequest(
            "code would run with all privileges of this user",
            where="--no-sandbox",
            hint="inside a container that is already a sandbox, use --no-sandbox --inside-container",
        )
    if options.sandbox:
        settings = load_settings({**OF_ONE_RUN, "data_dir": options.data_dir}, options.config)
    else:
        settings = container_settings()
    job = wire.to_job(wire.read_request(0, settings.max_body_bytes))
    try:
        packaged = _open_store(settings).runtimes()[0] if options.sandbox else None
        registry = find_registry(job.language, settings, without_tools=bool(job.command), packaged=packaged)
    except UnknownRuntime as error:
        if not error.hint:
            raise InvalidRequest(f"unknown language {job.language[:64]!r}", where="language") from None
        return wire.Answer(error=f"{job.language} is not installed here: {error.hint}")
    try:
        with _workspace(options) as folder:
            result = asyncio.run(_run(job, settings, registry, options, folder))
    except FireboxError as error:
        if isinstance(error, InvalidRequest | LimitTooHigh | SettingsError):
            raise
        return wire.Answer(error=f"{error.message}{': ' + error.hint if error.hint else ''}")
    return wire.from_result(result)


def container_settings() -> Settings:
    """Load the settings for a container that enforces its own limits."""
    return load_settings(_CONTAINER_SETTINGS)


def find_registry(
    language: str, settings: Settings, *, without_tools: bool = False, packaged: Iterable[Runtime] | None = None
) -> Registry:
    """Find the runtimes of a language. without_tools: the job has its own command and needs no runtime.

    packaged: runtimes of installed packages; None if packages are unavailable, as in a container.
    Raises: UnknownRuntime, with a hint only if the language is known but its tools are missing.
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
            words = "see docs/reference/rce-runner.md"
        raise UnknownRuntime(language, "*", hint="; ".join(filter(None, [words, *scan.problems[:1]])))
    return Registry(scan.runtimes)


def _open_store(settings: Settings) -> PackageStore:
    """Open the package store. Imported late, since containers have neither packages nor the libraries."""
    from firebox.service.available_runtimes import open_store

    return open_store(settings)


@contextmanager
def _workspace(options: RunOptions) -> Generator[Path | None]:
    """Yield the folder with the bootstrap files, None if none is needed. Raises: InvalidRequest, OSError."""
    has_bootstrap = options.bootstrap.exists()
    if options.folder is None and options.sandbox and not has_bootstrap:
        yield None
        return
    with ExitStack() as kept:
        if options.folder is not None:
            options.folder.mkdir(parents=True, exist_ok=True)
            folder = options.folder.resolve()
        else:
            temporary = tempfile.TemporaryDirectory(prefix="firebox-stdio-", ignore_cleanup_errors=True)
            folder = Path(kept.enter_context(temporary))
        if has_bootstrap:
            from firebox.files.archive import unpack

            unpack(options.bootstrap, folder)
        yield folder


async def _run(job: Job, settings: Settings, registry: Registry, options: RunOptions, folder: Path | None) -> Result:
    if options.sandbox and folder is not None:
        job = _with_folder_files(job, settings, registry, folder)
    async with _executor(settings, registry, options, folder) as executor, executor.submit(job) as run:
        result = await run.result()
        if run.failure is not None:
            raise run.failure
        return result


def _with_folder_files(job: Job, settings: Settings, registry: Registry, folder: Path) -> Job:
    """Write the job's files to the folder, and add all files of the folder to the job."""
    runtime = registry.resolve(job.language, job.version)
    files = runtime.place(job.files)
    write_files(folder, files)
    room_bytes = limit_policy(settings).default_limits("run", runtime).writable_bytes
    there = read_files(folder, (file.name for file in files), max_bytes=room_bytes, max_files=MAX_FILES)
    return replace(job, files=(*files, *there))


def _executor(
    settings: Settings, registry: Registry, options: RunOptions, folder: Path | None
) -> AbstractAsyncContextManager[Executor]:
    """Create the executor. Imports only what it needs: imports dominate the run time of a small program."""
    if options.sandbox or folder is None:
        from firebox.cli.startup import set_up_logs_later
        from firebox.engine.executor import LocalExecutor

        set_up_logs_later("error", "text")  # standard output is reserved for the answer
        return LocalExecutor(settings, registry, hold=_open_store(settings).hold)
    from firebox.engine.unsandboxed import UnsandboxedExecutor

    return nullcontext(UnsandboxedExecutor(settings, registry, folder))
