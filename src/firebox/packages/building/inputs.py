"""Debian archives: which ones were installed into a root, and a cache for later builds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import unquote

from firebox.files.checksum import file_checksum

KEEP_ARCHIVES = "--customize-hook=sync-out /var/cache/apt/archives {}"
"""Hook that copies the archives out of a root under construction."""


def debian_inputs(archives: Path) -> list[str]:
    """List the installed packages as `deb NAME VERSION SHA256`, sorted by name."""
    found: list[str] = []
    for file in sorted(archives.glob("*.deb")):
        name, version, _ = unquote(file.name).removesuffix(".deb").split("_")
        found.append(f"deb {name} {version} {file_checksum(file)}")
    return found


def keep_archives(archives: Path, kept: Path) -> None:
    """Move archives to the cache; each appears atomically."""
    kept.mkdir(parents=True, exist_ok=True)
    for file in archives.glob("*.deb"):
        if not (kept / file.name).exists():
            unfinished = kept / f".{os.getpid()}-{file.name}"
            shutil.move(file, unfinished)
            unfinished.chmod(0o644)
            unfinished.replace(kept / file.name)
