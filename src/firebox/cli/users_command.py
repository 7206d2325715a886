"""`firebox users`: manages the users in a database. No server is needed; a running one applies changes within seconds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

import msgspec
import typer

from firebox.cli.application import Application
from firebox.cli.options import ConfigFile, settings_flags
from firebox.domain.errors import InvalidRequest
from firebox.server.logs import set_up_logs
from firebox.service.accounts import MAX_TOKEN_CHARACTERS, Accounts, Created
from firebox.settings.settings import load_settings
from firebox.settings.settings_table import ROWS
from firebox.storage.records import Quota, Role, User
from firebox.storage.stores import open_stores

DATABASE_ROWS = (ROWS["database_url"], ROWS["data_dir"])
DEFAULT = "default"
"""Value of a limit that means the default in the settings."""

T = TypeVar("T")

app = Application(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="Read the token from a file, or - for standard input.")
]


def _limit_flag(flag: str) -> Any:
    return typer.Option(flag, metavar="NUMBER", help="0: no limit; default: as in the settings.")


RunsPerMinute = Annotated[str | None, _limit_flag("--runs-per-minute")]
ConcurrentRuns = Annotated[str | None, _limit_flag("--concurrent-runs")]
CpuSecondsPerDay = Annotated[str | None, _limit_flag("--cpu-seconds-per-day")]


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

    async def create(accounts: Accounts) -> None:
        # Printed while the database is open: the token is stored, and an error while closing must not lose it.
        _show_token(await accounts.create(name, _role(role), token, quota=quota), as_json=as_json)

    _with_accounts(create, config, flags)


@app.command("list")
@settings_flags(DATABASE_ROWS)
def list_users(as_json: AsJson = False, config: ConfigFile = None, **flags: object) -> None:
    """List the users."""
    users = _with_accounts(lambda accounts: accounts.users.all(), config, flags)
    _show(users, as_json=as_json)


@app.command("token")
@settings_flags(DATABASE_ROWS)
def token(name: Name, token_file: TokenFile = None, as_json: AsJson = False, config: ConfigFile = None, **flags: object) -> None:
    """Replace a user's token and print the new one. It is shown only once, and the old one becomes invalid."""
    chosen = _read_token(token_file)

    async def renew(accounts: Accounts, user: User) -> None:
        _show_token(await accounts.new_token(user.id, chosen), as_json=as_json)

    _with_user(renew, name, config, flags)


@app.command("disable")
@settings_flags(DATABASE_ROWS)
def disable(name: Name, as_json: AsJson = False, config: ConfigFile = None, **flags: object) -> None:
    """Disable a user. Runs in progress continue."""
    _show(_with_user(lambda accounts, user: accounts.set_disabled(user.id, disabled=True), name, config, flags), as_json=as_json)


@app.command("enable")
@settings_flags(DATABASE_ROWS)
def enable(name: Name, as_json: AsJson = False, config: ConfigFile = None, **flags: object) -> None:
    """Enable a user again, with the same token."""
    _show(_with_user(lambda accounts, user: accounts.set_disabled(user.id, disabled=False), name, config, flags), as_json=as_json)


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

    def set_quota(accounts: Accounts, user: User) -> Awaitable[User]:
        return accounts.set_quota(user.id, _change(user.quota, *change))

    _show(_with_user(set_quota, name, config, flags), as_json=as_json)


@app.command("remove")
@settings_flags(DATABASE_ROWS)
def remove(name: Name, config: ConfigFile = None, **flags: object) -> None:
    """Delete a user, whose token becomes invalid. This cannot be undone, unlike `disable`."""
    _with_user(lambda accounts, user: accounts.remove(user.id), name, config, flags)


def _with_accounts(work: Callable[[Accounts], Awaitable[T]], config: Path | None, flags: dict[str, Any]) -> T:
    settings = load_settings(flags, config)
    set_up_logs("warning", settings.log_format)

    async def run() -> T:
        async with open_stores(settings) as stores:
            return await work(Accounts(stores, settings))

    return asyncio.run(run())


def _with_user(work: Callable[[Accounts, User], Awaitable[T]], name: str, config: Path | None, flags: dict[str, Any]) -> T:
    async def find_and_work(accounts: Accounts) -> T:
        return await work(accounts, await accounts.users.by_name(name))

    return _with_accounts(find_and_work, config, flags)


def _role(text: str) -> Role:
    if text not in get_args(Role):
        raise InvalidRequest(f"unknown role {text!r}", where="--role", hint="user or admin")
    return cast(Role, text)


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


def _show_token(created: Created, *, as_json: bool) -> None:
    user = created.user
    if as_json:
        _print_json({**msgspec.to_builtins(user), "token": created.token})
        return
    typer.echo(f"{user.name} ({user.role}, number {user.id}): the token, shown only once", err=True)
    print(created.token)


def _show(shown: User | list[User], *, as_json: bool) -> None:
    if as_json:
        _print_json(shown)
        return
    from firebox.cli.packages.output_tables import print_rows

    headings = ("NUMBER", "NAME", "ROLE", "TOKEN", "STATE", "RUNS/MIN", "AT ONCE", "CPU S/DAY", "SINCE")
    print_rows(headings, map(_row, shown if isinstance(shown, list) else [shown]))


def _print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def _row(user: User) -> tuple[str, ...]:
    return (
        str(user.id),
        user.name,
        user.role,
        f"...{user.token_hint}" if user.token_hint else "",
        "disabled" if user.disabled else "",
        *map(_limit, (user.runs_per_minute, user.concurrent_runs, user.cpu_seconds_per_day)),
        f"{user.created_at:%Y-%m-%d}",
    )


def _limit(number: int | None) -> str:
    if number is None:
        return DEFAULT
    return str(number) if number else "none"
