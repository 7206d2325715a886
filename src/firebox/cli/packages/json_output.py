"""JSON representation of packages, shared by all commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from firebox.packages.entry import Entry

if TYPE_CHECKING:
    from firebox.packages.installed.store import Installed
    from firebox.runtimes.runtime import Runtime


def as_entry(entry: Entry) -> dict[str, Any]:
    """Convert an index entry to JSON."""
    return {
        "package": entry.language,
        "version": entry.version,
        "repository": entry.repository,
        "author": entry.author,
        "size_bytes": entry.size_bytes,
        "architecture": entry.architecture,
        "checksums": entry.checksums,
        "dependencies": entry.dependencies,
        "buildfile": entry.buildfile,
        "download": entry.download,
        "signed": bool(entry.signature),
    }


def as_installed(package: Installed) -> dict[str, Any]:
    """Convert an installed package to JSON."""
    return {
        "id": package.id,
        "package": package.entry.language,
        "version": package.entry.version,
        "repository": package.entry.repository,
        "kind": package.kind,
        "size_bytes": package.size_bytes,
        "installed_at": package.installed_at,
        "requires": list(package.requires),
    }


def as_runtimes(runtimes: Iterable[Runtime], package: Installed) -> list[dict[str, Any]]:
    """Convert the runtimes of a package to JSON."""
    return [
        {"language": each.language, "version": each.version, "aliases": list(each.aliases)}
        for each in runtimes
        if each.installed == package.id
    ]
