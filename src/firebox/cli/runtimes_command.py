"""`firebox runtimes`: lists the available runtimes."""

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
    as_json: bool = typer.Option(False, "--json", help="Print JSON, in the format of GET /api/v1/runtimes."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Also print which tools cannot be used, and why."),
) -> None:
    """List the available runtimes: language, version, file extensions, package (- for the host's own), aliases."""
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
