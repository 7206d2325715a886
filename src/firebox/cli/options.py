"""Command-line flags, derived from the declarations of the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from firebox.settings.declaration import Setting

F = TypeVar("F", bound=Callable[..., Any])

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings, or Runner's YAML; also FIREBOX_CONFIG.")
]

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="PATH", help="Folder for all persistent data; also FIREBOX_DATA_DIR.")
]
"""For commands without other settings as flags."""


def settings_flags(settings: Iterable[Setting]) -> Callable[[F], F]:
    """Add one flag per setting to a command, which takes them as `**flags`. A flag that is not used is None.

    Values stay text: `Setting.read` parses them, so that flags, variables and files are read alike.
    """
    return with_parameters(map(_parameter, settings))


def with_parameters(parameters: Iterable[inspect.Parameter]) -> Callable[[F], F]:
    """Add parameters to a command, which takes them as `**named`."""

    def decorate(command: F) -> F:
        own = inspect.signature(command, eval_str=True).parameters.values()
        signature = inspect.Signature([*(item for item in own if item.kind is not item.VAR_KEYWORD), *parameters])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {item.name: item.annotation for item in signature.parameters.values()}
        return command

    return decorate


def _parameter(setting: Setting) -> inspect.Parameter:
    is_switch = setting.kind == "bool"
    option: Any = typer.Option(
        f"{setting.flag}/--no-{setting.flag[2:]}" if is_switch else setting.flag,
        metavar=None if is_switch else "|".join(setting.choices) or setting.kind.upper(),
        help=f"{setting.help} Default: {setting.default_text}." if setting.default_text else setting.help,
        show_default=False,
        rich_help_panel=setting.section,
    )
    type_: Any = bool | None if is_switch else str | None
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[type_, option])
