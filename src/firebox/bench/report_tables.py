"""Reports as tables: for a terminal, or as Markdown for docs/operate/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.box import Box
from rich.console import Console
from rich.table import Table

from firebox.bench.engine_runs import ENGINE
from firebox.bench.go_judge import GO_JUDGE
from firebox.bench.http_client import FIRST, HTTP
from firebox.bench.processes import BARE, BARE_RUN, BUBBLEWRAP, COMMAND
from firebox.bench.report import LanguageReport, PeerThroughput, Report, Start, Throughput
from firebox.bench.samples import Duration

COLUMNS = (BARE, BARE_RUN, BUBBLEWRAP, GO_JUDGE, ENGINE, HTTP, FIRST, COMMAND)
_MARKDOWN_WIDTH = 400
_TERMINAL_WIDTH_AT_LEAST = 80
"""Every table fits into a terminal of the usual width."""


@dataclass(frozen=True, slots=True)
class _Style:
    """The style of a table. between: separates the parts of a cell; slash: separates figures of one kind.

    wrapped: whether headings may take several lines.
    """

    frame: Box
    between: str
    slash: str
    wrapped: bool


_TERMINAL = _Style(box.SIMPLE_HEAD, "\n", "\n", wrapped=True)
_MARKDOWN = _Style(box.MARKDOWN, " · ", " / ", wrapped=False)


def print_tables(report: Report) -> None:
    """Print all tables to a terminal."""
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
    loaded = [language for language in report.languages if language.throughput is not None]
    if loaded:
        yield _throughput(loaded, style)
    shared = [
        (language.language, language.throughput, language.throughput.peer)
        for language in loaded
        if language.throughput is not None and language.throughput.peer is not None
    ]
    if shared:
        yield _against_go_judge(shared, style)
    yield _others(report, style)


def _durations(report: Report, style: _Style) -> Table:
    table = _table("One run at a time: median against bare, and median / p99 in ms", style)
    table.add_column("hello world", no_wrap=True)
    measured = {name for language in report.languages for name in language.durations}
    measured |= set(report.native.durations) if report.native is not None else set()
    columns = [name for name in COLUMNS if name in measured]
    for name in columns:
        _add_column(table, name, style)
    for language in report.languages:
        cells = [_cell(language.durations.get(name), language.ratios.get(name), style) for name in columns]
        table.add_row(f"{language.language}{style.between if style.wrapped else ' '}{language.version}", *cells)
    if report.native is not None:
        durations = report.native.durations
        bare_ms = durations[BARE].median_ms
        ratios = {name: duration.median_ms / bare_ms for name, duration in durations.items()}
        table.add_row("native binary", *(_cell(durations.get(name), ratios.get(name), style) for name in columns))
    return table


def _throughput(languages: Sequence[LanguageReport], style: _Style) -> Table:
    first = languages[0].throughput
    assert first is not None  # noqa: S101 - the caller selects languages that have one
    title = f"Runs per second: bare by {first.workers} workers, http by 1 and {first.callers} callers; CPU ms per run"
    title += "; median / p99 in ms at half of that rate"
    table = _table(title, style)
    table.add_column("hello world", no_wrap=True)
    for heading in ("bare", "http, 1", f"http, {first.callers}", "against bare", "CPU bare", "CPU http", "server's", "half load"):
        _add_column(table, heading, style)
    for language in languages:
        measured = language.throughput
        if measured is not None:
            rates = (measured.bare_per_s, measured.http_alone_per_s, measured.http_per_s)
            times_ms = (measured.bare_cpu_ms, measured.http_cpu_ms, measured.server_cpu_ms)
            cells = [*map(_short, rates), _times(measured.ratio), *map(_short, times_ms)]
            half = measured.half_load
            cells.append(_parts(half, f"{half.p99_ms / half.median_ms:.1f} x", style, first=False))
            table.add_row(language.language, *cells)
    return table


def _against_go_judge(languages: Sequence[tuple[str, Throughput, PeerThroughput]], style: _Style) -> Table:
    """Compare two servers; a ratio is Firebox's figure divided by the other's."""
    callers = languages[0][1].callers
    table = _table(f"Against {GO_JUDGE}: runs per second by {callers} callers; CPU ms per run", style)
    table.add_column("hello world", no_wrap=True)
    for heading in ("http", GO_JUDGE, "ratio", "CPU http", f"CPU {GO_JUDGE}", "CPU ratio"):
        _add_column(table, heading, style)
    for language, mine, other in languages:
        rates = [_short(mine.http_per_s), _short(other.per_s), _times(mine.http_per_s / other.per_s)]
        times_ms = [_short(mine.http_cpu_ms), _short(other.cpu_ms), _ratio(mine.http_cpu_ms, other.cpu_ms)]
        table.add_row(language, *rates, *times_ms)
    return table


def _others(report: Report, style: _Style) -> Table:
    table = _table("The rest", style)
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


def _table(title: str, style: _Style) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=style.frame)
    if style.wrapped:
        table.padding = (0, 0)
    return table


def _add_column(table: Table, heading: str, style: _Style) -> None:
    """Add a column of figures. A heading that may be wrapped has one word per line."""
    table.add_column(heading.replace(" ", "\n") if style.wrapped else heading, justify="right", no_wrap=True)


def _cell(duration: Duration | None, ratio: float | None, style: _Style) -> str:
    if duration is None or ratio is None:
        return "-"
    return _parts(duration, _times(ratio), style, first=True)


def _parts(duration: Duration, ratio: str, style: _Style, *, first: bool) -> str:
    """Format a cell: median, p99 and a ratio, which comes first or last."""
    times = f"{_short(duration.median_ms)}{style.slash}{_short(duration.p99_ms)}"
    return f"{ratio}{style.between}{times}" if first else f"{times}{style.between}{ratio}"


def _ratio(mine: float, other: float) -> str:
    """Format a ratio of CPU times; a time below the resolution is 0."""
    return _times(mine / other) if other else "-"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.3g} x"


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:.0f}"
