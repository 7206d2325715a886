"""The commands of `firebox`: one table. A command's module is imported only when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from firebox.cli.application import Application, Group
from firebox.cli.main import VERSION_FLAGS, show_version
from firebox.server.absent_modules import absent


@dataclass(frozen=True, slots=True)
class Entry:
    """A subcommand: the module that contains its `app`, and its line in `firebox --help`.

    without: optional libraries that its imports would load for unused features.
    """

    module: str
    help: str
    without: tuple[str, ...] = ("rich",)

    def load(self) -> Any:
        """Import the module and return its `app`."""
        with absent(*self.without):
            return import_module(self.module).app


DRAWING = ("click", "rich.pretty", "rich.traceback")
"""For commands that draw tables and progress bars: what structlog and httpx would import to draw errors."""

COMMANDS = {
    "run": Entry("firebox.cli.run.run_command", "Run a program in a sandbox."),
    "serve": Entry("firebox.cli.serve_command", "Serve the HTTP APIs."),
    "stdio": Entry("firebox.cli.one_request.stdio_command", "Run one program: JSON in, JSON out, as rce-runner does."),
    "packages": Entry("firebox.cli.packages.packages_command", "Install, build and publish languages.", without=DRAWING),
    "images": Entry("firebox.cli.image_building.images_command", "Build container images that run a language.", without=DRAWING),
    "runtimes": Entry("firebox.cli.runtimes_command", "List the available runtimes."),
    "users": Entry("firebox.cli.users_command", "Create and manage users."),
    "doctor": Entry("firebox.cli.doctor_command", "Check host support and suggest fixes."),
    "db": Entry("firebox.cli.db_command", "Upgrade, downgrade or check the database schema."),
    "settings": Entry("firebox.cli.settings_command", "Show all settings and where their values come from."),
    "bench": Entry("firebox.cli.bench_command", "Measure this machine against bare interpreters and compilers.", without=DRAWING),
}


class LazyCommand(TyperCommand):
    """A placeholder for a subcommand until it is called: `firebox --help` imports none of them."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.help)
        self._entry = entry

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments with the real command."""
        command = get_command(self._entry.load())
        return command.make_context(info_name, args, parent, **extra)


class LazyGroup(Group):
    """The subcommands of the table."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            self.add_command(LazyCommand(name, entry))


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
