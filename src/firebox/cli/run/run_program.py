"""`firebox run`: run one program in a sandbox.

Startup time matters here: the launcher starts first, and loads while this process imports its modules.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from firebox.cli.run.run_flags import RunRequest
from firebox.cli.startup import raise_at_interrupts, set_up_logs_later
from firebox.sandbox.launcher.launcher_start import StartedLauncher, start_launcher
from firebox.server.absent_modules import absent

if TYPE_CHECKING:
    from firebox.domain.model import Job, Result
    from firebox.engine.executor import LocalExecutor
    from firebox.runtimes.registry import Registry
    from firebox.runtimes.runtime import Runtime
    from firebox.runtimes.toolchain_cache import Preparation
    from firebox.settings.settings import Settings


def run_program(request: RunRequest, launcher: StartedLauncher | None = None) -> int:
    """Run a program. Return the exit status. launcher: already started; it may have exited. Raises: FireboxError, OSError."""
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
            from firebox.cli.run.run_files import choose_program

            set_up_logs_later("error", settings.log_format)
            program, runtime, registry, preparations = choose_program(request, settings)
            _prepare_first(runtime, preparations if settings.prepare_toolchains else [])
            from firebox.cli.run.run_job import read_job

            job = read_job(request, program, runtime)
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

    config = Path(request.config) if request.config is not None else None
    return load_settings({**OF_ONE_RUN, "data_dir": request.data_dir}, config)


def _prepare_first(runtime: Runtime, preparations: Sequence[Preparation]) -> None:
    """Prepare a toolchain without which a program takes as long as preparing it."""
    for each in preparations:
        if each.first and (each.language, each.version) == (runtime.language, runtime.version) and not each.done:
            words = f"firebox: preparing {each.language} {each.version}, once for this version: this takes some seconds"
            print(words, file=sys.stderr, flush=True)
            problem = each.execute()
            if problem:
                print(f"firebox: {problem}", file=sys.stderr, flush=True)


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
