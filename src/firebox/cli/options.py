"""Flags made from the table of settings: a setting is written once and has its flag."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from firebox.settings.settings_table import Row

F = TypeVar("F", bound=Callable[..., Any])

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings, or Runner's YAML; also FIREBOX_CONFIG.")
]

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="PATH", help="Folder for everything that is kept; also FIREBOX_DATA_DIR.")
]
"""For commands that have no further settings as flags."""


def settings_flags(rows: Iterable[Row]) -> Callable[[F], F]:
    """Give a command one flag for each row. The command takes them as `**flags`; what was not given is None.

    Values stay text here: reading them is the table's part, so that a flag, a variable and a file are read alike.
    """

    def decorate(command: F) -> F:
        own = [
            item for item in inspect.signature(command, eval_str=True).parameters.values() if item.kind is not item.VAR_KEYWORD
        ]
        flags = [_parameter(row) for row in rows]
        signature = inspect.Signature([*own, *flags])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {item.name: item.annotation for item in signature.parameters.values()}
        return command

    return decorate


def _parameter(row: Row) -> inspect.Parameter:
    panel = "Limits" if "_" in row.name and row.name.removeprefix("max_").split("_")[0] in {"compile", "run"} else "Settings"
    names = (f"{row.flag}/--no-{row.flag[2:]}",) if row.kind == "bool" else (row.flag,)
    metavar = None if row.kind == "bool" else "|".join(row.choices) or row.kind.upper()
    shown = "" if row.kind in {"modules", "levels", "overrides"} else f" Default: {_shown(row)}."
    option: Any = typer.Option(*names, metavar=metavar, help=f"{row.help}{shown}", show_default=False, rich_help_panel=panel)
    type_: Any = bool | None if row.kind == "bool" else str | None
    return inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[type_, option])


def _shown(row: Row) -> str:
    if isinstance(row.default, bool):
        return "yes" if row.default else "no"
    if row.kind == "bytes" and isinstance(row.default, int):
        for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if row.default and row.default % (1 << power) == 0:
                return f"{row.default >> power}{unit}"
    return str(row.default) or "none"
