"""Typer with our conventions: plain help in sections, `-h` as well as `--help`, and no tracebacks.

Plain, because Rich takes longer to load than a command to run, and treats `[...]` in help texts as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

HELP_FLAGS = ("-h", "--help")
_WHOLE_SENTENCE = 1000
"""Maximum length of a command's line in a list: all of its first sentence."""


class Command(TyperCommand):
    """A command whose help shows the options in sections, by `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_sections(formatter, _parameters(self, ctx))


class Group(TyperGroup):
    """A command group whose help shows options and subcommands in sections."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_sections(formatter, _parameters(self, ctx))
        commands: list[tuple[str, Any]] = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        widest = max((len(name) for name, _command in commands), default=0)
        rows = [(name.ljust(widest), command.get_short_help_str(_WHOLE_SENTENCE)) for name, command in commands]
        titles = [getattr(command, "rich_help_panel", None) or "Commands" for _name, command in commands]
        _write_sections(formatter, zip(titles, rows, strict=True))


class Application(typer.Typer):
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
        settings: dict[str, Any] = {"help_option_names": list(HELP_FLAGS), **options.pop("context_settings", {})}
        options.setdefault("cls", Command)
        return super().command(name, context_settings=settings, **options)


def _parameters(command: Any, ctx: Any) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the section and the row of each argument and option."""
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            yield getattr(parameter, "rich_help_panel", None) or usual, record


def _write_sections(formatter: Any, rows: Iterable[tuple[str, tuple[str, str]]]) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for title, row in rows:
        sections.setdefault(title, []).append(row)
    for title, records in sections.items():
        with formatter.section(title):
            formatter.write_dl(records)
