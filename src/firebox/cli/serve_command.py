"""`firebox serve` as typer sees it: what it explains, and reads where there is something to explain."""

from __future__ import annotations

from firebox.cli.application import Application
from firebox.cli.options import ConfigFile, settings_flags
from firebox.settings.settings_table import TABLE

app = Application()


@app.command()
@settings_flags(TABLE)
def serve(config: ConfigFile = None, **flags: object) -> None:
    """Serve the HTTP APIs until SIGTERM or SIGINT.

    Prints one line of JSON on standard output once it answers: {"event": "ready", "url": ..., "pid": ..., "runtimes": ...,
    "isolation": [...]}. Logs go to standard error. Every flag is also a variable FIREBOX_<NAME> and a key of the TOML file.
    """
    from firebox.server.server_start import start_server

    start_server(flags, config)
