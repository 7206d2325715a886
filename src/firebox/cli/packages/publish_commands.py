"""`firebox packages index`, `sign` and `publish`: a folder of packages becomes a repository that any web server can serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from firebox.cli.options import ConfigFile, DataDir
from firebox.cli.packages.context import AsJson, interruptible, open_settings
from firebox.cli.packages.output_tables import print_json
from firebox.cli.packages.progress import show_progress
from firebox.domain.errors import InvalidRequest
from firebox.packages.entry import Entry
from firebox.packages.repository.sources import INDEX_NAME

INTERRUPTED = "run it again to finish"

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder with package files in it.")]
Key = Annotated[Path, typer.Option("--key", "-k", metavar="FILE", help="The secret key, as `firebox packages keygen` makes one.")]


def index(folder: Folder, as_json: AsJson = False, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Write the index of a folder of package files, which makes it a repository.

    Like `firebox packages index ./public`: every package is read and its checksum taken. What `firebox packages build` made has
    its index already. A signature of the index is worth nothing afterwards: `firebox packages sign` makes a new one.
    """
    from firebox.packages.publishing.publishing import write_index

    _open(folder, config, data_dir)
    with show_progress() as report, interruptible(INTERRUPTED):
        entries = write_index(folder, report)
    _show(entries, folder, "indexed", as_json=as_json)


def sign(folder: Folder, key: Key, as_json: AsJson = False, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Sign every package that the index of a folder names, and the index.

    Like `firebox packages sign ./public --key signing-key`. Whoever trusts the key's certificate may install from the folder,
    wherever it is served.
    """
    from firebox.packages.publishing.publishing import announced_in, sign_folder, write_index

    _open(folder, config, data_dir)
    with show_progress() as report, interruptible(INTERRUPTED):
        if not (folder / INDEX_NAME).is_file():
            write_index(folder, report)
        sign_folder(folder, key, report)
    _show(announced_in(folder), folder, "signed", as_json=as_json)


def publish(
    folder: Folder,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The folder that a web server serves.")],
    key: Annotated[
        Path | None, typer.Option("--key", "-k", metavar="FILE", help="The secret key; without it nothing is signed.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Put a folder of packages where a web server serves it: indexed, signed, packages first and the index last.

    Like `firebox packages publish ./public /srv/www/packages --key signing-key`. Whoever fetches meanwhile finds every package
    that the index of that moment names.
    """
    from firebox.packages.publishing.publishing import publish as put

    _open(folder, config, data_dir)
    with show_progress() as report, interruptible(INTERRUPTED):
        entries = put(folder, target, key, report)
    _show(entries, target, "published", as_json=as_json)
    if key is None:
        typer.echo("it is not signed: over a network nobody installs from it who does not set allow_unsigned_packages", err=True)


def _open(folder: Path, config: Path | None, data_dir: Path | None) -> None:
    """Get ready. Raises: InvalidRequest when there is no such folder."""
    open_settings(config, {"data_dir": data_dir})
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is no folder", where="FOLDER")


def _show(entries: Sequence[Entry], folder: Path, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "package": entry.language,
                    "version": entry.version,
                    "architecture": entry.architecture,
                    "download": entry.download,
                    "checksums": entry.checksums,
                    "signed": bool(entry.signature),
                }
                for entry in entries
            ]
        )
    else:
        print(f"{done} {len(entries)} {'package' if len(entries) == 1 else 'packages'}: {folder / INDEX_NAME}")
