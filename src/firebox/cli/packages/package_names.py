"""How a package is named on the command line: NAME, NAME@RANGE, or a file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from firebox.domain.errors import InvalidRequest, NotFound
from firebox.packages.entry import Entry

NAMES_METAVAR = "NAME[@RANGE]"
FILE_ENDINGS = (".squashfs", ".sqsh", ".tar.gz", ".tgz")
RANGE_HINT = "a version range looks like *, 3.x, ^3.11, >=3.9 <4 or 3.11.7"

_SPELLING = re.compile(r"([^\s@<>=^~|*]+)(?:@(.*)|([<>=^~].*))?", re.DOTALL)
_LONGEST = 256
MAX_SHOWN = 12


class Selector(Struct, frozen=True, kw_only=True):
    """A package that somebody asked for."""

    word: str
    """As it was written."""
    name: str
    version_range: str = "*"


def is_file(word: str) -> bool:
    """Tell a file from a name: it has a slash in it, or ends as packages do."""
    return "/" in word or word.lower().endswith(FILE_ENDINGS)


def package_file(word: str) -> Path:
    """Check that a file is there. Raises: InvalidRequest."""
    path = Path(word)
    if not path.is_file():
        raise InvalidRequest(f"{word}: no such file", hint="one from a repository is named without a slash, like python@3.x")
    return path


def read_selector(word: str) -> Selector:
    """Read NAME, NAME@RANGE, or NAME=VERSION as Piston's command line has it. Raises: InvalidRequest."""
    from firebox.packages.versions import is_range

    match = _SPELLING.fullmatch(word.strip())
    if match is None or len(word) > _LONGEST:
        raise InvalidRequest(f"{word[:_LONGEST]!r} names no package", hint="like python, python@3.x or 'python@>=3.9 <4'")
    version_range = (match[2] or match[3] or "*").strip()
    if not is_range(version_range):
        raise InvalidRequest(f"{version_range!r} is no version range", where=word, hint=RANGE_HINT)
    return Selector(word=word, name=match[1], version_range=version_range)


def read_recipe_selector(word: str) -> Selector:
    """Read the name of a recipe: as `read_selector`, or NAME/SERIES, which is how messages write it. Raises: InvalidRequest."""
    name, slash, series = word.strip().partition("/")
    return read_selector(f"{name}@{series}" if slash and "@" not in word and series else word)


def matches(selector: Selector, entry: Entry) -> bool:
    """Say whether a package is meant; a pre-release only where the range names it, or the word is its whole name."""
    from firebox.packages.versions import allows

    return selector.word == entry.name or (
        selector.name == entry.language and allows(selector.version_range, version=entry.version)
    )


def newest_first(versions: Iterable[str]) -> list[str]:
    """Sort versions downwards."""
    from firebox.packages.versions import sort_key

    return sorted(set(versions), key=sort_key, reverse=True)


def unknown_package(
    selector: Selector, known: Sequence[tuple[str, str]], recipes: Sequence[str] = (), brought_by: Sequence[str] = ()
) -> NotFound:
    """Say that no package matches, and what is near.

    known: (name, version) of everything there is. recipes: names of those that could be built. brought_by: names of packages that
    bring a language of this name.
    """
    error = NotFound("package", selector.word)
    names = {name for name, _ in known}
    brought_by = [name for name in brought_by if name in names] or list(brought_by)
    if selector.name in recipes and selector.name not in names:
        error.hint = f"no repository has it, but Firebox has a recipe: `{_how(selector.name, names)}` builds and installs it"
    elif brought_by and selector.name not in names:
        error.hint = f"{selector.name} comes with {' or '.join(brought_by)}: `{_how(brought_by[0], names)}`"
    elif not known and not recipes:
        error.hint = "no repository is set: docs/packages.md says how to get one"
    else:
        near = _near(selector, known, recipes) or "`firebox packages list --available` shows what there is"
        error.hint = f"{near}; `firebox packages sync` fetches what is new"
    return error


def _how(name: str, known: Container[str]) -> str:
    return f"firebox packages install {'' if name in known else '--build '}{name}"


def not_installed(selector: Selector, installed: Sequence[tuple[str, str]]) -> NotFound:
    """Say that no installed package matches, and what is near."""
    error = NotFound("installed package", selector.word)
    error.hint = _near(selector, installed, ()) or "`firebox packages list` shows what is installed"
    return error


def near_names(name: str, names: Iterable[str]) -> str:
    """Say "did you mean ...?" for a misspelt name, or "" when nothing is near."""
    near = difflib.get_close_matches(name.lower()[:64], sorted(names), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def usable(entries: Iterable[Entry]) -> list[Entry]:
    """Leave out what is for another kind of machine; of one version only the package that is made for this kind.

    The order stays: it is that of the repositories.
    """
    from firebox.packages.machine import fits

    best: dict[str, Entry] = {}
    for entry in entries:
        if fits(entry.architecture) and (entry.name not in best or entry.architecture > best[entry.name].architecture):
            best[entry.name] = entry
    return list(best.values())


def _near(selector: Selector, known: Sequence[tuple[str, str]], recipes: Sequence[str]) -> str:
    if versions := _versions(selector.name, known):
        return f"versions of {selector.name}: {', '.join(versions[:MAX_SHOWN])}"
    return near_names(selector.name, {*(name for name, _ in known), *recipes})


def _versions(name: str, known: Sequence[tuple[str, str]]) -> list[str]:
    return newest_first(version for each, version in known if each == name)
