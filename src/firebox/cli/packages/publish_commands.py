"""`firebox packages index`, `keygen`, `sign` and `publish`: turn a folder of packages into a repository for any web server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from firebox.cli.options import ConfigFile, DataDir
from firebox.cli.packages.context import DATA_DIR_ROWS, AsJson, interruptible, open_settings, with_settings
from firebox.cli.packages.output_tables import as_entry, print_json
from firebox.cli.packages.progress import show_progress
from firebox.domain.errors import InvalidRequest
from firebox.packages.entry import Entry
from firebox.packages.repository.sources import INDEX_NAME
from firebox.settings.settings import Settings

INTERRUPTED = "run the command again to finish"
SECONDS_A_DAY = 86_400

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of package files.")]
Key = Annotated[Path, typer.Option("--key", "-k", metavar="FILE", help="The secret key, created by `firebox packages keygen`.")]


def index(folder: Folder, as_json: AsJson = False, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Write the index of a folder of package files, which makes it a repository.

    Example: `firebox packages index ./public`. Reads every package and computes its checksum. The output of `firebox packages
    build` already has an index. Invalidates the signature of the index: run `firebox packages sign` afterwards.
    """
    from firebox.packages.publishing.publishing import write_index

    _open(folder, config, data_dir)
    with show_progress() as report, interruptible(INTERRUPTED):
        entries = write_index(folder, report)
    _show(entries, folder, "indexed", as_json=as_json)


@with_settings(DATA_DIR_ROWS)
def keygen(
    _settings: Settings,
    user_id: Annotated[str, typer.Argument(metavar="USER-ID", help="Owner of the key: 'Full Name <mail>'.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File for the secret key, with mode 0600.")],
    days: Annotated[int, typer.Option("--days", metavar="NUMBER", min=0, help="Validity in days; 0: unlimited.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Create an OpenPGP key for signing packages.

    Example: `firebox packages keygen 'Ann Example <ann@example.org>' -o signing-key` writes the secret key to `signing-key` (keep
    it private) and the certificate to `signing-key.asc` (distribute it: `firebox packages trust` accepts it). The key has no
    passphrase.
    """
    from pysequoia import Tsk

    if not user_id.strip() or not user_id.isprintable():
        raise InvalidRequest("a key needs a user id", where="USER-ID", hint="example: 'Ann Example <ann@example.org>'")
    certificate_file = output.with_name(f"{output.name}.asc")
    key = Tsk.generate(user_id=user_id.strip(), validity_seconds=days * SECONDS_A_DAY or None)
    certificate = key.extract_certificate()
    _write_new(output, str(key), 0o600)
    try:
        _write_new(certificate_file, str(certificate), 0o644)
    except BaseException:
        output.unlink()
        raise
    if as_json:
        shown = {"fingerprint": certificate.fingerprint, "key": str(output), "certificate": str(certificate_file)}
        print_json(shown)
        return
    print(f"fingerprint  {certificate.fingerprint}")
    print(f"secret key   {output}")
    print(f"certificate  {certificate_file}")


def sign(folder: Folder, key: Key, as_json: AsJson = False, config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Sign all packages in the index of a folder, and the index itself.

    Example: `firebox packages sign ./public --key signing-key`. Machines that trust the key's certificate can install from the
    folder, wherever it is served.
    """
    from firebox.packages.publishing.publishing import list_folder, sign_folder, write_index

    _open(folder, config, data_dir)
    with show_progress() as report, interruptible(INTERRUPTED):
        if not (folder / INDEX_NAME).is_file():
            write_index(folder, report)
        sign_folder(folder, key, report)
    _show(list_folder(folder), folder, "signed", as_json=as_json)


def publish(
    folder: Folder,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The folder served by a web server.")],
    key: Annotated[
        Path | None, typer.Option("--key", "-k", metavar="FILE", help="The secret key; without it, nothing is signed.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Copy a folder of packages to where a web server serves it: index and sign it, copy the packages, then the index.

    Example: `firebox packages publish ./public /srv/www/packages --key signing-key`. Concurrent downloads always find every
    package of the current index.
    """
    from firebox.packages.publishing.publishing import publish as put

    _open(folder, config, data_dir)
    with show_progress() as report, interruptible(INTERRUPTED):
        entries = put(folder, target, key, report)
    _show(entries, target, "published", as_json=as_json)
    if key is None:
        typer.echo("not signed: network clients must set allow_unsigned_packages to install from it", err=True)


def _open(folder: Path, config: Path | None, data_dir: Path | None) -> None:
    """Load the settings. Raises: InvalidRequest if the folder does not exist."""
    open_settings(config, {"data_dir": data_dir})
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is not a folder", where="FOLDER")


def _show(entries: Sequence[Entry], folder: Path, done: str, *, as_json: bool) -> None:
    if as_json:
        names = ("architecture", "download", "checksums")
        print_json([{**as_entry(entry, *names), "signed": bool(entry.signature)} for entry in entries])
    else:
        print(f"{done} {len(entries)} {'package' if len(entries) == 1 else 'packages'}: {folder / INDEX_NAME}")


def _write_new(file: Path, text: str, mode: int) -> None:
    """Create a file. Raises: InvalidRequest if it exists."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise InvalidRequest(f"{file} already exists", where="--output", hint="keys are never overwritten") from None
    with os.fdopen(descriptor, "w") as opened:
        os.fchmod(descriptor, mode)
        opened.write(text)
