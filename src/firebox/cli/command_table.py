"""The commands of `firebox`. Each one is a line of one table, and its module is loaded only when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from firebox.cli.application import Application, Group
from firebox.cli.version_flag import FLAGS, show_version
from firebox.server.absent_modules import absent


@dataclass(frozen=True, slots=True)
class Entry:
    """A sub-command: the module whose `app` holds it, and its line in `firebox --help`.

    without: libraries that its imports would load as well, for features that are not used.
    """

    module: str
    help: str
    without: tuple[str, ...] = ("rich",)

    def load(self) -> Any:
        """Import the module and return its `app`."""
        with absent(*self.without):
            return import_module(self.module).app


DRAWING = ("click", "rich.pretty", "rich.traceback")
"""Left out of commands that draw tables and bars: what structlog and httpx would load to draw errors."""

COMMANDS = {
    "run": Entry("firebox.cli.run.run_command", "Run a program in a sandbox."),
    "serve": Entry("firebox.cli.serve_command", "Serve the HTTP APIs."),
    "stdio": Entry("firebox.cli.one_request.stdio_command", "Run one program: JSON in, JSON out, as rce-runner does."),
    "packages": Entry("firebox.cli.packages.packages_command", "Install, build and publish languages.", without=DRAWING),
    "images": Entry("firebox.cli.image_building.images_command", "Build container images that run a language.", without=DRAWING),
    "runtimes": Entry("firebox.cli.runtimes_command", "List what can run here."),
    "users": Entry("firebox.cli.users_command", "Make and change users."),
    "doctor": Entry("firebox.cli.doctor_command", "Say what this host allows, and how to get what it does not."),
    "db": Entry("firebox.cli.db_command", "Move the schema of the database up or down, or check it."),
    "settings": Entry("firebox.cli.settings_command", "Show every setting and where its value comes from."),
    "bench": Entry("firebox.cli.bench_command", "Measure this machine against bare interpreters and compilers.", without=DRAWING),
}


class LazyCommand(TyperCommand):
    """Stands for a sub-command until somebody calls it: `firebox --help` loads none of them."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.help)
        self._entry = entry

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments with the real command."""
        command = get_command(self._entry.load())
        return command.make_context(info_name, args, parent, **extra)


class LazyGroup(Group):
    """The sub-commands of the table."""

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
    version: bool = typer.Option(False, *FLAGS, callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Run code nobody trusts."""
