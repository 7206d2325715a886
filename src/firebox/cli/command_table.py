"""The commands of `firebox`: one table. A command's module is imported only when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from firebox.cli.application import Application, Group
from firebox.cli.main import VERSION_FLAGS, show_version
from firebox.server.absent_modules import absent

DRAWING = ("click", "rich.pretty", "rich.traceback")
"""For commands that draw tables and progress bars: what structlog and httpx would import to draw errors."""


class LazyCommand(TyperCommand):
    """A placeholder for a subcommand until it is called: `firebox --help` imports none of them.

    module: contains its `app`; help: its line in `firebox --help`; without: optional libraries that its imports would load for
    unused features.
    """

    def __init__(self, name: str, module: str, help: str, without: tuple[str, ...] = ("rich",)) -> None:  # noqa: A002 - as in typer
        super().__init__(name, help=help)
        self.module = module
        self._without = without

    def load(self) -> Any:
        """Import the module and return its `app`."""
        with absent(*self._without):
            return import_module(self.module).app

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments with the real command."""
        return get_command(self.load()).make_context(info_name, args, parent, **extra)


# fmt: off
COMMANDS = {command.name or "": command for command in (
    LazyCommand("run", "firebox.cli.run.run_command", "Run a program in a sandbox."),
    LazyCommand("serve", "firebox.cli.serve_command", "Serve the HTTP APIs."),
    LazyCommand("stdio", "firebox.cli.one_request.stdio_command", "Run one program: JSON in, JSON out, as rce-runner does."),
    LazyCommand("packages", "firebox.cli.packages.packages_command", "Install, build and publish languages.", DRAWING),
    LazyCommand("images", "firebox.cli.image_building.images_command", "Build container images that run a language.", DRAWING),
    LazyCommand("runtimes", "firebox.cli.runtimes_command", "List the available runtimes."),
    LazyCommand("users", "firebox.cli.users_command", "Create and manage users."),
    LazyCommand("doctor", "firebox.cli.doctor_command", "Check host support and suggest fixes."),
    LazyCommand("db", "firebox.cli.db_command", "Upgrade, downgrade or check the database schema."),
    LazyCommand("settings", "firebox.cli.settings_command", "Show all settings and where their values come from."),
    LazyCommand("bench", "firebox.cli.bench_command", "Measure this machine against bare interpreters and compilers.", DRAWING),
)}
# fmt: on


class LazyGroup(Group):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in COMMANDS.values():
            self.add_command(command)


app = Application(cls=LazyGroup, no_args_is_help=True, add_completion=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        show_version()
        raise typer.Exit


@app.callback()
def firebox_command(
    version: bool = typer.Option(False, *VERSION_FLAGS, callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Run untrusted code."""
