"""Conversion of tools' version strings to SemVer."""

from __future__ import annotations

import re

_VERSION = re.compile(
    r"(?P<numbers>\d{1,9}(?:[._]\d{1,9})*)"
    r"(?:[-_.]?(?P<stage>alpha|beta|a|b|rc|dev|pre|preview|nightly|canary|snapshot|DEV)(?![a-z])[-.]?(?P<count>\d{1,9})?)?",
    re.IGNORECASE,
)
_STAGES = {"a": "alpha", "b": "beta"}
_SEMVER = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+.*)?")


def to_semver(text: str) -> str | None:
    """Convert the first version in `text` to SemVer; None if there is none.

    `5.2.15(1)-release` becomes 5.2.15, `3.14.0rc2` 3.14.0-rc.2, `2024.09` 2024.9.0, `8.0_392` 8.0.392, `17.0.15.1` 17.0.15:
    numbers after the third and their suffixes are dropped, except for pre-release tags.
    """
    match = _VERSION.search(text)
    if match is None:
        return None
    numbers = [str(int(number)) for number in re.split(r"[._]", match["numbers"])]
    version = ".".join([*numbers, "0", "0"][:3])
    if match["stage"]:
        stage = match["stage"].lower()
        version += "-" + _STAGES.get(stage, stage)
        if match["count"]:
            version += f".{int(match['count'])}"
    return version


def parts_of(version: str) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Split a SemVer into its numbers and its pre-release identifiers ("rc", "2"). Raises: ValueError.

    Libraries for version ranges can do this too, but take longer to load than a small program to run.
    """
    match = _SEMVER.fullmatch(version)
    if match is None:
        raise ValueError(version)
    return (int(match[1]), int(match[2]), int(match[3])), tuple(match[4].split(".")) if match[4] else ()
