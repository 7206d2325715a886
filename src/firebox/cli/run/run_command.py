"""`firebox run` for typer: --help, and command lines that the fast parser rejects."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from firebox.cli.application import Application
from firebox.cli.completion import offer_languages
from firebox.cli.options import with_parameters
from firebox.cli.run.run_flags import FLAGS, Flag, RunRequest

app = Application()


def _parameter(name: str, flag: Flag, type_: Any) -> inspect.Parameter:
    words = offer_languages if name == "language" else None
    option = typer.Option(*flag.spellings, metavar=flag.metavar, help=flag.help, show_default=False, autocompletion=words)
    default = False if type_ is bool else None
    offered: Any = list[str] | None if type_ == Sequence[str] else type_
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[offered, option])


@app.command(context_settings={"allow_interspersed_args": False, "help_option_names": ["--help", "-h"]})
@with_parameters(_parameter(name, *flag) for name, flag in FLAGS.items())
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
