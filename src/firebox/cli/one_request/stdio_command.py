"""`firebox stdio`: run a single JSON request, as rce-runner does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firebox.cli.application import Application
from firebox.cli.one_request.one_request import BOOTSTRAP, RunOptions, answer_request
from firebox.cli.options import ConfigFile, DataDir

app = Application()


@app.command()
def stdio(
    path: Annotated[
        Path | None, typer.Option("--path", metavar="FOLDER", help="Keep the files in this folder. Default: a temporary one.")
    ] = None,
    bootstrap: Annotated[
        Path, typer.Option("--bootstrap", metavar="FILE", help="Archive to unpack there first, if it exists.")
    ] = BOOTSTRAP,
    no_sandbox: Annotated[bool, typer.Option("--no-sandbox", help="Run without a sandbox; requires --inside-container.")] = False,
    inside_container: Annotated[
        bool, typer.Option("--inside-container", help="Confirm that this container is already a sandbox.")
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Run one program: JSON request on standard input, JSON answer on standard output.

    Request: {"language", "files": [{"name", "content"}, ...], "stdin"?, "command"?}. Answer: {"stdout","stderr","error"}.
    Exit status: 0 if there is an answer, whatever the program did; 1 if the request is invalid.
    """
    options = RunOptions(
        folder=path,
        bootstrap=bootstrap,
        sandbox=not no_sandbox,
        inside_container=inside_container,
        config=config,
        data_dir=data_dir,
    )
    raise typer.Exit(answer_request(options))
