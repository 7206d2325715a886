"""`firebox packages trust` and `untrust`: manage the trusted keys of a repository."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firebox.cli.packages.context import TRUST_ROWS, AsJson, Yes, confirm, read_file_or_stdin, with_settings
from firebox.cli.packages.output_tables import print_fields, print_json
from firebox.domain.errors import InvalidRequest, NotFound
from firebox.files.atomic_write import write_atomic
from firebox.settings.settings import Settings

if TYPE_CHECKING:
    from pysequoia import Cert

SHORTEST_FINGERPRINT = 8
"""Minimum digits of a fingerprint's end that select a trusted key."""

_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Repository = Annotated[str, typer.Argument(metavar="REPOSITORY", help="The repository's name in the setting `repositories`.")]


@with_settings(TRUST_ROWS)
def trust(
    settings: Settings,
    repository: Repository,
    certificate: Annotated[
        str, typer.Argument(metavar="FILE", help="OpenPGP certificates (public keys), armored or binary; - for standard input.")
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Trust a key to sign the content of a repository. First compare its fingerprint with the one published by its owner.

    Example: `firebox packages trust main main.asc`. From then on, the index and every package of the repository must be signed by
    one of its trusted keys.
    """
    from firebox.packages.repository.signatures import key_file, trusted_keys

    _check_name(settings, repository)
    certificates = _read(certificate)
    if not as_json:
        _show(certificates)
    confirm(f"Trust {_key_or_keys(certificates)} for {repository}?", yes=yes)
    kept = {each.fingerprint: each for each in trusted_keys(settings, repository)}
    for each in certificates:
        kept[each.fingerprint] = kept[each.fingerprint].merge(each) if each.fingerprint in kept else each
    file = key_file(settings, repository)
    _write(file, kept.values())
    if as_json:
        _print_trusted(repository, file, kept.values())
    else:
        print(f"{len(kept)} {'key' if len(kept) == 1 else 'keys'} trusted for {repository}: {file}")


@with_settings(TRUST_ROWS)
def untrust(
    settings: Settings,
    repository: Repository,
    fingerprint: Annotated[
        str | None, typer.Argument(metavar="FINGERPRINT", help="Fingerprint of the key, or its end. Default: all keys.")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove trusted keys of a repository. Installed packages are kept.

    Example: `firebox packages untrust main`.
    """
    from firebox.packages.repository.signatures import key_file, trusted_keys

    _check_name(settings, repository)
    file = key_file(settings, repository)
    certificates = trusted_keys(settings, repository)
    if not certificates:
        raise NotFound("trusted key of repository", repository)
    forgotten = certificates if fingerprint is None else _with_fingerprint(certificates, fingerprint)
    if not as_json:
        _show(forgotten)
    confirm(f"Stop trusting {_key_or_keys(forgotten)} for {repository}?", yes=yes)
    kept = [each for each in certificates if each not in forgotten]
    if kept:
        _write(file, kept)
    else:
        file.unlink()
    if as_json:
        _print_trusted(repository, file, kept)
    else:
        left = f"{len(kept)} left" if kept else "none left, so packages from the network will be rejected"
        print(f"removed {len(forgotten)} for {repository}; {left}")


def as_key(certificate: Cert) -> dict[str, Any]:
    """Convert a key to JSON."""
    return {
        "fingerprint": certificate.fingerprint,
        "user_ids": [str(each) for each in certificate.user_ids],
        "expires": certificate.expiration,
    }


def _check_name(settings: Settings, repository: str) -> None:
    """Reject invalid repository names, and warn about unknown ones. Raises: InvalidRequest."""
    from firebox.packages.repository.sources import ALL, read_sources

    if not _REPOSITORY.fullmatch(repository) or repository == ALL:
        raise InvalidRequest(f"{repository!r} is not a valid repository name", where="REPOSITORY")
    names = [source.name for source in read_sources(settings)]
    if repository not in names:
        known = f"; configured: {', '.join(names)}" if names else ""
        typer.echo(f"{repository} is not in the setting `repositories`{known}", err=True)


def _read(name: str) -> list[Cert]:
    """Read the certificates to trust. Raises: InvalidRequest, also for revoked or expired ones."""
    from pysequoia import Cert

    from firebox.packages.repository.signatures import MAX_KEY_BYTES

    data = read_file_or_stdin(name, MAX_KEY_BYTES)
    if len(data) > MAX_KEY_BYTES:
        raise InvalidRequest(f"the file is larger than {MAX_KEY_BYTES} bytes", where=name)
    try:
        certificates = Cert.split_bytes(data)
    except RuntimeError:  # the library's error message is a backtrace
        certificates = []
    if not certificates:
        raise InvalidRequest("no OpenPGP certificate found", where=name)
    for each in certificates:
        if each.is_revoked:
            raise InvalidRequest(f"the key {each.fingerprint} was revoked by its owner", where=name)
        if each.expiration is not None and each.expiration < datetime.now(UTC):
            raise InvalidRequest(f"the key {each.fingerprint} expired on {each.expiration:%Y-%m-%d}", where=name)
        if each.has_secret_keys:
            typer.echo(f"{name} contains a secret key, which is not needed here; only the public part is stored", err=True)
    return certificates


def _with_fingerprint(certificates: Sequence[Cert], fingerprint: str) -> list[Cert]:
    ending = fingerprint.replace(" ", "").lower()
    found = [each for each in certificates if each.fingerprint.endswith(ending)]
    if not found or len(ending) < SHORTEST_FINGERPRINT:
        error = NotFound("trusted key", fingerprint)
        trusted = ", ".join(each.fingerprint for each in certificates)
        error.hint = f"give at least the last {SHORTEST_FINGERPRINT} digits of one of these: {trusted}"
        raise error
    return found


def _write(file: Path, certificates: Iterable[Cert]) -> None:
    """Write the public certificates atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, "".join(str(each) for each in certificates).encode())


def _print_trusted(repository: str, file: Path, certificates: Iterable[Cert]) -> None:
    print_json({"repository": repository, "file": str(file), "trusted": [as_key(each) for each in certificates]})


def _show(certificates: Sequence[Cert]) -> None:
    for each in certificates:
        groups = re.findall(".{1,4}", each.fingerprint.upper())
        users = "\n".join(str(user) for user in each.user_ids) or "none"
        expires = f"{each.expiration:%Y-%m-%d}" if each.expiration else ""
        print_fields([("fingerprint", " ".join(groups)), ("user id", users), ("expires", expires)])


def _key_or_keys(certificates: Sequence[Cert]) -> str:
    return "this key" if len(certificates) == 1 else "these keys"
