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


def select(source: object, *names: str) -> dict[str, Any]:
    """Return some attributes of an object, by name."""
    return {name: getattr(source, name) for name in names}


def as_entry(entry: Entry, *names: str) -> dict[str, Any]:
    """Convert an index entry to JSON. names: the fields after its name and version."""
    return {"package": entry.language, **select(entry, "version", *names)}


def as_details(entry: Entry) -> dict[str, Any]:
    """Convert all of an index entry to JSON."""
    names = ("repository", "author", "size_bytes", "architecture", "checksums", "dependencies", "buildfile", "download")
    return {**as_entry(entry, *names), "signed": bool(entry.signature)}


def as_installed(package: Installed) -> dict[str, Any]:
    """Convert an installed package to JSON."""
    entry = as_entry(package.entry, "repository")
    return {"id": package.id, **entry, **select(package, "kind", "size_bytes", "installed_at", "requires")}
