"""Reports as tables: for a terminal, or as Markdown for docs/operate/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.box import Box
from rich.console import Console
from rich.table import Table

from firebox.bench.contender import Duration
from firebox.bench.engine_runs import ENGINE
from firebox.bench.go_judge import GO_JUDGE
from firebox.bench.http_client import FIRST, HTTP
from firebox.bench.processes import BARE, BARE_RUN, BUBBLEWRAP, COMMAND
from firebox.bench.report import PeerThroughput, Report, Start, Throughput, ratios_to

COLUMNS = (BARE, BARE_RUN, BUBBLEWRAP, GO_JUDGE, ENGINE, HTTP, FIRST, COMMAND)
_MARKDOWN_WIDTH = 400
_TERMINAL_WIDTH_AT_LEAST = 80
"""Every table fits into a terminal of the usual width."""


@dataclass(frozen=True, slots=True)
class _Style:
    """between: separates the parts of a cell; slash: figures of one kind. wrapped: headings may take several lines."""

    frame: Box
    between: str
    slash: str
    wrapped: bool


_TERMINAL = _Style(box.SIMPLE_HEAD, "\n", "\n", wrapped=True)
_MARKDOWN = _Style(box.MARKDOWN, " · ", " / ", wrapped=False)


def print_tables(report: Report) -> None:
    console = Console()
    console.width = max(console.width, _TERMINAL_WIDTH_AT_LEAST)
    console.print(_place(report), highlight=False)
    for table in _tables(report, _TERMINAL):
        console.print(table)
    for line in report.missing:
        console.print(f"not measured: {line}", highlight=False)


def print_markdown(report: Report) -> None:
    """Print all tables as Markdown on standard output."""
    console = Console(width=_MARKDOWN_WIDTH, color_system=None)
    print(_place(report), end="\n\n")
    for table in _tables(report, _MARKDOWN):
        print(f"**{table.title}**", end="\n\n")
        table.title = None
        with console.capture() as captured:
            console.print(table)
        print("\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip()), end="\n\n")


def _place(report: Report) -> str:
    machine = report.machine
    return f"Firebox {report.firebox}, {machine.processor}, {machine.cores} cores, Linux {machine.kernel}"


def _tables(report: Report, style: _Style) -> Iterator[Table]:
    yield _durations(report, style)
    loaded = [(each.language, each.throughput) for each in report.languages if each.throughput is not None]
    if loaded:
        yield _throughput(loaded, style)
    shared = [(language, mine, mine.peer) for language, mine in loaded if mine.peer is not None]
    if shared:
        yield _against_go_judge(shared, style)
    yield _others(report, style)


def _durations(report: Report, style: _Style) -> Table:
    measured = {name for language in report.languages for name in language.durations}
    measured |= set(report.native.durations) if report.native is not None else set()
    columns = [name for name in COLUMNS if name in measured]
    table = _table("One run at a time: median against bare, and median / p99 in ms", columns, style)

    def add_row(name: str, durations: Mapping[str, Duration], ratios: Mapping[str, float]) -> None:
        cells = (
            f"{_times(ratios[each])}{style.between}{_quantiles(durations[each], style)}" if each in durations else "-"
            for each in columns
        )
        table.add_row(name, *cells)

    for each in report.languages:
        add_row(f"{each.language}{style.between if style.wrapped else ' '}{each.version}", each.durations, each.ratios)
    if report.native is not None:
        add_row("native binary", report.native.durations, ratios_to(BARE, report.native.durations))
    return table


def _throughput(languages: Sequence[tuple[str, Throughput]], style: _Style) -> Table:
    first = languages[0][1]
    title = f"Runs per second: bare by {first.workers} workers, http by 1 and {first.callers} callers; CPU ms per run"
    title += "; median / p99 in ms at half of that rate"
    headings = ("bare", "http, 1", f"http, {first.callers}", "against bare", "CPU bare", "CPU http", "server's", "half load")
    table = _table(title, headings, style)
    for language, measured in languages:
        rates = (measured.bare_per_s, measured.http_alone_per_s, measured.http_per_s)
        times_ms = (measured.bare_cpu_ms, measured.http_cpu_ms, measured.server_cpu_ms)
        half = measured.half_load
        half_load = f"{_quantiles(half, style)}{style.between}{half.p99_ms / half.median_ms:.1f} x"
        table.add_row(language, *map(_short, rates), _times(measured.ratio), *map(_short, times_ms), half_load)
    return table


def _against_go_judge(languages: Sequence[tuple[str, Throughput, PeerThroughput]], style: _Style) -> Table:
    """Compare two servers; a ratio is Firebox's figure divided by the other's."""
    title = f"Against {GO_JUDGE}: runs per second by {languages[0][1].callers} callers; CPU ms per run"
    table = _table(title, ("http", GO_JUDGE, "ratio", "CPU http", f"CPU {GO_JUDGE}", "CPU ratio"), style)
    for language, mine, other in languages:
        rates = [_short(mine.http_per_s), _short(other.per_s), _times(mine.http_per_s / other.per_s)]
        times_ms = [_short(mine.http_cpu_ms), _short(other.cpu_ms), _ratio(mine.http_cpu_ms, other.cpu_ms)]
        table.add_row(language, *rates, *times_ms)
    return table


def _others(report: Report, style: _Style) -> Table:
    table = _empty_table("The rest", style)
    table.add_column("what")
    table.add_column("measured", justify="right", no_wrap=True)
    if report.native is not None:
        table.add_row("sandbox cost of a native binary (engine less bare)", f"{report.native.cost_ms:.2f} ms")
    if report.stream is not None:
        stream = f"{report.stream.median_ms:.2f} ms (p99 {report.stream.p99_ms:.2f})"
        table.add_row("from write(2) in the program to a WebSocket client", stream)
    for language in report.languages:
        measured = language.throughput
        if measured is not None and measured.first_cpu_ms is not None:
            ratio = _ratio(measured.first_cpu_ms, measured.bare_cpu_ms)
            cell = f"{_short(measured.first_cpu_ms)} ms ({ratio} bare)"
            table.add_row(f"CPU time of a first compile and run over http, {language.language}", cell)
    if report.judging is not None:
        judging = report.judging
        for name, tests_s in judging.tests_cpu_s.items():
            what = f"CPU time of compiling c++ once, and of {judging.tests} small tests: {name}"
            table.add_row(what, f"{judging.compile_cpu_s[name]:.2f} s, {tests_s:.2f} s")
    _add_start(table, "the server", report.start)
    table.add_row("memory of the idle server, launcher and ready sandboxes", _mebibytes(report.idle.memory_bytes))
    if report.idle.ready_bytes is not None:
        table.add_row("memory of PID 1 of a ready sandbox", f"{report.idle.ready_bytes / 2**20:.2f} MiB")
    table.add_row("CPU usage of the idle server", f"{report.idle.cpu_share:.2%} of a core")
    if report.peer is not None:
        _add_start(table, GO_JUDGE, report.peer.start)
        table.add_row(f"memory of idle {GO_JUDGE} {report.peer.version}", _mebibytes(report.peer.idle.memory_bytes))
    return table


def _add_start(table: Table, server: str, start: Start | None) -> None:
    if start is not None:
        table.add_row(f"from the start of {server} to the answer of its first run, {start.language}", f"{start.seconds:.2f} s")


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"


def _table(title: str, headings: Iterable[str], style: _Style) -> Table:
    """Return a table of figures. A heading that may be wrapped has one word per line."""
    table = _empty_table(title, style)
    table.add_column("hello world", no_wrap=True)
    for heading in headings:
        table.add_column(heading.replace(" ", "\n") if style.wrapped else heading, justify="right", no_wrap=True)
    return table


def _empty_table(title: str, style: _Style) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=style.frame)
    if style.wrapped:
        table.padding = (0, 0)
    return table


def _quantiles(duration: Duration, style: _Style) -> str:
    return f"{_short(duration.median_ms)}{style.slash}{_short(duration.p99_ms)}"


def _ratio(mine: float, other: float) -> str:
    """Format a ratio of CPU times; a time below the resolution is 0."""
    return _times(mine / other) if other else "-"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.3g} x"


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:.0f}"
