"""Build files: a text beside each package image that documents how it was built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from firebox.files.atomic_write import write_atomic

ENDING = ".recipe.txt"
MAX_BUILD_FILE_BYTES = 16 << 20


def build_file_path(package: Path) -> Path:
    """Return the path of the build file of a package, which may not exist."""
    return package.with_name(package.name.removesuffix(".squashfs") + ENDING)


def build_file_url(package: Path) -> str:
    """Return the URL-quoted name of the build file for an index beside it; "" if there is none."""
    file = build_file_path(package)
    return quote(file.name) if file.is_file() and not file.is_symlink() else ""


def write_build_file(package: Path, command: str, parts: Mapping[str, str]) -> None:
    """Write the build file of a package. command: the build command; parts: input name -> text."""
    text = [f"# Made by: {command}\n", *(f"\n==> {name} <==\n{part.rstrip()}\n" for name, part in parts.items())]
    write_atomic(build_file_path(package), "".join(text).encode())
