"""Shell completion of language and package names, read from disk, with limits. Never uses the network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

import firebox
from firebox.domain.errors import FireboxError
from firebox.settings.settings import load_settings

MOST_OFFERED = 500
MOST_FILES = 2000
MOST_BYTES = 4 << 20
"""Limit on all files together: a large repository index must not delay a keystroke."""

_OURS = Path(firebox.__file__).resolve().parent
_WORD = r"[A-Za-z0-9][A-Za-z0-9._+#-]{0,63}"
"""Pattern of safe completions: they are printed to a terminal, and repositories are untrusted."""
_LANGUAGE = re.compile(rf'^language = "({_WORD})"', re.MULTILINE)
_ALIASES = re.compile(r"^aliases = \[(.*?)\]", re.MULTILINE)
_OF_PACKAGE = re.compile(rf'"language":"({_WORD})"')
_ALIASES_OF_PACKAGE = re.compile(r'"aliases":\[(.*?)\]')
_QUOTED = re.compile(rf'"({_WORD})"')
_ANNOUNCED = re.compile(rf"""^[ -]*language: *["']?({_WORD})["']?$|^({_WORD}),[^,\n]+,[0-9a-f]{{64}},""", re.MULTILINE)
"""A package in an index, in YAML or line format."""
_INSTALLED = re.compile(rf"({_WORD})-\d+\.\d+\.\d+.*")


def offer_languages(context: typer.Context, incomplete: str) -> list[str]:
    """Complete languages of installed packages and definitions; their aliases if nothing else matches."""
    folder = _data_folder(context)
    packages = "\n".join(_texts(folder.glob("packages/installed/*/runtimes.json")))
    own = "\n".join(_texts([*(folder / "runtimes").glob("*.toml"), *(_OURS / "runtimes" / "definitions").glob("*.toml")]))
    names = _beginning(incomplete, [*_OF_PACKAGE.findall(packages), *_LANGUAGE.findall(own)])
    if names:
        return names
    lists = [*_ALIASES_OF_PACKAGE.findall(packages), *_ALIASES.findall(own)]
    return _beginning(incomplete, (name for names in lists for name in _QUOTED.findall(names)))


def offer_packages(context: typer.Context, incomplete: str) -> list[str]:
    """Complete installable packages: recipes, and the packages of repositories as of their last download."""
    indices = _texts(_data_folder(context).glob("packages/repositories/*/*.index"))
    known = (first or second for text in indices for first, second in _ANNOUNCED.findall(text))
    return _beginning(incomplete, [*_recipes(), *known])


def offer_recipes(incomplete: str) -> list[str]:
    return _beginning(incomplete, _recipes())


def offer_installed(context: typer.Context, incomplete: str) -> list[str]:
    folders = _data_folder(context).glob("packages/installed/*")
    return _beginning(incomplete, (found[1] for folder in folders if (found := _INSTALLED.fullmatch(folder.name))))


def _recipes() -> Iterator[str]:
    return (file.parent.parent.name for file in (_OURS / "recipes").glob("*/*/recipe.toml"))


def _data_folder(context: typer.Context) -> Path:
    """Return the data folder of the command line so far, or of the settings; an empty path if these are invalid."""
    given: dict[str, Any] = context.params
    config = given.get("config")
    try:
        return load_settings({"data_dir": given.get("data_dir")}, Path(config) if config else None).data_dir
    except (FireboxError, OSError):
        return Path("/nonexistent")


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})[:MOST_OFFERED]


def _texts(files: Iterable[Path]) -> Iterator[str]:
    """Yield the contents of files, within the limit."""
    left = MOST_BYTES
    for number, file in enumerate(files):
        if number == MOST_FILES or left <= 0:
            return
        with suppress(OSError), file.open("rb") as opened:
            data = opened.read(left)
            left -= len(data)
            yield data.decode(errors="replace")
