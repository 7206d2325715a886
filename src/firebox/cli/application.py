"""Typer with our conventions: plain help in sections, `-h` as well as `--help`, and no tracebacks.

Plain, because Rich takes longer to load than a command to run, and treats `[...]` in help texts as markup.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

HELP_FLAGS = ("-h", "--help")
_WHOLE_SENTENCE = 1000
"""Maximum length of a command's line in a list: all of its first sentence."""
_OPTIONS, _COMMANDS = "Options", "Commands"


class Command(TyperCommand):
    """A command whose help shows the options in sections, by `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write_parameters(self, ctx, formatter)


class Group(TyperGroup):
    """A command group whose help shows options and subcommands in sections."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options and subcommands."""
        _write_parameters(self, ctx, formatter)
        sections: dict[str, list[tuple[str, Any]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            sections.setdefault(getattr(command, "rich_help_panel", None) or _COMMANDS, []).append((name, command))
        widest = max((len(name) for rows in sections.values() for name, _command in rows), default=0)
        for title, rows in sections.items():
            with formatter.section(title):
                lines = [(name.ljust(widest), command.get_short_help_str(_WHOLE_SENTENCE)) for name, command in rows]
                formatter.write_dl(lines)


class Application(typer.Typer):
    """`typer.Typer` with these conventions."""

    def __init__(self, *, cls: type[TyperGroup] = Group, add_completion: bool = False, no_args_is_help: bool = False) -> None:
        super().__init__(
            cls=cls,
            add_completion=add_completion,
            no_args_is_help=no_args_is_help,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,
            context_settings={"help_option_names": list(HELP_FLAGS)},
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        """Register a command, like typer."""
        settings: dict[str, Any] = {"help_option_names": list(HELP_FLAGS), **options.pop("context_settings", {})}
        options.setdefault("cls", Command)
        return super().command(name, context_settings=settings, **options)


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            usual = "Arguments" if parameter.param_type_name == "argument" else _OPTIONS
            sections.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
    for title, records in sections.items():
        with formatter.section(title):
            formatter.write_dl(records)
