"""One benchmark of a machine: what to measure, in which order, and for how long."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Generator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import firebox
from firebox.bench.contender import BenchmarkFailed, Contender, Duration, summarise
from firebox.bench.engine_runs import ENGINE, Engine
from firebox.bench.go_judge import GO_JUDGE, GoJudge, find_go_judge
from firebox.bench.http_client import (
    FIRST,
    HTTP,
    Connection,
    Exchange,
    execute_exchange,
    first_exchanges,
    http_runs,
    run_with_callers,
)
from firebox.bench.judging import LANGUAGE as JUDGED
from firebox.bench.judging import Judge, Judging, compare_judges, judge_bare, judge_by_firebox, judge_by_go_judge
from firebox.bench.measure import Advance, Target, load, take_turns
from firebox.bench.process_tree import Idle
from firebox.bench.processes import BARE, BUBBLEWRAP, bare, bare_run, bubblewrap, firebox_run
from firebox.bench.programs import Program, choose_programs, native_program
from firebox.bench.report import LanguageReport, NativeReport, Peer, Report, Start, describe_machine, ratios_to
from firebox.bench.serving import Served, Server
from firebox.bench.stream import measure_stream
from firebox.runtimes.registry import Registry
from firebox.service.available_runtimes import find_runtimes
from firebox.settings.settings import Settings

COMMAND_EVERY = 5
"""`firebox run` starts a process and a launcher: it takes part in every fifth round."""
_SHARE_OF_LOAD = 0.3
_IDLE_AT_MOST_S = 4.0
_STREAM_LINES_A_RUN = 2


class Bench:
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
        """Measure everything. Raises: BenchmarkFailed, InvalidRequest for a language without a program, SandboxError."""
        registry = Registry(find_runtimes(self._settings).runtimes)
        programs, absent = choose_programs(registry, languages)
        self._missing += [f"{name}: no runtime on this machine" for name in absent]
        native = native_program()
        if native is None:
            self._missing.append("a native binary: there is no true(1)")
        else:
            registry = Registry([*registry.all(), native.runtime])
        if shutil.which("bwrap") is None:
            self._missing.append(f"{BUBBLEWRAP}: bwrap is not installed")
        share_s = self._seconds * (1 - _SHARE_OF_LOAD) / (len(programs) + 1)
        load_s = self._seconds * _SHARE_OF_LOAD / max(len(programs), 1)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._progress)
            start = self._start(programs)
            server = stack.enter_context(Server(self._command, self._folder / "data"))
            idle = self._idle(server)
            go_judge, peer = self._open_go_judge(stack, programs)
            engine = stack.enter_context(Engine(self._settings, registry))
            reports: list[LanguageReport] = []
            judging: Judging | None = None
            for program in programs:
                target = self._go_judge_target(go_judge, program)
                reports.append(self._language(program, server, engine, target, share_s, load_s))
                if program.language == JUDGED:
                    judging = self._judging(program, server, go_judge if target is not None else None, share_s / 2)
            return Report(
                firebox=firebox.__version__,
                machine=describe_machine(),
                isolation=list(engine.executor.launchers.layers),
                languages=reports,
                native=self._native(native, engine, go_judge, share_s / 2) if native is not None else None,
                stream=self._stream(server, registry),
                idle=idle,
                start=start,
                judging=judging,
                peer=peer,
                missing=self._missing,
            )

    def _start(self, programs: Sequence[Program]) -> Start | None:
        if not programs:
            return None
        # A background compile would go on after this server has stopped.
        flags = ("--no-prepare-toolchains",)
        with self._task("the first answer"), Server(self._command, self._folder / "first", *flags) as server:
            return _first_answer(server, programs[0], execute_exchange(programs[0], server.url, self._door))

    def _open_go_judge(self, stack: contextlib.ExitStack, programs: Sequence[Program]) -> tuple[GoJudge | None, Peer | None]:
        """Start go-judge twice: once to time its startup, once for all measurements. Return None for both if that fails."""
        tool, problem = find_go_judge()
        mounts = [tree for program in programs for tree in program.runtime.mounts]
        if tool is not None:
            try:
                with self._task(GO_JUDGE), GoJudge(tool, self._folder / "go-judge-first", mounts) as server:
                    target = self._go_judge_target(server, programs[0]) if programs else None
                    start = _first_answer(server, programs[0], target.exchange) if target is not None else None
                server = stack.enter_context(GoJudge(tool, self._folder / GO_JUDGE, mounts))
                return server, Peer(server.version, start, self._idle(server))
            except (BenchmarkFailed, OSError) as failure:
                problem = str(failure)
        self._missing.append(f"{GO_JUDGE}: {problem}")
        return None, None

    def _go_judge_target(self, server: GoJudge | None, program: Program) -> Target | None:
        """Prepare a program, and run it once; return None if go-judge cannot run it, which is reported."""
        if server is None:
            return None
        made = self._made(program)
        try:
            exchange = server.exchange(program, server.prepare(program, made))
            run_with_callers(server.url, [exchange], 1)
        except BenchmarkFailed as failure:
            self._missing.append(f"{GO_JUDGE}, {program.language}: {failure}")
            return None
        return Target(server, exchange)

    def _language(
        self, program: Program, server: Server, engine: Engine, peer: Target | None, share_s: float, load_s: float
    ) -> LanguageReport:
        folder = self._program_folder(program)
        exchange = execute_exchange(program, server.url, self._door)
        first = first_exchanges(program, server.url, self._door) if program.runtime.compiled else None
        alone = bare(program, folder)
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(contextlib.closing(Connection(server.url)))
            contenders = (
                alone.contender(),
                bare_run(program, folder).contender() if program.runtime.compiled else None,
                bubblewrap(program, folder),
                _go_judge_runs(stack, peer),
                engine.runs(program),
                http_runs(connection, repeat(exchange)),
                http_runs(connection, first, FIRST) if first is not None else None,
                firebox_run(program, folder, self._command, every=COMMAND_EVERY),
            )
            with self._task(program.language) as advance:
                durations = take_turns(contenders, self._runs, share_s, advance)
        with self._task(f"{program.language}, {self._callers} callers") as advance:
            throughput = load(
                alone,
                Target(server, exchange, first),
                peer,
                durations,
                runs=self._runs,
                callers=self._callers,
                seconds=load_s,
                advance=advance,
            )
        return LanguageReport(program.language, program.runtime.version, durations, ratios_to(BARE, durations), throughput)

    def _native(self, program: Program, engine: Engine, go_judge: GoJudge | None, seconds: float) -> NativeReport:
        folder = self._program_folder(program)
        target = self._go_judge_target(go_judge, program)
        with contextlib.ExitStack() as stack, self._task("a native binary") as advance:
            alone = bare(program, folder).contender()
            contenders = (alone, engine.runs(program), bubblewrap(program, folder), _go_judge_runs(stack, target))
            durations = take_turns(contenders, self._runs, seconds, advance)
        return NativeReport(durations, round(durations[ENGINE].median_ms - durations[BARE].median_ms, 4))

    def _judging(self, program: Program, server: Server, go_judge: GoJudge | None, seconds: float) -> Judging:
        folder = self._folder / "judged"
        folder.mkdir()
        workers = os.cpu_count() or 1
        judges: dict[str, Judge] = {
            BARE: partial(judge_bare, folder),
            HTTP: partial(judge_by_firebox, server, self._door, workers),
        }
        if go_judge is not None:
            judges[GO_JUDGE] = partial(judge_by_go_judge, go_judge, self._made(program), workers)
        with self._task(f"{program.language}, compiled once"):
            return compare_judges(judges, program, seconds)

    def _stream(self, server: Server, registry: Registry) -> Duration | None:
        if registry.by_extension(".py") is None:
            self._missing.append("streamed output: python writes it")
            return None
        with self._task("streamed output"):
            return summarise(measure_stream(server.url, self._runs * _STREAM_LINES_A_RUN))

    def _idle(self, server: Served) -> Idle:
        with self._task("an idle server"):
            return server.tree.idle(min(_IDLE_AT_MOST_S, self._seconds / 20))

    def _program_folder(self, program: Program) -> Path:
        folder = self._folder / program.language
        folder.mkdir(exist_ok=True)
        if program.source:
            (folder / program.runtime.main_name).write_text(program.source)
        return folder

    def _made(self, program: Program) -> list[str]:
        """Return the names of the compiler's output files; none without a compiler."""
        if not program.runtime.compiled:
            return []
        folder = self._program_folder(program)
        bare(program, folder).run()
        return sorted(path.name for path in folder.iterdir() if path.name != program.runtime.main_name)

    @contextlib.contextmanager
    def _task(self, description: str) -> Generator[Advance]:
        task = self._progress.add_task(description, total=1.0)
        yield lambda done: self._progress.update(task, completed=done)
        self._progress.update(task, completed=1.0)


def _first_answer(server: Served, program: Program, exchange: Exchange) -> Start:
    """Run a program once. Return the time since the server was started."""
    run_with_callers(server.url, [exchange], 1)
    return Start(program.language, round(time.perf_counter() - server.started_s, 3))


def _go_judge_runs(stack: contextlib.ExitStack, target: Target | None) -> Contender | None:
    if target is None:
        return None
    connection = stack.enter_context(contextlib.closing(Connection(target.server.url)))
    return http_runs(connection, repeat(target.exchange), GO_JUDGE)


def _firebox_command() -> list[str]:
    """Return the command for `firebox`: the installed one beside this interpreter, or the module."""
    installed = Path(sys.executable).with_name("firebox")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "firebox"]
