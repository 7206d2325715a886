"""`firebox db`: upgrades, downgrades and checks the database schema."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import typer

from firebox.cli.application import Application
from firebox.cli.options import ConfigFile, settings_flags
from firebox.domain.errors import InvalidRequest
from firebox.server.logs import set_up_logs
from firebox.settings.settings import load_settings
from firebox.settings.settings_table import ROWS
from firebox.storage import schema
from firebox.storage.database import Database
from firebox.storage.database_address import Address, read_address
from firebox.storage.schema import BASE, HEAD

EXIT_BEHIND = 1
"""The database is available, but its schema is not the one that this Firebox needs."""

DATABASE_ROWS = (ROWS["database_url"], ROWS["data_dir"], ROWS["log_level"])

app = Application(no_args_is_help=True)


@app.callback()
def database_commands() -> None:
    """Upgrade, downgrade or check the database schema.

    A server upgrades it at startup, unless `database_upgrade` is off. Back up first: see docs/operate/storage.md.
    The database is that of the settings. Put a password into FIREBOX_DATABASE_URL or the file, not into a flag that others can
    see.
    """


@app.command("upgrade")
@settings_flags(DATABASE_ROWS)
def upgrade(config: ConfigFile = None, **flags: object) -> None:
    """Upgrade the schema to the latest version. Creates the tables in an empty database.

    The upgrade is atomic. A database of Runner's is taken over with its snippets. Servers may keep running: they wait.
    """
    address = _address(config, flags)
    before, after = asyncio.run(schema.upgrade(address))
    done = f"{before} -> {after}" if before != after else f"{after}, nothing to do"
    print(f"{address.shown}: schema {done}")


@app.command("downgrade")
@settings_flags(DATABASE_ROWS)
def downgrade(
    version: str = typer.Argument("", metavar="VERSION", help="Target version; `base`: no schema. Default: the previous one."),
    config: ConfigFile = None,
    yes: bool = typer.Option(False, "--yes", help="Do not ask for confirmation."),
    **flags: object,
) -> None:
    """Downgrade the schema, for an older Firebox. Data that the older schema cannot hold is LOST.

    `base` removes users, languages, usage and snippets; only a table that was Runner's before stays, with its snippets.
    Stop every server first: the next one that starts upgrades the schema again.
    """
    address = _address(config, flags)
    present = asyncio.run(_read_version(address))
    known = [BASE, *schema.versions()]
    if version and version not in known:
        raise InvalidRequest(f"unknown schema version {version!r}; known: {', '.join(known)}", where="VERSION")
    place = known.index(present) if present in known else len(known) - 1
    target = version or known[max(place - 1, 0)]
    if known.index(target) > place:
        raise InvalidRequest(f"schema {target} is newer than {present} in {address.shown}: use upgrade", where="VERSION")
    if target == present:
        print(f"{address.shown}: schema {present}, nothing to do")
        return
    if not yes:
        _confirm(f"{address.shown}: downgrade the schema from {present} to {target}, and lose data that it cannot hold?")
    before, after = asyncio.run(schema.downgrade(address, target))
    print(f"{address.shown}: schema {before} -> {after}")


@app.command("check")
@settings_flags(DATABASE_ROWS)
def check(config: ConfigFile = None, **flags: object) -> None:
    """Check that the schema is the one this Firebox needs. Changes nothing.

    Exit status: 0 if it is, 1 if it is older, newer or modified, 125 if the database is unavailable.
    """
    address = _address(config, flags)
    present = asyncio.run(_read_version(address))
    if present != HEAD:
        behind = present == BASE or present in schema.versions()
        hint = "firebox db upgrade" if behind else "use the newer Firebox that created it"
        print(f"{address.shown}: schema {present}, and this Firebox needs {HEAD}: {hint}")
        raise typer.Exit(EXIT_BEHIND)
    differences = asyncio.run(schema.differences(address))
    if differences:
        print(f"{address.shown}: schema {present}, but it was modified:")
        for difference in differences:
            print(f"  {difference}")
        raise typer.Exit(EXIT_BEHIND)
    print(f"{address.shown}: schema {present}, as required")


def _address(config: Any, flags: dict[str, object]) -> Address:
    settings = load_settings(flags, config)
    set_up_logs("warning" if settings.source("log_level") == "default" else settings.log_level, "text")
    return read_address(settings)


async def _read_version(address: Address) -> str:
    if address.path is not None and not address.path.exists():
        # Opening it would create it.
        return BASE
    async with Database(address, single=True) as database:
        return await schema.read_version(database)


def _confirm(question: str) -> None:
    """Raises: typer.Exit if the answer is no, InvalidRequest without a terminal to ask on."""
    if not sys.stdin.isatty():
        raise InvalidRequest("this loses data and needs confirmation", where="--yes", hint="add --yes to confirm")
    if not typer.confirm(question):
        print("nothing changed")
        raise typer.Exit(EXIT_BEHIND)
