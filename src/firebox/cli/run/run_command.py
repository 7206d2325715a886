"""`firebox run` for typer: --help, and command lines that the fast parser rejects."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from firebox.cli.application import Application
from firebox.cli.completion import offer_languages
from firebox.cli.run.run_flags import FLAGS, Flag, RunRequest

app = Application()


def run(
    program: Annotated[str, typer.Argument(metavar="FILE", help="The main file, a folder, or - for code from standard input.")],
    args: Annotated[list[str] | None, typer.Argument(help="Arguments of the program, including options.")] = None,
    **flags: Any,
) -> None:
    """Run a program in a sandbox.

    Standard input and output are those of the program. A folder runs as a whole, except symlinks and names that begin with a dot:
    its main file is the one named main, or the only source file. Exit status: the program's; 128 + n for signal n; 124 for
    the time limit; 137 for the memory or output limit; 2 for a usage error; 125 for a failure of Firebox.
    """
    from firebox.cli.run.run_program import run_program

    given = {name: value for name, value in flags.items() if value is not None}
    raise typer.Exit(run_program(RunRequest(program, tuple(args or ()), **given)))


def _parameter(flag: Flag) -> inspect.Parameter:
    types: dict[str, Any] = {"word": str | None, "words": list[str] | None, "switch": bool}
    words = offer_languages if flag.name == "language" else None
    option = typer.Option(*flag.spellings, metavar=flag.metavar, help=flag.help, show_default=False, autocompletion=words)
    default = False if flag.kind == "switch" else None
    type_: Any = types[flag.kind]
    return inspect.Parameter(flag.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type_, option])


def _with_flags() -> None:
    """Add a parameter to `run` for each flag of the table."""
    own = inspect.signature(run, eval_str=True).parameters
    parameters = [own["program"], own["args"], *map(_parameter, FLAGS)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


_with_flags()
app.command(context_settings={"allow_interspersed_args": False, "help_option_names": ["--help", "-h"]})(run)
