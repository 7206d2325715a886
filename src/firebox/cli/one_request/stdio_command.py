"""`firebox stdio`: the command of rce-runner, one request on standard input and its answer on standard output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firebox.cli.application import Application
from firebox.cli.one_request.one_request import BOOTSTRAP, Way, answer_one
from firebox.cli.options import ConfigFile, DataDir

app = Application()


@app.command()
def stdio(
    path: Annotated[
        Path | None, typer.Option("--path", metavar="FOLDER", help="Put the files there and leave them; otherwise they go again.")
    ] = None,
    bootstrap: Annotated[
        Path,
        typer.Option("--bootstrap", metavar="FILE", help="Archive to be unpacked there first, if it exists."),
    ] = BOOTSTRAP,
    no_sandbox: Annotated[
        bool, typer.Option("--no-sandbox", help="Run the code as it is; only together with --inside-container.")
    ] = False,
    inside_container: Annotated[
        bool, typer.Option("--inside-container", help="Say that this runs in a container that is the sandbox already.")
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Run one program: a JSON request on standard input, a JSON answer on standard output.

    Request: {"language", "files": [{"name", "content"}, ...], "stdin"?, "command"?}. Answer: {"stdout","stderr","error"}.
    Exit status: 0 when there is an answer, whatever became of the program; 1 when the request is at fault.
    """
    way = Way(path, bootstrap, not no_sandbox, inside_container, config, data_dir)
    raise typer.Exit(answer_one(way))
