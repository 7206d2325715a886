"""Programs on PATH: all matches, not only the first one."""

from __future__ import annotations

import fnmatch
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import takewhile
from operator import methodcaller
from pathlib import Path

_PATTERN = re.compile(r"[*?\[]")


class SearchPath:
    """The programs in the folders of a PATH, listed once."""

    def __init__(self, path: str) -> None:
        """path: folders separated by ":"; empty and relative ones are ignored."""
        folders = dict.fromkeys(Path(folder) for folder in path.split(":") if folder.startswith("/"))
        names = {real: _names_in(real) for real in {os.path.realpath(folder) for folder in folders}}  # /bin is /usr/bin
        self._names = {folder: names[os.path.realpath(folder)] for folder in folders}

    def find(self, programs: Sequence[str], *, first_in: Path | None = None) -> list[Path]:
        """Return the programs with one of these names, ordered by name, then by folder; one path per real file.

        A pattern matches compiled programs only: scripts of version managers exist for versions that are not installed.
        first_in: a folder to search before PATH.
        """
        places = ({first_in: _names_in(first_in)} if first_in else {}) | self._names
        found: dict[Path, Path] = {}
        for program in programs:
            pattern = re.compile(fnmatch.translate(program)) if _PATTERN.search(program) else None
            beginning = _PATTERN.split(program, maxsplit=1)[0]
            for folder, names in places.items():
                first = bisect_left(names, beginning)
                matching: Iterable[str] = [program] if names[first : first + 1] == [program] else []
                if pattern is not None:
                    matching = filter(pattern.match, takewhile(methodcaller("startswith", beginning), names[first:]))
                for candidate in (folder / name for name in matching):
                    if is_program(candidate) and (pattern is None or _is_compiled(candidate)):
                        found.setdefault(candidate.resolve(), candidate)
        return list(found.values())


def _names_in(folder: str | Path) -> list[str]:
    """Return the names in a folder, sorted: there are thousands of them, and a hundred lookups."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - thousands of path objects would be slow
    except OSError:
        return []  # PATH may contain missing folders


def is_program(path: str | Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)  # noqa: PTH113 - called for each name in each folder


def _is_compiled(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False
