"""`firebox db`: the schema of the database, up, down, and compared with what this Firebox needs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

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
from firebox.storage.schema_version import BASE, HEAD

EXIT_BEHIND = 1
"""The database answers, and its schema is not what this Firebox needs."""

DATABASE_ROWS = (ROWS["database_url"], ROWS["data_dir"], ROWS["log_level"])

T = TypeVar("T")

app = Application(no_args_is_help=True)


@app.callback()
def database_commands() -> None:
    """Move the schema of the database, or look at it.

    A server does `upgrade` by itself when it starts, unless `database_upgrade` is off. Back up first: see
    docs/operate/storage.md.
    The database is the one of the settings; give a password in FIREBOX_DATABASE_URL or the file, not in a flag that others see.
    """


@app.command("upgrade")
@settings_flags(DATABASE_ROWS)
def upgrade(config: ConfigFile = None, **flags: object) -> None:
    """Bring the schema up to date; make the tables in an empty database.

    All of it is done or nothing. A database of Runner's is taken over with its snippets. Servers may run meanwhile; they wait.
    """
    address = _address(config, flags)
    before, after = _run(schema.upgrade(address))
    done = f"{before} -> {after}" if before != after else f"{after}, nothing to do"
    print(f"{address.shown}: schema {done}")


@app.command("downgrade")
@settings_flags(DATABASE_ROWS)
def downgrade(
    version: str = typer.Argument("", metavar="VERSION", help="Where to; `base`: no schema at all. Default: the one before."),
    config: ConfigFile = None,
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    **flags: object,
) -> None:
    """Move the schema back, for an older Firebox. What the older schema has no place for is LOST.

    `base` removes users, languages, usage and the snippets; only a table that was Runner's before stays, with its snippets.
    Stop every server first: the next one that starts moves the schema up again.
    """
    address = _address(config, flags)
    present = _run(_read_version(address))
    known = [BASE, *schema.versions()]
    if version and version not in known:
        raise InvalidRequest(f"there is no schema {version!r}; known: {', '.join(known)}", where="VERSION")
    place = known.index(present) if present in known else len(known) - 1
    target = version or known[max(place - 1, 0)]
    if known.index(target) > place:
        raise InvalidRequest(f"schema {target} is newer than {present}, which {address.shown} has: use upgrade", where="VERSION")
    if target == present:
        print(f"{address.shown}: schema {present}, nothing to do")
        return
    if not yes:
        _confirm(f"{address.shown}: move the schema from {present} back to {target}, and lose what that has no place for?")
    before, after = _run(schema.downgrade(address, target))
    print(f"{address.shown}: schema {before} -> {after}")


@app.command("check")
@settings_flags(DATABASE_ROWS)
def check(config: ConfigFile = None, **flags: object) -> None:
    """Say whether the schema is what this Firebox needs; change nothing.

    Exit status: 0 when it is, 1 when it is behind, ahead or differs, 125 when the database does not answer.
    """
    address = _address(config, flags)
    present = _run(_read_version(address))
    if present != HEAD:
        behind = present == BASE or present in schema.versions()
        hint = "firebox db upgrade" if behind else "use the newer Firebox that made it"
        print(f"{address.shown}: schema {present}, and this Firebox needs {HEAD}: {hint}")
        raise typer.Exit(EXIT_BEHIND)
    differences = _run(schema.differences(address))
    if differences:
        print(f"{address.shown}: schema {present}, but somebody changed it:")
        for difference in differences:
            print(f"  {difference}")
        raise typer.Exit(EXIT_BEHIND)
    print(f"{address.shown}: schema {present}, as it should be")


def _address(config: Any, flags: dict[str, object]) -> Address:
    settings = load_settings(flags, config)
    set_up_logs("warning" if settings.source("log_level") == "default" else settings.log_level, "text")
    return read_address(settings)


async def _read_version(address: Address) -> str:
    if address.path is not None and not address.path.exists():
        # Opening it would make it.
        return BASE
    async with Database(address, single=True) as database:
        return await schema.read_version(database)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _confirm(question: str) -> None:
    """Raises: typer.Exit when the answer is no, InvalidRequest when there is nobody to ask."""
    if not sys.stdin.isatty():
        raise InvalidRequest("this loses data, and there is nobody to ask", where="--yes", hint="add --yes if you mean it")
    if not typer.confirm(question):
        print("nothing was done")
        raise typer.Exit(EXIT_BEHIND)
