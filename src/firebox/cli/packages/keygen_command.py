"""`firebox packages keygen`: create a signing key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from firebox.cli.options import ConfigFile, settings_flags
from firebox.cli.packages.context import DATA_DIR_ROWS, AsJson, open_settings
from firebox.cli.packages.output_tables import print_json
from firebox.domain.errors import InvalidRequest

SECONDS_A_DAY = 86_400


@settings_flags(DATA_DIR_ROWS)
def keygen(
    user_id: Annotated[str, typer.Argument(metavar="USER-ID", help="Owner of the key: 'Full Name <mail>'.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File for the secret key, with mode 0600.")],
    days: Annotated[int, typer.Option("--days", metavar="NUMBER", min=0, help="Validity in days; 0: unlimited.")] = 0,
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Create an OpenPGP key for signing packages.

    Example: `firebox packages keygen 'Ann Example <ann@example.org>' -o signing-key` writes the secret key to `signing-key` (keep
    it private) and the certificate to `signing-key.asc` (distribute it: `firebox packages trust` accepts it). The key has no
    passphrase.
    """
    from pysequoia import Tsk

    open_settings(config, flags)
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


def _write_new(file: Path, text: str, mode: int) -> None:
    """Create a file. Raises: InvalidRequest if it exists."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise InvalidRequest(f"{file} already exists", where="--output", hint="keys are never overwritten") from None
    with os.fdopen(descriptor, "w") as opened:
        os.fchmod(descriptor, mode)
        opened.write(text)
