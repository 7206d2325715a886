"""A report as tables: for a terminal, or as Markdown for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.box import Box
from rich.console import Console
from rich.table import Table

from firebox.cli.benchmark.engine import ENGINE
from firebox.cli.benchmark.execute import FIRST, HTTP
from firebox.cli.benchmark.processes import BARE, BARE_RUN, BUBBLEWRAP, COMMAND
from firebox.cli.benchmark.report import LanguageReport, Report
from firebox.cli.benchmark.samples import Duration

COLUMNS = (BARE, BARE_RUN, BUBBLEWRAP, ENGINE, HTTP, FIRST, COMMAND)
_MARKDOWN_WIDTH = 400
_TERMINAL_WIDTH_AT_LEAST = 100


@dataclass(frozen=True, slots=True)
class _Style:
    """How a table looks. between: what stands between the two halves of a cell."""

    frame: Box
    between: str


_TERMINAL = _Style(box.SIMPLE_HEAD, "\n")
_MARKDOWN = _Style(box.MARKDOWN, " · ")


def print_tables(report: Report) -> None:
    """Print every table for a person at a terminal."""
    console = Console()
    console.width = max(console.width, _TERMINAL_WIDTH_AT_LEAST)
    console.print(_place(report), highlight=False)
    for table in _tables(report, _TERMINAL):
        console.print(table)
    for line in report.missing:
        console.print(f"not measured: {line}", highlight=False)


def print_markdown(report: Report) -> None:
    """Print every table as Markdown on standard output."""
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
    yield _others(report, style)


def _durations(report: Report, style: _Style) -> Table:
    table = _table("One run at a time: median against bare, and median / p99 in ms", style)
    table.add_column("hello world", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for language in report.languages:
        cells = [_cell(language.durations.get(name), language.ratios.get(name), style) for name in COLUMNS]
        table.add_row(f"{language.language} {language.version}", *cells)
    if report.native is not None:
        durations = report.native.durations
        bare_ms = durations[BARE].median_ms
        ratios = {name: duration.median_ms / bare_ms for name, duration in durations.items()}
        table.add_row("native binary", *(_cell(durations.get(name), ratios.get(name), style) for name in COLUMNS))
    return table


def _throughput(languages: Sequence[LanguageReport], style: _Style) -> Table:
    first = languages[0].throughput
    assert first is not None  # noqa: S101 - the caller chose those that have one
    title = f"Runs a second: bare by {first.workers} workers, http by 1 and {first.callers} callers; processor ms of one run"
    title += "; median / p99 in ms at half of that rate"
    table = _table(title, style)
    table.add_column("hello world", no_wrap=True)
    for heading in ("bare", "http, 1", f"http, {first.callers}", "against bare", "CPU bare", "CPU http", "server's", "half load"):
        table.add_column(heading, justify="right", no_wrap=True)
    for language in languages:
        measured = language.throughput
        if measured is not None:
            rates = (measured.bare_per_s, measured.http_alone_per_s, measured.http_per_s)
            times_ms = (measured.bare_cpu_ms, measured.http_cpu_ms, measured.server_cpu_ms)
            cells = [*(f"{rate:.1f}" for rate in rates), f"{measured.ratio:.2f} x", *(f"{each:.2f}" for each in times_ms)]
            half = measured.half_load
            cells.append(f"{_short(half.median_ms)} / {_short(half.p99_ms)}{style.between}{half.p99_ms / half.median_ms:.1f} x")
            table.add_row(language.language, *cells)
    return table


def _others(report: Report, style: _Style) -> Table:
    table = _table("The rest", style)
    table.add_column("what", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    if report.native is not None:
        table.add_row("sandbox cost of a native binary (engine less bare)", f"{report.native.cost_ms:.2f} ms")
    if report.stream is not None:
        stream = f"{report.stream.median_ms:.2f} ms (p99 {report.stream.p99_ms:.2f})"
        table.add_row("from write(2) in the program to a WebSocket client", stream)
    table.add_row("memory of the idle server, launcher and ready sandboxes", f"{report.idle.memory_bytes / 2**20:.0f} MiB")
    table.add_row("processor use of the idle server", f"{report.idle.cpu_share:.2%} of a core")
    return table


def _table(title: str, style: _Style) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=style.frame)


def _cell(duration: Duration | None, ratio: float | None, style: _Style) -> str:
    if duration is None or ratio is None:
        return "-"
    return f"{ratio:.2f} x{style.between}{_short(duration.median_ms)} / {_short(duration.p99_ms)}"


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:.0f}"
