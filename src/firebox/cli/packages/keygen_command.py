"""`firebox packages keygen`: a key to sign packages with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from firebox.cli.options import ConfigFile, settings_flags
from firebox.cli.packages.context import PLACE_ROWS, AsJson, open_settings
from firebox.cli.packages.output_tables import print_json
from firebox.domain.errors import InvalidRequest

SECONDS_A_DAY = 86_400


@settings_flags(PLACE_ROWS)
def keygen(
    user_id: Annotated[str, typer.Argument(metavar="USER-ID", help="Whose it is: 'Full Name <mail>'.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="For the secret key; only you can read it.")],
    days: Annotated[int, typer.Option("--days", metavar="NUMBER", min=0, help="How long it is good; 0: for ever.")] = 0,
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Make a key to sign packages with.

    Like `firebox packages keygen 'Ann Example <ann@example.org>' -o signing-key`: the secret key goes to `signing-key`, which you
    keep to yourself, and the certificate to `signing-key.asc`, which you give away: `firebox packages trust` takes it. The key
    has no password; the file's mode is 0600.
    """
    from pysequoia import Tsk

    open_settings(config, flags)
    if not user_id.strip() or not user_id.isprintable():
        raise InvalidRequest("a key needs a name", where="USER-ID", hint="like 'Ann Example <ann@example.org>'")
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
    """Write a file that was not there before. Raises: InvalidRequest when it was."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise InvalidRequest(f"{file} is there already", where="--output", hint="a key is never overwritten") from None
    with os.fdopen(descriptor, "w") as opened:
        os.fchmod(descriptor, mode)
        opened.write(text)
