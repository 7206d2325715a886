"""docs/settings.md, made from the table of settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from firebox.setting_values import Value
from firebox.settings_table import (
    ACCOUNT_ROWS,
    CONTAINER_ROWS,
    DOOR_ROWS,
    GENERAL_ROWS,
    LIMIT_ROWS,
    OVERRIDES_ROW,
    STORAGE_ROWS,
    Row,
)

_HEAD = """\
# Settings

<!-- Written by `make docs` from the table in src/firebox/settings_table.py: change it there. -->

A setting comes from the first of these that has it: a flag (`firebox serve --run-wall-ms 5s`), the environment
(`FIREBOX_RUN_WALL_MS=5s`), Piston's own environment names (the last column), the TOML file that `--config` or
`FIREBOX_CONFIG` names (`run_wall_ms = "5s"`), the default. `firebox settings` shows each with its source.

* Sizes are bytes: `65536`, `64KiB`, `64k`, `64m`, `2GiB` (1024 each); `64KB`, `64MB` (1000 each).
* Times are in the unit of the setting's name, or carry one: `1500ms`, `3s`, `5m`, `1h`.
* A value that is not allowed stops the server with words that name the setting, the value, what is allowed and where it came
  from. So does a name in the file that is no setting. A `FIREBOX_` or `PISTON_` name in the environment without meaning here
  gets a warning.

```toml
port = 2000
run_wall_ms = "5s"
run_memory_bytes = "256MiB"

[limit_overrides.java]
run_memory_bytes = "1GiB"
```
"""

_LIMITS = """
A request may ask for its own limits, up to the maximum; what it does not ask for is, in this order: what `limit_overrides`
says for the language, what you set here, what the runtime's definition wants (javac wants more time than most), the
default. 0 means no cap for `cpu_ms` and `memory_bytes`, and no maximum for all `max_` settings. Where you set only one of a
limit and its maximum and they would contradict each other, the other one follows.
"""

_MOVING = """
## Moving from Piston

Set the same names and get the same limits. In Piston a configured limit is the default and the maximum at once, so each
sets both here. A memory limit of `-1` is none. `PISTON_OUTPUT_MAX_SIZE` also turns on `kill`, Piston's way with long output;
without it output is cut and the program goes on. `PISTON_LIMIT_OVERRIDES` is Piston's JSON, its keys included. Networks are
always off: `PISTON_DISABLE_NETWORKING=false` gets a warning. So does every other `PISTON_` name.
"""


def settings_page() -> str:
    """Write the whole page, as Markdown."""
    defaults = [row for row in LIMIT_ROWS if not row.name.startswith("max_")]
    maxima = [row for row in LIMIT_ROWS if row.name.startswith("max_")]
    parts = [_HEAD, "\n## The server\n\n", *_table(GENERAL_ROWS)]
    parts += ["\n## Users\n\n", *_table(ACCOUNT_ROWS), "\n## What is kept\n\n", *_table(STORAGE_ROWS)]
    parts += ["\n## Containers\n\n", *_table(CONTAINER_ROWS), "\n## Doors\n\n", *_table(DOOR_ROWS)]
    parts += ["\n## Limits\n", _LIMITS]
    parts += ["\n", *_table([*defaults, OVERRIDES_ROW]), "\n### Maxima\n\n", *_table(maxima), _MOVING]
    return "".join(parts)


def _table(rows: Iterable[Row]) -> list[str]:
    lines = ["| setting | default | what | allowed | other names |\n", "| --- | --- | --- | --- | --- |\n"]
    for row in rows:
        aliases = ", ".join(f"`{alias}`" for alias in row.aliases)
        lines.append(f"| `{row.name}` | {_shown(row, row.default)} | {row.help} | {row.allowed} | {aliases} |\n")
    return lines


def _shown(row: Row, value: Value) -> str:
    """Write a default the way a person would."""
    match value:
        case bool():
            return "`true`" if value else "`false`"
        case int() if row.kind == "bytes" and value:
            unit, size = next((unit, size) for unit, size in _UNITS.items() if value % size == 0)
            return f"`{value // size}{unit}`"
        case Mapping() | "":
            return ""
        case Path() | str() | int():
            return f"`{value}`"


_UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "": 1}
