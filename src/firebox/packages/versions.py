"""Versions of packages and the ranges that ask for them, as npm spells these; the same rules as for runtimes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any

from firebox.packages.entry import Entry

LONGEST_VERSION = 64
LONGEST_RANGE = 256
MOST_NAMED = 12


def is_version(text: str) -> bool:
    """Say whether this is one exact version."""
    import semantic_version  # a server without packages compares no versions

    parser: Any = semantic_version.Version
    try:
        parser(text if len(text) <= LONGEST_VERSION and text.isascii() else "")
    except ValueError:
        return False
    return True


def is_range(text: str) -> bool:
    """Say whether this is a range of versions."""
    return _range(text) is not None


def newest(entries: Iterable[Entry], version_range: str) -> Entry | None:
    """Find the newest that a range allows, the first of equals; None when there is none. A broken range allows nothing."""
    best = matching(entries, version_range)
    return best[0] if best else None


def by_repository(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Group by repository, in the order in which they appear."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.repository, []).append(entry)
    return list(groups.values())


def preferred(entries: Iterable[Entry], version_range: str) -> list[Entry]:
    """List what a range allows: what the first repository has, newest first, then what the next one has.

    So a later repository cannot slip in a newer version of what an earlier one has, unless just that is asked for.
    Pre-releases count as in `matching`.
    """
    groups = by_repository(entries)
    found = [entry for group in groups for entry in newest_first(group) if allows(version_range, version=entry.version)]
    return found or [entry for group in groups for entry in matching(group, version_range)]


def matching(entries: Iterable[Entry], version_range: str) -> list[Entry]:
    """List what a range allows, newest first.

    Pre-releases only count where they are named, or nothing else matches: npm's ranges leave them out otherwise.
    Source: node-semver, "Ranges" and "Prerelease Tags".
    """
    given = newest_first(entries)
    found = [entry for entry in given if allows(version_range, version=entry.version)]
    return found or [entry for entry in given if allows(version_range, version=entry.version, as_release=True)]


def newest_first(entries: Iterable[Entry]) -> list[Entry]:
    """Sort by version, downwards; equals stay in their order."""
    return sorted(entries, key=lambda entry: sort_key(entry.version), reverse=True)


def version_words(entries: Iterable[Entry]) -> str:
    """List the versions for a message, newest first, at most `MOST_NAMED`."""
    versions = dict.fromkeys(entry.version for entry in newest_first(entries))
    return ", ".join(islice(versions, MOST_NAMED))


@lru_cache(maxsize=65_536)
def allows(version_range: str, *, version: str, as_release: bool = False) -> bool:
    """Say whether a version lies in a range. as_release: take a pre-release for what it leads to."""
    if version_range.strip() == version:
        return True
    wanted = _range(version_range)
    if wanted is None or not is_version(version):
        return False
    import semantic_version

    asked: Any = semantic_version.Version(version)
    return bool(wanted.match(asked.truncate("patch") if as_release else asked))


@lru_cache(maxsize=65_536)
def sort_key(version: str) -> Any:
    """A key that sorts versions upwards; builds of one version by their names."""
    import semantic_version

    parsed: Any = semantic_version.Version(version)
    return parsed.precedence_key, tuple(parsed.build)


@lru_cache(maxsize=4096)
def _range(text: str) -> Any:
    if len(text) > LONGEST_RANGE or not text.isascii():
        return None
    import semantic_version

    try:
        return semantic_version.NpmSpec(text.strip())
    except ValueError:
        return None
