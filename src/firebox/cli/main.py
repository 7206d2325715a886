"""The `firebox` command. Each sub-command is a line of one table, and its module is loaded only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import firebox
from firebox.cli.failures import exit_status, report


@dataclass(frozen=True, slots=True)
class Entry:
    """A sub-command: the module whose `app` holds it, and its line in `firebox --help`.

    without: libraries that what it imports would load as well, and can do without.
    """

    module: str
    help: str
    without: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import the module and give its `app`."""
        hidden = [name for name in self.without if name not in sys.modules]
        # None in the place of a module makes its import fail, as if it were not installed. Source: importlib, "sys.modules".
        cast("dict[str, ModuleType | None]", sys.modules).update(dict.fromkeys(hidden))
        try:
            return import_module(self.module).app
        finally:
            for name in hidden:
                del sys.modules[name]


COMMANDS = {
    "run": Entry("firebox.cli.run", "Run a program in a sandbox."),
    # python-socketio would load its clients' HTTP libraries: 13 MB of every server, for nothing.
    "serve": Entry("firebox.cli.serve", "Serve the HTTP APIs.", without=("aiohttp", "requests")),
    "stdio": Entry("firebox.cli.stdio", "Run one program: JSON in, JSON out, as rce-runner does."),
    "packages": Entry("firebox.cli.packages", "Install, build and publish languages."),
    "images": Entry("firebox.cli.images", "Build container images that run a language."),
    "runtimes": Entry("firebox.cli.runtimes", "List what can run here."),
    "users": Entry("firebox.cli.users", "Make and change users."),
    "doctor": Entry("firebox.cli.doctor", "Say what this host allows, and how to get what it does not."),
    "db": Entry("firebox.cli.db", "Move the schema of the database up or down, or check it."),
    "settings": Entry("firebox.cli.settings", "Show every setting and where its value comes from."),
    "bench": Entry("firebox.cli.bench", "Measure this machine against bare interpreters and compilers."),
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


class LazyGroup(TyperGroup):
    """The sub-commands of the table."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - typer's signature
        entry = COMMANDS.get(cmd_name)
        return LazyCommand(cmd_name, entry) if entry else None


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"firebox {firebox.__version__}")
        raise typer.Exit


@app.callback()
def firebox_command(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Run code nobody trusts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status; a failure is one sentence on stderr, never a traceback."""
    try:
        app(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="firebox")
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets words
        report(error)
        sys.exit(exit_status(error))


if __name__ == "__main__":
    main()
