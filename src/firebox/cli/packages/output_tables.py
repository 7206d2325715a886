"""Output of the package commands: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from firebox.packages.entry import Entry
from firebox.server.logs import escape

if TYPE_CHECKING:
    from firebox.packages.installed.store import Installed
    from firebox.runtimes.runtime import Runtime

PIPED_COLUMNS = 240


def print_json(value: object) -> None:
    """Print a value as indented JSON on standard output."""
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output. Cells are escaped: no control characters, no markup."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_COLUMNS)  # one line per row for pipes
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(escape(cell)) for cell in row))
    console.print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print a line for each (name, value) with a non-empty value; multi-line values are aligned."""
    shown = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *more = value.split("\n")
        print(f"{name:<{width}}  {escape(first)}")
        for line in more:
            print(f"{'':<{width}}  {escape(line)}")


def format_size(size_bytes: int) -> str:
    """Format a size for people; "" if unknown."""
    if not size_bytes:
        return ""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size_bytes >= 10**power:
            number = size_bytes / 10**power
            return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{size_bytes} B"


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
