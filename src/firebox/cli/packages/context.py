"""What the package commands share: settings, store, repositories, interruption and confirmation."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from firebox.cli.options import ConfigFile, settings_flags
from firebox.domain.errors import InvalidRequest
from firebox.packages.installed.store import PackageStore
from firebox.server.logs import set_up_logs
from firebox.service.available_runtimes import open_store
from firebox.settings.declaration import Setting
from firebox.settings.settings import Settings, load_settings
from firebox.settings.settings_table import ROWS

if TYPE_CHECKING:  # imported by the commands that need them
    from firebox.packages.installed.install import Installer
    from firebox.packages.repository.repositories import Repositories

DATA_DIR_ROWS = (ROWS["data_dir"],)
REPOSITORY_ROWS = (*DATA_DIR_ROWS, ROWS["repositories"], ROWS["trusted_keys_dir"], ROWS["allow_unsigned_packages"])
PACKAGE_ROWS = (*REPOSITORY_ROWS, ROWS["max_package_bytes"], ROWS["uninstall_wait_ms"])
TRUST_ROWS = (*DATA_DIR_ROWS, ROWS["repositories"], ROWS["trusted_keys_dir"])

EXIT_INTERRUPTED = 130
"""Shell convention: 128 + SIGINT."""

T = TypeVar("T")
Command = Callable[..., None]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Sync = Annotated[bool, typer.Option("--sync", help="Fetch the repository indexes first.")]
RepositoryName = Annotated[
    str, typer.Option("--repository", "-r", metavar="NAME", help="Only use this repository; `all` means every one.")
]


@dataclass(frozen=True, slots=True)
class PackageContext:
    """Settings, package store and repositories."""

    settings: Settings
    store: PackageStore
    repositories: Repositories

    def installer(self) -> Installer:
        from firebox.packages.installed.install import Installer

        return Installer(self.settings, self.store, self.repositories)


def open_settings(config: Path | None, flags: dict[str, Any]) -> Settings:
    """Load the settings and set up quiet logging. Raises: SettingsError."""
    settings = load_settings(flags, config)
    set_up_logs("warning", settings.log_format)
    return settings


def open_context(config: Path | None, flags: dict[str, Any]) -> PackageContext:
    """Create the context. Does not access the network yet. Raises: SettingsError."""
    from firebox.packages.repository.repositories import Repositories

    settings = open_settings(config, flags)
    return PackageContext(settings, open_store(settings), Repositories(settings))


def _with(opened: Callable[[Path | None, dict[str, Any]], T], rows: Sequence[Setting]) -> Callable[[Command], Command]:
    """Add --config and the flags of these settings to a command, which gets what `opened` makes of them as its first argument."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run_command(config: Path | None, **given: Any) -> None:
            flags = {row.name: given.pop(row.name) for row in rows}
            command(opened(config, flags), **given)

        _first, *own = inspect.signature(command, eval_str=True).parameters.values()
        config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile)
        declared: Any = run_command  # functions are not typed to have a signature
        declared.__signature__ = inspect.Signature([*own, config])
        return settings_flags(rows)(run_command)

    return decorate


with_settings = partial(_with, open_settings)
"""For commands whose first argument is the settings."""
with_context = partial(_with, open_context)
"""For commands whose first argument is the package context."""


def read_file_or_stdin(name: str, max_bytes: int) -> bytes:
    """Read a file, or standard input for `-`, up to `max_bytes` + 1 bytes. Raises: InvalidRequest if it cannot be read."""
    if name == "-":
        return sys.stdin.buffer.read(max_bytes + 1)
    try:
        with Path(name).open("rb") as opened:
            return opened.read(max_bytes + 1)
    except OSError as error:
        raise InvalidRequest(f"{name}: {error.strerror}") from None


def run(work: Coroutine[Any, Any, T], interrupted: str = "nothing was changed") -> T:
    """Run a coroutine to completion. interrupted: as for `interruptible`."""
    with interruptible(interrupted):
        return asyncio.run(work)


@contextmanager
def interruptible(words: str) -> Generator[None]:
    """On Ctrl-C, report the resulting state and exit with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"firebox: interrupted: {words}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation on a terminal, unless --yes is used, and exit with status 1 if the answer is no."""
    if not yes and sys.stdin.isatty() and sys.stderr.isatty() and not typer.confirm(question, err=True):
        raise typer.Exit(1)
