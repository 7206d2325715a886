"""`firebox bench`: how fast this machine runs programs in sandboxes, measured against the same programs run bare."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from firebox.cli.application import Application
from firebox.cli.benchmark.contender import BenchmarkFailed, Contender
from firebox.cli.benchmark.engine import ENGINE, Engine, EngineRuns
from firebox.cli.benchmark.execute import DOORS, FIRST, Connection, HttpRuns, execute_request, first_requests
from firebox.cli.benchmark.measure import Advance, load, take_turns
from firebox.cli.benchmark.processes import BARE, BUBBLEWRAP, bare, bare_run, bubblewrap, firebox_run
from firebox.cli.benchmark.programs import SOURCES, Program, choose_programs, native_program
from firebox.cli.benchmark.report import (
    LanguageReport,
    NativeReport,
    Report,
    Throughput,
    describe_machine,
    language_report,
    version_of_firebox,
)
from firebox.cli.benchmark.samples import Duration, summarise
from firebox.cli.benchmark.serving import Idle, Server
from firebox.cli.benchmark.stream import measure_stream
from firebox.cli.benchmark.tables import print_markdown, print_tables
from firebox.cli.catalogue import find_runtimes
from firebox.cli.failures import EXIT_FAILED, EXIT_USAGE
from firebox.cli.logs import set_up_logs
from firebox.cli.options import ConfigFile, DataDir
from firebox.config import Settings, load_settings
from firebox.runtimes.registry import Registry

COMMAND_EVERY = 5
"""`firebox run` starts a whole process and a launcher: in every fifth round is enough."""
_SHARE_OF_LOAD = 0.3
_IDLE_AT_MOST_S = 4.0
_STREAM_LINES_A_RUN = 2

app = Application()


@app.command()
def bench(
    runs: Annotated[int, typer.Option("--runs", "-n", min=2, help="Rounds of each language at most.")] = 200,
    languages: Annotated[str, typer.Option("--languages", "-l", help="Which, separated by commas.")] = ",".join(SOURCES),
    callers: Annotated[int, typer.Option("--callers", min=1, max=64, help="Callers of the server at once.")] = 8,
    door: Annotated[str, typer.Option("--door", metavar="|".join(DOORS), help="Which HTTP API is measured.")] = "piston",
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Spend about this long, all together.")] = 140,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the report; - for stdout.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as for docs/performance.md.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Measure Firebox against the bare interpreters and compilers of this machine, and against bubblewrap where it is.

    All of them take turns within each round. docs/performance.md says how to read the result. On a machine that does other
    work too, only the ratios mean something.
    """
    set_up_logs("error", "text")
    settings = load_settings({"log_level": "error", "data_dir": data_dir}, config)
    names = [name.strip() for name in languages.split(",") if name.strip()]
    if door not in DOORS:
        raise typer.BadParameter(f"one of {', '.join(DOORS)}", param_hint="--door")
    target = Path.cwd() / json_file if json_file is not None and str(json_file) != "-" else None
    if target is not None and not target.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {target.parent}", param_hint="--json")  # before minutes are spent
    try:
        with contextlib.chdir(Path.cwd()), tempfile.TemporaryDirectory(prefix="firebox-bench-") as folder:
            bench = Bench(settings, Path(folder), runs=runs, callers=callers, seconds=seconds, door=door)
            report = bench.measure(names)
    except BenchmarkFailed as failure:
        print(f"firebox: {failure}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from None
    except KeyError as unknown:
        print(f"firebox: --languages: no program in {unknown}; known: {', '.join(SOURCES)}", file=sys.stderr)
        raise typer.Exit(EXIT_USAGE) from None
    data = msgspec.json.format(msgspec.json.encode(report))
    if target is not None:
        target.write_bytes(data + b"\n")
    if json_file is not None and target is None:
        print(data.decode())
    elif markdown:
        print_markdown(report)
    else:
        print_tables(report)


class Bench:
    """One benchmark: what it may take, and the parts of it in order."""

    def __init__(self, settings: Settings, folder: Path, *, runs: int, callers: int, seconds: float, door: str) -> None:
        self._settings = settings
        self._folder = folder
        self._runs = runs
        self._callers = callers
        self._seconds = seconds
        self._door = door
        self._progress = Progress(
            TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
        )
        self._command = _firebox_command()
        self._missing: list[str] = []

    def measure(self, languages: Sequence[str]) -> Report:
        """Measure everything. Raises: BenchmarkFailed, KeyError for a language without a program, SandboxError."""
        registry = Registry(find_runtimes(self._settings).runtimes)
        programs, absent = choose_programs(registry, languages)
        self._missing += [f"{name}: no runtime on this machine" for name in absent]
        native = _native_program()
        if native is None:
            self._missing.append("a native binary: there is no true(1)")
        else:
            registry = Registry([*registry.all(), native.runtime])
        if shutil.which("bwrap") is None:
            self._missing.append(f"{BUBBLEWRAP}: bwrap is not installed")
        share_s = self._seconds * (1 - _SHARE_OF_LOAD) / (len(programs) + 1)
        load_s = self._seconds * _SHARE_OF_LOAD / max(len(programs), 1)
        with (
            self._progress,
            Server(self._command, self._folder / "data") as server,
            Engine(self._settings, registry) as engine,
        ):
            idle = self._idle(server)
            reports = [self._language(program, server, engine, share_s, load_s) for program in programs]
            native_report = self._native(native, engine, share_s / 2) if native is not None else None
            stream = self._stream(server, registry)
            isolation = list(engine.isolation)
        return Report(
            firebox=version_of_firebox(),
            machine=describe_machine(),
            isolation=isolation,
            languages=reports,
            native=native_report,
            stream=stream,
            idle=idle,
            missing=self._missing,
        )

    def _language(self, program: Program, server: Server, engine: Engine, share_s: float, load_s: float) -> LanguageReport:
        folder = self._program_folder(program)
        request = execute_request(program, server.url, self._door)
        alone = bare(program, folder)
        with contextlib.closing(Connection(server.url)) as connection:
            is_compiled = program.runtime.compiled
            first = first_requests(program, server.url, self._door)
            others = (
                bare_run(program, folder) if is_compiled else None,
                bubblewrap(program, folder),
                EngineRuns(engine, program),
                HttpRuns(connection, repeat(request), program.expected),
                HttpRuns(connection, first, program.expected, FIRST) if is_compiled else None,
                firebox_run(program, folder, self._command, every=COMMAND_EVERY),
            )
            contenders: list[Contender] = [alone, *(contender for contender in others if contender is not None)]
            with self._task(program.language) as advance:
                durations = take_turns(contenders, self._runs, share_s, advance)
        with self._task(f"{program.language}, {self._callers} callers") as advance:
            throughput: Throughput = load(
                alone,
                server,
                request,
                program.expected,
                run_ms=durations[BARE].median_ms,
                runs=self._runs,
                callers=self._callers,
                workers=os.cpu_count() or 1,
                seconds=load_s,
                advance=advance,
            )
        return language_report(program.language, program.runtime.version, durations, BARE, throughput)

    def _native(self, program: Program, engine: Engine, seconds: float) -> NativeReport:
        folder = self._program_folder(program)
        contenders: list[Contender] = [bare(program, folder), EngineRuns(engine, program)]
        wrapped = bubblewrap(program, folder)
        if wrapped is not None:
            contenders.append(wrapped)
        with self._task("a native binary") as advance:
            durations = take_turns(contenders, self._runs, seconds, advance)
        return NativeReport(durations, round(durations[ENGINE].median_ms - durations[BARE].median_ms, 4))

    def _stream(self, server: Server, registry: Registry) -> Duration | None:
        if registry.by_extension(".py") is None:
            self._missing.append("streamed output: python writes it")
            return None
        with self._task("streamed output"):
            return summarise(measure_stream(server.url, self._runs * _STREAM_LINES_A_RUN))

    def _idle(self, server: Server) -> Idle:
        with self._task("the idle server"):
            return server.idle(min(_IDLE_AT_MOST_S, self._seconds / 20))

    def _program_folder(self, program: Program) -> Path:
        folder = self._folder / program.language
        folder.mkdir()
        if program.source:
            (folder / program.runtime.main_name).write_text(program.source)
        return folder

    @contextlib.contextmanager
    def _task(self, description: str) -> Generator[Advance]:
        task = self._progress.add_task(description, total=1.0)
        yield lambda done: self._progress.update(task, completed=done)
        self._progress.update(task, completed=1.0)


def _firebox_command() -> list[str]:
    """Say how to start `firebox`: the installed command beside this interpreter, else the module."""
    installed = Path(sys.executable).with_name("firebox")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "firebox"]


def _native_program() -> Program | None:
    path = shutil.which("true", path="/usr/bin:/bin")
    return native_program(os.path.realpath(path)) if path else None
