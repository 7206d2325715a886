"""`firebox users`: manages the users in a database. No server is needed; a running one applies changes within seconds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from firebox.cli.application import Application
from firebox.cli.options import ConfigFile, settings_flags
from firebox.domain.errors import InvalidRequest
from firebox.server.logs import set_up_logs
from firebox.service.accounts import MAX_TOKEN_CHARACTERS, Accounts
from firebox.settings.settings import load_settings
from firebox.settings.settings_table import ROWS
from firebox.storage.records import Quota, Role, User
from firebox.storage.stores import open_stores

if TYPE_CHECKING:
    from rich.table import Table

DATABASE_ROWS = (ROWS["database_url"], ROWS["data_dir"])
DEFAULT = "default"
"""Value of a limit that means the default in the settings."""

PIPED_COLUMNS = 240

T = TypeVar("T")

app = Application(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="Read the token from a file, or - for standard input."),
]
RunsPerMinute = Annotated[
    str | None, typer.Option("--runs-per-minute", metavar="NUMBER", help="0: no limit; default: as in the settings.")
]
ConcurrentRuns = Annotated[
    str | None, typer.Option("--concurrent-runs", metavar="NUMBER", help="0: no limit; default: as in the settings.")
]
CpuSecondsPerDay = Annotated[
    str | None, typer.Option("--cpu-seconds-per-day", metavar="NUMBER", help="0: no limit; default: as in the settings.")
]


@app.callback()
def user_commands() -> None:
    """Create and manage users.

    Works on the database of the settings, with or without a running server. A token is shown once, when it is created: only its
    SHA-256 is stored. A running server applies changes within 5 seconds.
    """


@app.command("add")
@settings_flags(DATABASE_ROWS)
def add(
    name: Name,
    role: Annotated[str, typer.Option("--role", metavar="user|admin", help="Admins may do everything.")] = "user",
    runs_per_minute: RunsPerMinute = None,
    concurrent_runs: ConcurrentRuns = None,
    cpu_seconds_per_day: CpuSecondsPerDay = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Create a user and print the token. It is shown only once."""
    quota = _change(Quota(), runs_per_minute, concurrent_runs, cpu_seconds_per_day)
    token = _read_token(token_file)

    async def work(accounts: Accounts) -> None:
        created = await accounts.create(name, _role(role), token, quota=quota)
        _show_token(created.user, created.token, as_json=as_json)

    _with_accounts(work, config, flags)


@app.command("list")
@settings_flags(DATABASE_ROWS)
def list_users(as_json: AsJson = False, config: ConfigFile = None, **flags: object) -> None:
    """List the users."""

    async def work(accounts: Accounts) -> None:
        users = await accounts.users.all()
        if as_json:
            _print_json([_as_json(user) for user in users])
        else:
            _print_table(users)

    _with_accounts(work, config, flags)


@app.command("token")
@settings_flags(DATABASE_ROWS)
def token(name: Name, token_file: TokenFile = None, as_json: AsJson = False, config: ConfigFile = None, **flags: object) -> None:
    """Replace a user's token and print the new one. It is shown only once, and the old one becomes invalid."""
    chosen = _read_token(token_file)

    async def work(accounts: Accounts) -> None:
        created = await accounts.new_token((await accounts.users.by_name(name)).id, chosen)
        _show_token(created.user, created.token, as_json=as_json)

    _with_accounts(work, config, flags)


@app.command("disable")
@settings_flags(DATABASE_ROWS)
def disable(name: Name, as_json: AsJson = False, config: ConfigFile = None, **flags: object) -> None:
    """Disable a user. Runs in progress continue."""
    _set_disabled(name, disabled=True, as_json=as_json, config=config, flags=flags)


@app.command("enable")
@settings_flags(DATABASE_ROWS)
def enable(name: Name, as_json: AsJson = False, config: ConfigFile = None, **flags: object) -> None:
    """Enable a user again, with the same token."""
    _set_disabled(name, disabled=False, as_json=as_json, config=config, flags=flags)


@app.command("limits")
@settings_flags(DATABASE_ROWS)
def limits(
    name: Name,
    runs_per_minute: RunsPerMinute = None,
    concurrent_runs: ConcurrentRuns = None,
    cpu_seconds_per_day: CpuSecondsPerDay = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Change a user's limits; those not given stay the same."""
    change = (runs_per_minute, concurrent_runs, cpu_seconds_per_day)
    _change(Quota(), *change)  # validate before opening the database

    async def work(accounts: Accounts) -> None:
        user = await accounts.users.by_name(name)
        quota = _change(user.quota, *change)
        _show(await accounts.set_quota(user.id, quota), as_json=as_json)

    _with_accounts(work, config, flags)


@app.command("remove")
@settings_flags(DATABASE_ROWS)
def remove(name: Name, config: ConfigFile = None, **flags: object) -> None:
    """Delete a user, whose token becomes invalid. This cannot be undone, unlike `disable`."""

    async def work(accounts: Accounts) -> None:
        await accounts.remove((await accounts.users.by_name(name)).id)

    _with_accounts(work, config, flags)


def _with_accounts(work: Callable[[Accounts], Awaitable[T]], config: Path | None, flags: dict[str, Any]) -> T:
    settings = load_settings(flags, config)
    set_up_logs("warning", settings.log_format)

    async def run() -> T:
        async with open_stores(settings) as stores:
            return await work(Accounts(stores, settings))

    return asyncio.run(run())


def _set_disabled(name: str, *, disabled: bool, as_json: bool, config: Path | None, flags: dict[str, Any]) -> None:
    async def work(accounts: Accounts) -> None:
        _show(await accounts.set_disabled((await accounts.users.by_name(name)).id, disabled=disabled), as_json=as_json)

    _with_accounts(work, config, flags)


def _role(text: str) -> Role:
    if text == "admin":
        return "admin"
    if text != "user":
        raise InvalidRequest(f"unknown role {text!r}", where="--role", hint="user or admin")
    return "user"


def _change(old: Quota, runs_per_minute: str | None, concurrent_runs: str | None, cpu_seconds_per_day: str | None) -> Quota:
    return Quota(
        runs_per_minute=_number("--runs-per-minute", runs_per_minute, old.runs_per_minute),
        concurrent_runs=_number("--concurrent-runs", concurrent_runs, old.concurrent_runs),
        cpu_seconds_per_day=_number("--cpu-seconds-per-day", cpu_seconds_per_day, old.cpu_seconds_per_day),
    )


def _number(where: str, text: str | None, old: int | None) -> int | None:
    """Parse a limit. text: None if not given."""
    if text is None:
        return old
    if text == DEFAULT:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise InvalidRequest(f"{text!r} is neither a whole number nor {DEFAULT!r}", where=where)
    return int(text)


def _read_token(file: Path | None) -> str | None:
    """Read a chosen token; not from a flag, which all users of the machine could see."""
    if file is None:
        return None
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as stream:
            return stream.read(4 * MAX_TOKEN_CHARACTERS).decode().strip()
    except UnicodeDecodeError:
        raise InvalidRequest("the file is not UTF-8 text", where="--token-file") from None


def _show_token(user: User, token: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({**_as_json(user), "token": token})
        return
    typer.echo(f"{user.name} ({user.role}, number {user.id}): the token, shown only once", err=True)
    print(token)


def _show(user: User, *, as_json: bool) -> None:
    if as_json:
        _print_json(_as_json(user))
    else:
        _print_table([user])


def _as_json(user: User) -> dict[str, Any]:
    return dict(msgspec.to_builtins(user))


def _print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def _print_table(users: list[User]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_COLUMNS)  # for scripts: one line per user
    console.print(_table(users))


def _table(users: list[User]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NUMBER", "NAME", "ROLE", "TOKEN", "STATE", "RUNS/MIN", "AT ONCE", "CPU S/DAY", "SINCE"):
        table.add_column(heading, overflow="fold")
    for user in users:
        words = (
            str(user.id),
            user.name,
            user.role,
            f"...{user.token_hint}" if user.token_hint else "",
            "disabled" if user.disabled else "",
            *(_limit(number) for number in (user.runs_per_minute, user.concurrent_runs, user.cpu_seconds_per_day)),
            f"{user.created_at:%Y-%m-%d}",
        )
        table.add_row(*(Text(word) for word in words))  # not parsed as markup
    return table


def _limit(number: int | None) -> str:
    if number is None:
        return DEFAULT
    return str(number) if number else "none"
