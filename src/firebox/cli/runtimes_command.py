"""`firebox runtimes`: what can run here."""

from __future__ import annotations

import msgspec
import typer

from firebox.cli.application import Application
from firebox.cli.options import ConfigFile, DataDir
from firebox.doors.native import wire
from firebox.runtimes.registry import Registry
from firebox.server.logs import set_up_logs
from firebox.service.available_runtimes import find_runtimes
from firebox.settings.settings import load_settings

app = Application()


@app.command()
def list_runtimes(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: bool = typer.Option(False, "--json", help="Print JSON, as GET /api/v1/runtimes gives it."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Also say which tools are there and cannot be used, and why."),
) -> None:
    """List what can run here: language, version, file endings, the package it comes from (none: this host), other names."""
    settings = load_settings({"data_dir": data_dir}, config)
    set_up_logs("warning", settings.log_format)
    scan = find_runtimes(settings)
    runtimes = Registry(scan.runtimes).all()
    if as_json:
        print(msgspec.json.format(msgspec.json.encode([wire.from_runtime(runtime) for runtime in runtimes])).decode())
        return
    rows = [
        (item.language, item.version, " ".join(item.extensions), item.installed or "-", ", ".join(item.aliases))
        for item in runtimes
    ]
    rows.insert(0, ("LANGUAGE", "VERSION", "FILES", "PACKAGE", "ALSO"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[4]]).rstrip())
    for problem in scan.problems if verbose else ():
        typer.echo(f"not used: {problem}", err=True)
