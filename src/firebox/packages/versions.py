"""Package versions and npm-style version ranges, with the same rules as for runtimes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from firebox.packages.entry import Entry

MAX_VERSION_CHARS = 64
MAX_RANGE_CHARS = 256
MAX_LISTED = 12


def is_version(text: str) -> bool:
    """Check whether a text is an exact version."""
    import semantic_version  # a server without packages compares no versions

    parser: Any = semantic_version.Version
    try:
        parser(text if len(text) <= MAX_VERSION_CHARS and text.isascii() else "")
    except ValueError:
        return False
    return True


def is_range(text: str) -> bool:
    """Check whether a text is a valid version range."""
    return _range(text) is not None


def newest(entries: Iterable[Entry], version_range: str) -> Entry | None:
    """Return the newest matching entry, the first of equals; None if no version matches. An invalid range matches nothing."""
    return next(iter(matching(entries, version_range)), None)


def group(entries: Iterable[Entry], key: Callable[[Entry], str]) -> dict[str, list[Entry]]:
    """Group entries by a key, in order of appearance."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    return groups


def group_by_repository(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Group entries by repository, in order of appearance."""
    return list(group(entries, lambda entry: entry.repository).values())


def preferred(entries: Iterable[Entry], version_range: str) -> list[Entry]:
    """List the matching entries: those of the first repository, newest first, then those of the next one.

    A later repository cannot shadow a package of an earlier one with a newer version, unless the range asks for that version.
    Pre-releases are handled as in `matching`.
    """
    return _matching(group_by_repository(entries), version_range)


def matching(entries: Iterable[Entry], version_range: str) -> list[Entry]:
    """List the matching entries, newest first.

    As in npm, pre-releases match only if the range names them; as a fallback they match if nothing else does.
    Source: node-semver, "Ranges" and "Prerelease Tags".
    """
    return _matching([entries], version_range)


def _matching(groups: Sequence[Iterable[Entry]], version_range: str) -> list[Entry]:
    given = [entry for each in groups for entry in newest_first(each)]
    found = [entry for entry in given if is_in_range(entry.version, within=version_range)]
    return found or [entry for entry in given if is_in_range(entry.version, within=version_range, as_release=True)]


def newest_first(entries: Iterable[Entry]) -> list[Entry]:
    """Sort entries by version, newest first; the sort is stable."""
    return sorted(entries, key=lambda entry: sort_key(entry.version), reverse=True)


def format_versions(entries: Iterable[Entry]) -> str:
    """Format the versions for a message, newest first, at most `MAX_LISTED`."""
    versions = dict.fromkeys(entry.version for entry in newest_first(entries))
    return ", ".join(islice(versions, MAX_LISTED))


@lru_cache(maxsize=65_536)
def is_in_range(version: str, *, within: str, as_release: bool = False) -> bool:
    """Check whether a version is in a range, `within`. as_release: treat a pre-release as the release it precedes."""
    if within.strip() == version:
        return True
    wanted = _range(within)
    if wanted is None or not is_version(version):
        return False
    import semantic_version

    asked: Any = semantic_version.Version(version)
    return bool(wanted.match(asked.truncate("patch") if as_release else asked))


@lru_cache(maxsize=65_536)
def sort_key(version: str) -> Any:
    """Return an ascending sort key for a version; builds of one version sort by name."""
    import semantic_version

    parsed: Any = semantic_version.Version(version)
    return parsed.precedence_key, tuple(parsed.build)


@lru_cache(maxsize=4096)
def _range(text: str) -> Any:
    if len(text) > MAX_RANGE_CHARS or not text.isascii():
        return None
    import semantic_version

    try:
        return semantic_version.NpmSpec(text.strip())
    except ValueError:
        return None
