"""`firebox run`: one program in a sandbox, as if it ran here."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import typer

from firebox.cli.catalogue import find_definitions, find_runtimes, open_store
from firebox.cli.limits import read_limit, read_limits
from firebox.cli.logs import set_up_logs_later
from firebox.cli.options import ConfigFile
from firebox.cli.session import Session, terminal_size
from firebox.cli.verdicts import exit_status, say_reason, say_summary
from firebox.config import Settings, load_settings
from firebox.doors.native import wire
from firebox.engine.executor import LocalExecutor
from firebox.errors import InvalidRequest, UnknownRuntime
from firebox.model import CacheLevel, File, Job, LimitRequest, Result
from firebox.runtimes.definition import Definition
from firebox.runtimes.packages import packages_hint
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.service.validation import check_job
from firebox.settings_table import LIMIT_NAMES, ROWS, STAGES

FROM_STDIN = "-"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Output:
    """How the outcome is shown: as_json instead of the program's own output; verbose: a summary after it."""

    as_json: bool
    verbose: bool
    artifact_folder: Path


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    program: Annotated[str, typer.Argument(metavar="FILE", help="The main file, or - for code from standard input.")],
    args: Annotated[list[str] | None, typer.Argument(help="Arguments of the program; options too.")] = None,
    language: Annotated[
        str | None, typer.Option("--language", "-l", help="Language; otherwise the file's ending says it.")
    ] = None,
    version: Annotated[str, typer.Option("--version", help="SemVer range; the newest match runs.")] = "*",
    time: Annotated[str | None, typer.Option("--time", "-t", metavar="TIME", help="Wall clock of the program, like 5s.")] = None,
    cpu: Annotated[str | None, typer.Option("--cpu", metavar="TIME", help="Processor time of the program.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", "-m", metavar="SIZE", help="Memory of the program, like 256m.")
    ] = None,
    processes: Annotated[str | None, typer.Option("--processes", metavar="NUMBER", help="Processes and threads at once.")] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="NAME=VALUE", help="Any limit; compile.NAME for the compile stage.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable for the program.")
    ] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", metavar="FILE", help="A further file beside the program.")
    ] = None,
    command: Annotated[str, typer.Option("--command", "-c", help="Run this by `sh -c` instead of compiling and running.")] = "",
    artifact: Annotated[
        list[str] | None, typer.Option("--artifact", metavar="GLOB", help="Files to fetch after the run.")
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option("--cache", metavar="none|binary|output", help="What may be kept for the next run; as usual: binary."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where fetched files go.")] = Path(),
    tty: Annotated[bool, typer.Option("--tty", help="A terminal for the program instead of pipes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of the program's output.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print verdict, times and memory to stderr.")] = False,
    config: ConfigFile = None,
) -> None:
    """Run a program in a sandbox.

    Input and output are the program's own, as they come. Exit status: the program's; 128 + n for signal n; 124 for its time
    limit; 137 for its memory or output limit; 2 when the command line is at fault; 125 when Firebox is.
    """
    # Who runs this is the operator: no maximum but the machine.
    unlimited = {name: 0 for stage in STAGES for limit_name in LIMIT_NAMES if (name := f"max_{stage}_{limit_name}") in ROWS}
    settings = load_settings({**unlimited, "ready_sandboxes": 0, "slots": 1}, config)
    set_up_logs_later("error", settings.log_format)
    registry = _find(program, language, settings)
    try:
        runtime = _choose(program, language, version, registry)
    except UnknownRuntime as error:
        raise _explained(error, registry, settings) from None
    limits = read_limits(limit or (), _named_limits(wall_ms=time, cpu_ms=cpu, memory_bytes=memory, processes=processes))
    job = Job(
        language=runtime.language,
        version=runtime.version,
        files=_files(program, file or [], runtime),
        interactive=True,
        args=tuple(args or ()),
        env=_variables(env or ()),
        command=command,
        compile_limits=limits["compile"],
        run_limits=limits["run"],
        artifacts=tuple(artifact or ()),
        cache=_cache_level(cache),
        terminal=terminal_size() if tty else None,
    )
    check_job(job)
    result = asyncio.run(_execute(job, settings, registry, Output(as_json, verbose, output)))
    raise typer.Exit(exit_status(result))


def _find(program: str, language: str | None, settings: Settings) -> Registry:
    """Look for the runtimes that may be meant; all of them only where a name has to be explained."""
    wanted = language.lower() if language else None
    ending = Path(program).suffix

    def may_be_meant(definition: Definition | Runtime) -> bool:
        names = {name.lower() for name in (definition.language, *definition.aliases)}
        return wanted in names if wanted else ending in definition.extensions

    found = find_runtimes(settings, may_be_meant).runtimes
    return Registry(found or find_runtimes(settings).runtimes)


def _choose(program: str, language: str | None, version: str, registry: Registry) -> Runtime:
    if language is not None:
        return registry.resolve(language, version)
    if program == FROM_STDIN:
        raise InvalidRequest("code from standard input needs a language", where="--language", hint="like: --language python")
    runtime = registry.by_extension(Path(program).suffix)
    if runtime is None:
        raise InvalidRequest(
            f"no language here has files like {Path(program).name!r}",
            where="--language",
            hint="say which with --language; `firebox runtimes` lists them",
        )
    return registry.resolve(runtime.language, version)


def _explained(error: UnknownRuntime, registry: Registry, settings: Settings) -> UnknownRuntime:
    """Add what has to be installed, where it is the language that is not here and not only that version of it."""
    is_here = any(error.selector.strip().lower() in runtime.names for runtime in registry.all())
    words = "" if is_here else packages_hint(find_definitions(settings), error.selector)
    return UnknownRuntime(error.selector, error.version, hint=words or error.hint)


def _files(program: str, others: list[Path], runtime: Runtime) -> tuple[File, ...]:
    """Read the files. Names stay relative to the main file's folder where they are below it."""
    if program == FROM_STDIN:
        main, folder = File(runtime.main_name, sys.stdin.buffer.read()), Path()
    else:
        main, folder = File(Path(program).name, Path(program).read_bytes()), Path(program).parent
    return (main, *(File(_name_below(folder, path), path.read_bytes(), path.suffix in runtime.extensions) for path in others))


def _name_below(folder: Path, path: Path) -> str:
    name = os.path.relpath(path, folder)
    return path.name if name.startswith("..") else name


def _variables(words: list[str] | tuple[str, ...]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise InvalidRequest(f"{word!r} is not NAME=VALUE", where="--env")
    return dict(word.split("=", 1) for word in words)


def _cache_level(word: str | None) -> CacheLevel | None:
    match word:
        case None | "none" | "binary" | "output":
            return word
        case _:
            hint = "one of " + ", ".join(get_args(CacheLevel))
            raise InvalidRequest(f"{word!r} is no such level", where="--cache", hint=hint)


def _named_limits(**values: str | None) -> LimitRequest:
    flags = {"wall_ms": "--time", "cpu_ms": "--cpu", "memory_bytes": "--memory", "processes": "--processes"}
    read = {name: read_limit(name, value, where=flags[name]) for name, value in values.items() if value is not None}
    return msgspec.convert(read, LimitRequest)


async def _execute(job: Job, settings: Settings, registry: Registry, output: Output) -> Result:
    async with LocalExecutor(settings, registry, hold=open_store(settings).hold) as executor, executor.start(job) as run:
        session = Session(run, silent=output.as_json, terminal=job.terminal is not None)
        # Code from standard input has used it up: the program finds its end.
        result = await session.follow()
    if output.as_json:
        print(msgspec.json.encode(wire.from_result(result, exact=True)).decode(), flush=True)
    else:
        say_reason(result)
    if output.verbose:
        say_summary(result)
    _save(result, output.artifact_folder)
    return result


def _save(result: Result, folder: Path) -> None:
    """Write the fetched files below a folder. Their names were checked where they came from; a link there is not followed."""
    for artifact in result.artifacts:
        target = folder / artifact.name
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(artifact.content)
