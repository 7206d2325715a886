"""`firebox run`: run one program in a sandbox.

Startup time matters here: the launcher starts first, and loads while this process imports its modules.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, cast, get_args

from firebox.cli.run.run_flags import RunRequest
from firebox.cli.startup import raise_at_interrupts, set_up_logs_later
from firebox.sandbox.launcher.launcher_start import StartedLauncher, start_launcher
from firebox.server.absent_modules import absent

if TYPE_CHECKING:
    from firebox.cli.run.run_files import Program
    from firebox.domain.errors import UnknownRuntime
    from firebox.domain.limits import LimitRequest
    from firebox.domain.model import CacheLevel, Job, Result
    from firebox.engine.executor import LocalExecutor
    from firebox.runtimes.definition import Definition
    from firebox.runtimes.registry import Registry
    from firebox.runtimes.runtime import Runtime
    from firebox.runtimes.toolchain_cache import Preparation
    from firebox.settings.settings import Settings


def run_program(request: RunRequest, launcher: StartedLauncher | None = None) -> int:
    """Run a program as the command line requests. Return the exit status. Raises: FireboxError, OSError.

    launcher: already started; it may have exited meanwhile.
    """
    if launcher is None:
        launcher = start_launcher()
        try:
            return run_program(request, launcher)
        finally:
            launcher.end()
    gc.disable()
    with ExitStack() as kept:
        # Left out: asyncio and hashlib would load OpenSSL, msgspec a library of types that Python includes.
        with absent("ssl", "_hashlib", "typing_extensions"):
            settings = _settings(request)
            is_ready = _configure(launcher, settings)
            raise_at_interrupts()  # detection of tools writes to the data folder
            program, runtime, registry, preparations = _choose(request, settings)
            _prepare_first(runtime, preparations if settings.prepare_toolchains else [])
            job = _job(request, program, runtime)
            from firebox.service.available_runtimes import open_store

            hold = open_store(settings).hold
            if runtime.installed:
                kept.enter_context(hold(runtime.installed))
            if is_ready:
                _ask_for_sandbox(launcher, job, settings, registry)
            # From here on the launcher creates the sandbox while this process imports the rest.
            import asyncio

            from firebox.cli.run.exit_status import exit_status
            from firebox.engine.executor import LocalExecutor
        executor = LocalExecutor(settings, registry, hold=hold, launcher=launcher if is_ready else None)
        gc.freeze()
        gc.enable()
        return exit_status(asyncio.run(_execute(executor, job, request)))


def _configure(launcher: StartedLauncher, settings: Settings) -> bool:
    """Configure the launcher. Return False if it cannot be used: the executor will find and report the reason."""
    from firebox.runtimes.prestart import hook_texts

    try:
        launcher.configure(uid_base=settings.uid_base, hooks=hook_texts())
    except OSError:
        return False
    return True


def _ask_for_sandbox(launcher: StartedLauncher, job: Job, settings: Settings, registry: Registry) -> None:
    """Request the first sandbox of a job from the launcher. Raises: RequestError."""
    from firebox.engine.plan import Planner

    specification = Planner(settings, registry).plan(job).first_specification
    with suppress(OSError):  # it has exited: the executor will find and report the reason
        launcher.request_first(specification)


def _settings(request: RunRequest) -> Settings:
    from pathlib import Path

    from firebox.settings.limit_policy import OF_ONE_RUN
    from firebox.settings.settings import load_settings

    return load_settings(
        {**OF_ONE_RUN, "data_dir": request.data_dir}, Path(request.config) if request.config is not None else None
    )


def _choose(request: RunRequest, settings: Settings) -> tuple[Program, Runtime, Registry, list[Preparation]]:
    """Find the main file, its runtime, and the preparations for such runtimes."""
    from firebox.cli.run.run_files import FROM_STDIN, find_program
    from firebox.domain.errors import InvalidRequest, UnknownRuntime
    from firebox.runtimes.registry import Registry
    from firebox.service.available_runtimes import find_definitions, find_runtimes

    set_up_logs_later("error", settings.log_format)
    wanted = request.language.strip().lower() if request.language is not None else None
    if request.program == FROM_STDIN and wanted is None:
        raise InvalidRequest("code from standard input needs a language", where="--language", hint="such as --language python")

    def is_wanted(definition: Definition | Runtime) -> bool:
        return wanted in {name.lower() for name in (definition.language, *definition.aliases)}

    def is_source(ending: str) -> bool:
        known = find_definitions(settings, ending)
        return any(ending in each.extensions for each in known if wanted is None or is_wanted(each))

    program = find_program(request.program, is_source, request.language)

    def may_be_meant(definition: Definition | Runtime) -> bool:
        return is_wanted(definition) if wanted is not None else program.ending in definition.extensions

    scan = find_runtimes(settings, may_be_meant, wanted if wanted is not None else program.ending)
    registry = Registry(scan.runtimes)
    if request.language is not None:
        name = request.language
    else:
        found = registry.by_extension(program.ending)
        name = found.language if found is not None else _language_of(program, settings)
    try:
        runtime = registry.resolve(name, request.version if request.version is not None else "*")
        return program, runtime, registry, scan.preparations
    except UnknownRuntime as error:
        if registry.all():
            raise
        raise _explained(error, settings) from None


def _prepare_first(runtime: Runtime, preparations: Sequence[Preparation]) -> None:
    """Prepare a toolchain without which a program takes as long as preparing it."""
    for each in preparations:
        if each.first and (each.language, each.version) == (runtime.language, runtime.version) and not each.done:
            words = f"firebox: preparing {each.language} {each.version}, once for this version: this takes some seconds"
            print(words, file=sys.stderr, flush=True)
            problem = each.execute()
            if problem:
                print(f"firebox: {problem}", file=sys.stderr, flush=True)


def _explained(error: UnknownRuntime, settings: Settings) -> UnknownRuntime:
    """Return the error with a hint on how to install the language, or which languages are available."""
    from firebox.domain.errors import UnknownRuntime
    from firebox.runtimes.install_hints import installing_hint
    from firebox.runtimes.registry import Registry
    from firebox.service.available_runtimes import find_definitions, find_runtimes

    hint = installing_hint(error.selector, find_definitions(settings))
    if not hint:
        try:
            Registry(find_runtimes(settings).runtimes).resolve(error.selector)
        except UnknownRuntime as known:
            hint = known.hint
    return UnknownRuntime(error.selector, error.version, hint=hint)


def _language_of(program: Program, settings: Settings) -> str:
    """Return the language of a file without a runtime. Raises: InvalidRequest."""
    from firebox.cli.run.run_files import check_main
    from firebox.domain.errors import InvalidRequest
    from firebox.service.available_runtimes import find_definitions

    check_main(program)  # a missing file is reported first
    known = sorted(find_definitions(settings, program.ending), key=lambda definition: -definition.rank)
    for definition in known:
        if program.ending and program.ending in definition.extensions:
            return definition.language
    raise InvalidRequest(
        f"no language here has files like {program.main!r}",
        where="--language",
        hint="name it with --language; `firebox runtimes` lists them",
    )


def _job(request: RunRequest, program: Program, runtime: Runtime) -> Job:
    from firebox.cli.run.limit_flags import read_limits
    from firebox.cli.run.run_files import read_files
    from firebox.domain.model import Job
    from firebox.service.validation import check_job

    limits = read_limits(request.limit, _named_limits(request))
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
        files=read_files(program, request.file, runtime.extensions, runtime.main_name),
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
    from firebox.domain.errors import InvalidRequest

    for word in words:
        if "=" not in word:
            raise InvalidRequest(f"{word!r} is not NAME=VALUE", where="--env")
    return dict(word.split("=", 1) for word in words)


def _cache_level(word: str | None) -> CacheLevel | None:
    from firebox.domain.errors import InvalidRequest
    from firebox.domain.model import CacheLevel

    if word is not None and word not in get_args(CacheLevel):
        raise InvalidRequest(f"unknown level {word!r}", where="--cache", hint="one of " + ", ".join(get_args(CacheLevel)))
    return cast("CacheLevel | None", word)


def _named_limits(request: RunRequest) -> LimitRequest:
    from firebox.cli.run.limit_flags import read_limits
    from firebox.domain.limits import LimitRequest

    limits = LimitRequest()
    for flag in ("time", "cpu", "memory", "stack", "processes"):
        value = getattr(request, flag)
        if value is not None:
            name = "wall" if flag == "time" else flag
            limits = read_limits([f"{name}={value}"], limits, where=f"--{flag}")["run"]
    return limits


async def _execute(executor: LocalExecutor, job: Job, request: RunRequest) -> Result:
    from firebox.cli.run.exit_status import print_reason, print_summary
    from firebox.cli.run.session import Session

    async with executor, executor.submit(job) as run:
        session = Session(run, silent=request.as_json, terminal=job.terminal is not None)
        # Code read from standard input has consumed it: the program reads end of file.
        result = await session.follow()
    if request.as_json:
        import msgspec

        from firebox.doors.http.output import Pieces
        from firebox.doors.native import wire

        pieces = Pieces()
        body = msgspec.json.encode(await wire.from_result(result, pieces, exact=True))
        print(b"".join(pieces.put_into(body)).decode(), flush=True)
    else:
        print_reason(result)
    if request.verbose:
        print_summary(result)
    _save(result, request.output or ".")
    return result


def _save(result: Result, folder: str) -> None:
    """Write the fetched files below a folder. Their names are validated; symlinks are not followed."""
    from pathlib import Path

    for artifact in result.artifacts:
        target = Path(folder) / artifact.name
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(artifact.content)
