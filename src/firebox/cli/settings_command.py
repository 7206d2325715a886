"""`firebox settings`: every value and its source."""

from __future__ import annotations

import json

import typer

from firebox.cli.application import Application
from firebox.cli.options import ConfigFile, settings_flags
from firebox.settings.settings import load_settings
from firebox.settings.settings_table import TABLE

app = Application()


@app.command()
@settings_flags(TABLE)
def show_settings(
    config: ConfigFile = None, as_json: bool = typer.Option(False, "--json", help="Print JSON."), **flags: object
) -> None:
    """Show the value of every setting and its source: a flag, the environment, a file or the default.

    Tokens and passwords are hidden.
    """
    settings = load_settings(flags, config)
    values = {each.name: (settings.shown(each.name), settings.source(each.name)) for each in TABLE}
    if as_json:
        print(json.dumps({name: {"value": value, "source": source} for name, (value, source) in values.items()}, default=str))
    else:
        width = max(map(len, values))
        for name, (value, source) in values.items():
            print(f"{name:<{width}}  {str(value) or '-':<24}  {source}")
    for warning in settings.warnings:
        typer.echo(f"warning: {warning}", err=True)
