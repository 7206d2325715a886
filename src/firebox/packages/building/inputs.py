"""Debian archives: which ones went into a root, and a folder that keeps them for the next one."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from urllib.parse import unquote

KEEP_ARCHIVES = "--customize-hook=sync-out /var/cache/apt/archives {}"
"""The hook that brings the archives out of a root that is being made."""


def debian_inputs(archives: Path) -> list[str]:
    """List what was installed: `deb NAME VERSION SHA256`, by name."""
    found: list[str] = []
    for file in sorted(archives.glob("*.deb")):
        name, version, _ = unquote(file.name).removesuffix(".deb").split("_")
        found.append(f"deb {name} {version} {_digest(file)}")
    return found


def keep_archives(archives: Path, kept: Path) -> None:
    """Move archives to where the next build looks for them; each appears whole."""
    kept.mkdir(parents=True, exist_ok=True)
    for file in archives.glob("*.deb"):
        if not (kept / file.name).exists():
            unfinished = kept / f".{os.getpid()}-{file.name}"
            shutil.move(file, unfinished)
            unfinished.chmod(0o644)
            unfinished.replace(kept / file.name)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
