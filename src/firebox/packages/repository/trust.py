"""Whose word counts for a package, decided before any of it is fetched, and what an operator can do when nobody's does."""

from __future__ import annotations

from pysequoia import Cert

from firebox.domain.errors import NotTrusted
from firebox.packages.entry import Entry
from firebox.packages.repository.signatures import key_file, trusted_keys
from firebox.packages.repository.sources import Source, sources_of
from firebox.settings.settings import Settings

ALLOW = "FIREBOX_ALLOW_UNSIGNED_PACKAGES=true"


def check_trust(entry: Entry, settings: Settings) -> list[Cert]:
    """Decide whether a package may be installed. Return the keys that may sign it.

    No keys are returned where no signature is needed: for an index of this machine, and for one on the network where the
    operator allows packages on the word of the index's checksums. Raises: NotTrusted.
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
            f"no key is trusted for repository {entry.repository or 'of no name'}, so nobody vouches for {entry.name}",
            hint=how_to_trust(entry.repository, signed=bool(entry.signature)),
        )
    return []


def how_to_trust(repository: str, *, signed: bool) -> str:
    """Name the command and the setting that let packages of a repository in.

    signed: its packages carry signatures. Piston's indices never do, and a key alone would not help there.
    """
    allow = f"set {ALLOW} (setting allow_unsigned_packages; restart a running server)"
    trust = f"firebox packages trust {repository or 'NAME'} KEY.asc"
    if not signed:
        return f"nothing is signed there: to install on the word of its checksums alone, {allow}; once it is signed, {trust}"
    return f"trust its key: {trust}; or, to install on the word of its checksums alone, {allow}"


def untrusted_sources(settings: Settings) -> list[Source]:
    """List the repositories on the network that nothing can be installed from, as no key is trusted for them."""
    if settings.allow_unsigned_packages:
        return []
    return [each for each in sources_of(settings) if each.on_network and not key_file(settings, each.name).exists()]


def source_of(entry: Entry, settings: Settings) -> Source | None:
    """Find the repository that announces a package; None for a package from a file."""
    return next((source for source in sources_of(settings) if source.name == entry.repository), None)
