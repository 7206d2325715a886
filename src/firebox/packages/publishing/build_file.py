"""The build file of a package: a text beside its image that says how that was made, for people who want to know or repeat it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

ENDING = ".recipe.txt"
LARGEST_BYTES = 16 << 20


def build_file_of(package: Path) -> Path:
    """Say where the build file of a package file is, if it has one."""
    return package.with_name(package.name.removesuffix(".squashfs") + ENDING)


def address_of_build_file(package: Path) -> str:
    """Give the build file of a package as an index beside it names it; "" when there is none."""
    file = build_file_of(package)
    return quote(file.name) if file.is_file() and not file.is_symlink() else ""


def write_build_file(package: Path, command: str, parts: Mapping[str, str]) -> None:
    """Write the build file of a package. command: what made it; parts: name -> text of everything it was made from."""
    text = [f"# Made by: {command}\n", *(f"\n==> {name} <==\n{part.rstrip()}\n" for name, part in parts.items())]
    file = build_file_of(package)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.write_text("".join(text), encoding="utf-8")
    unfinished.chmod(0o644)
    unfinished.replace(file)
