"""Packages on the command line, as NAME, NAME@RANGE or a file, and their lookup."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from msgspec import Struct

from firebox.cli.packages.context import PackageContext
from firebox.cli.packages.recipes_command import packages_providing, recipe_names
from firebox.domain.errors import InvalidRequest, NotFound
from firebox.packages.entry import Entry

if TYPE_CHECKING:
    from firebox.packages.installed.store import Installed

FILE_ENDINGS = (".squashfs", ".sqsh", ".tar.gz", ".tgz")
RANGE_HINT = "examples: *, 3.x, ^3.11, >=3.9 <4, 3.11.7"

_SPELLING = re.compile(r"([^\s@<>=^~|*]+)(?:@(.*)|([<>=^~].*))?", re.DOTALL)
_LONGEST = 256
MAX_SHOWN = 12


def names_argument(description: str, completion: Callable[..., list[str]]) -> Any:
    """Declare the argument of a command for the names of packages."""
    return typer.Argument(metavar="NAME[@RANGE]", help=description, autocompletion=completion)


class Selector(Struct, frozen=True, kw_only=True):
    """A package given on the command line."""

    word: str
    """The word as written."""
    name: str
    version_range: str = "*"


def is_file(word: str) -> bool:
    """Check whether a word is a file: it contains a slash or has the extension of a package file."""
    return "/" in word or word.lower().endswith(FILE_ENDINGS)


def package_file(word: str) -> Path:
    """Return the path of a package file. Raises: InvalidRequest if it does not exist."""
    path = Path(word)
    if not path.is_file():
        raise InvalidRequest(f"{word}: no such file", hint="package names contain no slash, for example python@3.x")
    return path


def read_selector(word: str) -> Selector:
    """Parse NAME, NAME@RANGE, or NAME=VERSION as in Piston's command line. Raises: InvalidRequest."""
    from firebox.packages.versions import is_range

    match = _SPELLING.fullmatch(word.strip())
    if match is None or len(word) > _LONGEST:
        raise InvalidRequest(f"{word[:_LONGEST]!r} is not a package name", hint="examples: python, python@3.x, 'python@>=3.9 <4'")
    version_range = (match[2] or match[3] or "*").strip()
    if not is_range(version_range):
        raise InvalidRequest(f"{version_range!r} is not a valid version range", where=word, hint=RANGE_HINT)
    return Selector(word=word, name=match[1], version_range=version_range)


def read_recipe_selector(word: str) -> Selector:
    """Parse a recipe name: as `read_selector`, or NAME/SERIES as in messages. Raises: InvalidRequest."""
    name, slash, series = word.strip().partition("/")
    return read_selector(f"{name}@{series}" if slash and "@" not in word and series else word)


def matches(selector: Selector, entry: Entry) -> bool:
    """Check whether an entry matches. A pre-release must be named by the range, or the word must be its full name."""
    from firebox.packages.versions import is_in_range

    return selector.word == entry.name or (
        selector.name == entry.language and is_in_range(entry.version, within=selector.version_range)
    )


def sort_versions(versions: Iterable[str]) -> list[str]:
    """Sort versions, newest first."""
    from firebox.packages.versions import sort_key

    return sorted(set(versions), key=sort_key, reverse=True)


async def find_package(context: PackageContext, selector: Selector, repository: str) -> Entry:
    """Find the newest matching package, or else an installed one. Raises: NotFound with a hint; and as `Repositories.find`."""
    try:
        return await context.repositories.find(selector.name, selector.version_range, repository=repository)
    except NotFound as error:
        if error.kind != "package":
            raise
    known = compatible(await context.repositories.entries(repository))
    for entry in known:
        if entry.name == selector.word:
            return entry
    for package in context.store.all():
        if matches(selector, package.entry):
            return package.entry
    provided_by = packages_providing(selector.name.lower())
    raise unknown_package(selector, known, recipe_names(), provided_by)


def find_installed(installed: Sequence[Installed], word: str) -> list[Installed]:
    """List the installed packages that match a word. Raises: NotFound with similar names as a hint; InvalidRequest."""
    selector = read_selector(word)
    found = [package for package in installed if matches(selector, package.entry)]
    if not found:
        near = _suggestion(selector, [package.entry for package in installed], ())
        hint = near or "`firebox packages list` lists the installed packages"
        raise NotFound("installed package", selector.word, hint=hint)
    return found


def unknown_package(
    selector: Selector, known: Collection[Entry], recipes: Sequence[str] = (), provided_by: Sequence[str] = ()
) -> NotFound:
    """Create the error for an unknown package. provided_by: names of packages that provide a language of this name."""
    names = {entry.language for entry in known}
    provided_by = [name for name in provided_by if name in names] or list(provided_by)
    if selector.name in recipes and selector.name not in names:
        command = f"firebox packages install --build {selector.name}"
        hint = f"no repository has it, but there is a recipe: run `{command}` to build and install it"
    elif provided_by and selector.name not in names:
        option = "" if provided_by[0] in names else "--build "
        command = f"firebox packages install {option}{provided_by[0]}"
        hint = f"{selector.name} is provided by {' or '.join(provided_by)}: run `{command}`"
    elif not known and not recipes:
        hint = "no repository is configured: see docs/operate/packages.md"
    else:
        near = _suggestion(selector, known, recipes) or "`firebox packages list --available` lists all packages"
        hint = f"{near}; `firebox packages sync` updates the indexes"
    return NotFound("package", selector.word, hint=hint)


def suggest_names(name: str, names: Iterable[str]) -> str:
    """Return "did you mean ...?" for a misspelled name, "" if nothing is similar."""
    near = difflib.get_close_matches(name.lower()[:64], sorted(names), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def compatible(entries: Iterable[Entry]) -> list[Entry]:
    """Filter entries by architecture, in order; of each version, prefer the architecture-specific package."""
    from firebox.packages.machine import fits

    best: dict[str, Entry] = {}
    for entry in entries:
        if fits(entry.architecture) and (entry.name not in best or entry.architecture > best[entry.name].architecture):
            best[entry.name] = entry
    return list(best.values())


def _suggestion(selector: Selector, known: Collection[Entry], recipes: Sequence[str]) -> str:
    if versions := sort_versions(entry.version for entry in known if entry.language == selector.name):
        return f"versions of {selector.name}: {', '.join(versions[:MAX_SHOWN])}"
    return suggest_names(selector.name, {*(entry.language for entry in known), *recipes})
