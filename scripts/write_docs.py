"""Write the generated pages and figures of docs/ and the generated header of native/. Tests check that each is up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from typer.main import get_command

from firebox.cli.command_table import COMMANDS
from firebox.settings.settings_page import settings_page
from firebox.settings.settings_table import TABLE
from scripts.attacks_page import attacks_page
from scripts.draw_architecture import architecture
from scripts.draw_figures import overview, processes, run_in_time
from scripts.languages_page import languages_page
from scripts.system_calls_page import system_calls_page
from scripts.wrapping import wrapped
from scripts.write_protocol import HEADER, protocol_header

DOCS = Path(__file__).resolve().parent.parent / "docs"

HEAD = """\
# The command line

<!-- Written by `make docs` from the commands in src/firebox/cli/: change it there. -->

`firebox --help` and `firebox COMMAND --help` print the same text.
"""


def cli_page() -> str:
    """Return docs/reference/cli.md: each command with its arguments and flags."""
    return HEAD + "".join(_command(name, get_command(import_module(COMMANDS[name].module).app)) for name in COMMANDS)


def _command(name: str, command: Any) -> str:
    settings = {row.name for row in TABLE}
    own = [parameter for parameter in command.params if parameter.name not in settings]
    text = f"\n## firebox {name}\n\n{wrapped(command.help or '')}\n"
    if own:
        text += "\n| | |\n| --- | --- |\n" + "".join(_rows(own))
    flags = [f"`{parameter.opts[0]}`" for parameter in command.params if parameter.name in settings]
    if flags:
        which = "a flag for each" if len(flags) == len(settings) else ", ".join(flags)
        text += "\n" + wrapped(f"Also {which} of the [settings](settings.md).") + "\n"
    return text + "".join(_command(f"{name} {part}", inner) for part, inner in getattr(command, "commands", {}).items())


def _rows(parameters: Iterable[Any]) -> Iterator[str]:
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            spelling = parameter.metavar or parameter.name.upper()
        else:
            value = f" {parameter.metavar}" if parameter.metavar else ""
            spelling = ", ".join([*parameter.opts, *parameter.secondary_opts]) + value
        # A bar inside a cell would end it.
        yield "| `{}` | {} |\n".format(*(text.replace("|", "\\|") for text in (spelling, parameter.help or "")))


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/cli.md": cli_page,
    "reference/system-calls.md": system_calls_page,
    "reference/languages.md": languages_page,
    "reference/attacks.md": attacks_page,
    "concepts/floors.svg": architecture,
    "concepts/processes.svg": processes,
    "concepts/run.svg": run_in_time,
    "start/overview.svg": overview,
}


def main() -> None:
    for name, write in PAGES.items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(write(), encoding="utf-8")
        print(f"docs/{name}")
    HEADER.write_text(protocol_header(), encoding="utf-8")
    print("native/protocol.h")


if __name__ == "__main__":
    main()
