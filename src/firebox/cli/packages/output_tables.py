"""Output of the package commands: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from firebox.server.logs import escape

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
