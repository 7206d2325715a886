"""`firebox bench`: measures sandboxed runs on this machine against bare ones."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from firebox.bench.benchmark import Bench
from firebox.bench.contender import BenchmarkFailed
from firebox.bench.http_client import DOORS
from firebox.bench.programs import SOURCES
from firebox.bench.report_tables import print_markdown, print_tables
from firebox.cli.application import Application
from firebox.cli.failures import EXIT_FAILED
from firebox.cli.options import ConfigFile, DataDir
from firebox.server.logs import set_up_logs
from firebox.settings.settings import load_settings

app = Application()


@app.command()
def bench(
    runs: Annotated[int, typer.Option("--runs", "-n", min=2, help="Maximum number of rounds per language.")] = 200,
    languages: Annotated[str, typer.Option("--languages", "-l", help="Languages, separated by commas.")] = ",".join(SOURCES),
    callers: Annotated[int, typer.Option("--callers", min=1, max=64, help="Concurrent clients of the server.")] = 8,
    door: Annotated[str, typer.Option("--door", metavar="|".join(DOORS), help="HTTP API to measure.")] = "piston",
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Approximate total time.")] = 140,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the report; - for stdout.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as in docs/operate/performance.md.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Measure Firebox against the bare interpreters and compilers of this machine, and against bubblewrap and go-judge if
    installed.

    They alternate within each round. docs/operate/performance.md explains the results. On a busy machine only the ratios are
    meaningful.
    """
    set_up_logs("error", "text")
    settings = load_settings({"log_level": "error", "data_dir": data_dir}, config)
    names = [name.strip() for name in languages.split(",") if name.strip()]
    if door not in DOORS:
        raise typer.BadParameter(f"one of {', '.join(DOORS)}", param_hint="--door")
    target = Path.cwd() / json_file if json_file is not None and str(json_file) != "-" else None
    if target is not None and not target.parent.is_dir():
        raise typer.BadParameter(f"folder {target.parent} does not exist", param_hint="--json")  # before spending minutes
    try:
        with contextlib.chdir(Path.cwd()), tempfile.TemporaryDirectory(prefix="firebox-bench-") as folder:
            bench = Bench(settings, Path(folder), runs=runs, callers=callers, seconds=seconds, door=door)
            report = bench.measure(names)
    except BenchmarkFailed as failure:
        print(f"firebox: {failure}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from None
    data = msgspec.json.format(msgspec.json.encode(report))
    if target is not None:
        target.write_bytes(data + b"\n")
    if json_file is not None and target is None:
        print(data.decode())
    elif markdown:
        print_markdown(report)
    else:
        print_tables(report)
