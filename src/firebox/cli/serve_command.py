"""`firebox serve` as a typer command, for --help and for invalid command lines; see `quick_serve` for valid ones."""

from __future__ import annotations

from firebox.cli.application import Application
from firebox.cli.options import ConfigFile, settings_flags
from firebox.settings.settings_table import TABLE

app = Application()


@app.command()
@settings_flags(TABLE)
def serve(config: ConfigFile = None, **flags: object) -> None:
    """Serve the HTTP APIs until SIGTERM or SIGINT.

    Prints one line of JSON on standard output when ready: {"event": "ready", "url": ..., "pid": ..., "runtimes": ...,
    "isolation": [...]}. Logs go to standard error. Every flag is also an environment variable FIREBOX_<NAME> and a TOML key.
    """
    from firebox.cli.quick_serve import start_server

    start_server(flags, config)
