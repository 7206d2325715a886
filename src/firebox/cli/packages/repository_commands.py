"""`firebox packages repos`, `sync`, `trust` and `untrust`: the repositories, their indexes and their trusted keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct, field

from firebox.cli.packages.context import (
    REPOSITORY_ROWS,
    TRUST_ROWS,
    AsJson,
    PackageContext,
    Yes,
    confirm,
    read_file_or_stdin,
    run,
    with_context,
    with_settings,
)
from firebox.cli.packages.output_tables import print_fields, print_json, print_rows
from firebox.cli.packages.progress import show_progress
from firebox.domain.errors import InvalidRequest, NotFound, PackageError
from firebox.files.atomic_write import write_atomic
from firebox.settings.settings import Settings

if TYPE_CHECKING:
    from pysequoia import Cert

SHORTEST_FINGERPRINT = 8
"""Minimum digits of a fingerprint's end that select a trusted key."""

Repository = Annotated[str, typer.Argument(metavar="REPOSITORY", help="The repository's name in the setting `repositories`.")]


class RepositoryState(Struct, kw_only=True):
    """The state of a repository."""

    name: str
    location: str
    synced_at: datetime | None = None
    """None: never, or it is a local file, which needs no synchronization."""
    signed_at: datetime | None = None
    """Signature time of the latest index; None if it has no trusted signature."""
    packages: int | None = None
    """Number of packages; None if unknown."""
    trusted: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The trusted keys."""
    problem: str = ""


@with_context(REPOSITORY_ROWS)
def repos(context: PackageContext, as_json: AsJson = False) -> None:
    """List the repositories: location, time of the last sync, and trusted keys.

    Example: `firebox packages repos --repositories main=https://packages.example.org/index.yaml`. Repositories come from the
    setting `repositories`; local builds are in the repository `built`.
    """
    found = run(_repository_states(context))
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("no repository is configured: see docs/operate/packages.md", err=True)
    rows = [
        (
            each.name,
            "?" if each.packages is None else str(each.packages),
            f"{each.synced_at:%Y-%m-%d %H:%M}" if each.synced_at else "",
            _trust_words(each),
            each.location,
        )
        for each in found
    ]
    print_rows(("NAME", "PACKAGES", "SYNCED", "TRUST", "WHERE"), rows)
    for each in found:
        if each.problem:
            typer.echo(f"{each.name}: {each.problem}", err=True)


@with_context(REPOSITORY_ROWS)
def sync(
    context: PackageContext,
    repository: Annotated[str, typer.Argument(metavar="NAME", help="A repository. Default: all of them.")] = "all",
    as_json: AsJson = False,
) -> None:
    """Fetch the repository indexes again.

    Example: `firebox packages sync`. An index that lost its trusted signature, or is older than the last one, is rejected.
    """
    with show_progress() as report:
        run(context.repositories.sync(repository, report))
    found = [each for each in run(_repository_states(context)) if repository in {"all", each.name}]
    if as_json:
        print_json(found)
        return
    for each in found:
        print(f"{each.name}: {each.packages} packages")


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
    _confirm("Trust", certificates, repository, yes=yes, as_json=as_json)
    kept = {each.fingerprint: each for each in trusted_keys(settings, repository)}
    for each in certificates:
        kept[each.fingerprint] = kept[each.fingerprint].merge(each) if each.fingerprint in kept else each
    file = key_file(settings, repository)
    done = f"{len(kept)} {'key' if len(kept) == 1 else 'keys'} trusted for {repository}: {file}"
    _write(repository, file, kept.values(), done, as_json=as_json)


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
    _confirm("Stop trusting", forgotten, repository, yes=yes, as_json=as_json)
    kept = [each for each in certificates if each not in forgotten]
    left = f"{len(kept)} left" if kept else "none left, so packages from the network will be rejected"
    _write(repository, file, kept, f"removed {len(forgotten)} for {repository}; {left}", as_json=as_json)


async def _repository_states(context: PackageContext) -> list[RepositoryState]:
    """Collect the repository states without network access."""
    from firebox.packages.repository.repository_state import StateFolder
    from firebox.packages.repository.signatures import trusted_keys
    from firebox.packages.repository.sources import read_sources

    found: list[RepositoryState] = []
    for source in read_sources(context.settings):
        repository = RepositoryState(name=source.name, location=source.location)
        found.append(repository)
        try:
            repository.trusted = [_as_key(each) for each in trusted_keys(context.settings, source.name)]
            folder = StateFolder(context.settings, source.name)
            state = folder.state()
            if not source.on_network or (state.location == source.location and state.synced_at is not None):
                repository.packages = len(await context.repositories.entries(source.name))
                state = folder.state()
            repository.synced_at = state.synced_at if source.on_network else None
            repository.signed_at = state.signed_at
        except PackageError as error:
            repository.problem = error.message
    return found


def _trust_words(repository: RepositoryState) -> str:
    number = len(repository.trusted)
    if number:
        return f"{number} key" if number == 1 else f"{number} keys"
    return "" if repository.location.startswith("file:") else "none"


def _as_key(certificate: Cert) -> dict[str, Any]:
    """Convert a key to JSON."""
    return {
        "fingerprint": certificate.fingerprint,
        "user_ids": [str(each) for each in certificate.user_ids],
        "expires": certificate.expiration,
    }


def _check_name(settings: Settings, repository: str) -> None:
    """Reject invalid repository names, and warn about unknown ones. Raises: InvalidRequest."""
    from firebox.packages.repository.sources import ALL, REPOSITORY_NAME, read_sources

    if not REPOSITORY_NAME.fullmatch(repository) or repository == ALL:
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
        trusted = ", ".join(each.fingerprint for each in certificates)
        hint = f"give at least the last {SHORTEST_FINGERPRINT} digits of one of these: {trusted}"
        raise NotFound("trusted key", fingerprint, hint=hint)
    return found


def _write(repository: str, file: Path, certificates: Collection[Cert], done: str, *, as_json: bool) -> None:
    """Replace the trusted keys atomically, or delete the file if none are left. Print the result; done: for people."""
    if certificates:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, "".join(str(each) for each in certificates).encode())
    else:
        file.unlink()
    if as_json:
        print_json({"repository": repository, "file": str(file), "trusted": [_as_key(each) for each in certificates]})
    else:
        print(done)


def _confirm(question: str, certificates: Sequence[Cert], repository: str, *, yes: bool, as_json: bool) -> None:
    """Show the keys, and ask for confirmation."""
    for each in () if as_json else certificates:
        groups = re.findall(".{1,4}", each.fingerprint.upper())
        users = "\n".join(str(user) for user in each.user_ids) or "none"
        expires = f"{each.expiration:%Y-%m-%d}" if each.expiration else ""
        print_fields([("fingerprint", " ".join(groups)), ("user id", users), ("expires", expires)])
    confirm(f"{question} {'this key' if len(certificates) == 1 else 'these keys'} for {repository}?", yes=yes)
