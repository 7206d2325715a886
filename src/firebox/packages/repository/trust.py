"""Trust decisions before a download, and hints for the operator."""

from __future__ import annotations

from pysequoia import Cert

from firebox.domain.errors import NotTrusted
from firebox.packages.entry import Entry
from firebox.packages.repository.signatures import key_file, trusted_keys
from firebox.packages.repository.sources import Source, read_sources
from firebox.settings.settings import Settings

ALLOW_UNSIGNED = "FIREBOX_ALLOW_UNSIGNED_PACKAGES=true"


def check_trust(entry: Entry, settings: Settings) -> list[Cert]:
    """Check whether a package may be installed. Return the keys that may sign it.

    Returns no keys if no signature is required: for a local index, or if the operator accepts unsigned packages by checksum
    alone. Raises: NotTrusted.
    """
    keys = trusted_keys(settings, entry.repository) if entry.repository else []
    if keys:
        if not entry.signature:
            raise NotTrusted(f"{entry.name} of repository {entry.repository} is not signed")
        return keys
    source = source_of(entry, settings)
    on_network = source.on_network if source else not entry.download.startswith("file:")
    if on_network and not settings.allow_unsigned_packages:
        raise NotTrusted(
            f"no key is trusted for repository {entry.repository or '(unnamed)'}, so {entry.name} cannot be verified",
            hint=trust_hint(entry.repository, signed=bool(entry.signature)),
        )
    return []


def trust_hint(repository: str, *, signed: bool) -> str:
    """Return a hint with the command and the setting that allow packages of a repository.

    signed: whether its packages are signed. Piston indexes never are, and then a trusted key does not help.
    """
    allow = f"set {ALLOW_UNSIGNED} (setting allow_unsigned_packages; restart a running server)"
    trust = f"firebox packages trust {repository or 'NAME'} KEY.asc"
    if not signed:
        return f"the repository is not signed: to install packages verified by checksum only, {allow}; once it is signed, {trust}"
    return f"trust its key: {trust}; or, to install packages verified by checksum only, {allow}"


def untrusted_sources(settings: Settings) -> list[Source]:
    """List the network repositories without a trusted key, from which nothing can be installed."""
    if settings.allow_unsigned_packages:
        return []
    return [each for each in read_sources(settings) if each.on_network and not key_file(settings, each.name).exists()]


def source_of(entry: Entry, settings: Settings) -> Source | None:
    """Return the repository of a package; None for a package from a file."""
    return next((source for source in read_sources(settings) if source.name == entry.repository), None)
