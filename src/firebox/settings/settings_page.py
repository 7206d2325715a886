"""docs/reference/settings.md, made from the table of settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from firebox.settings.setting_values import Value
from firebox.settings.settings_table import (
    ACCOUNT_ROWS,
    CACHE_ROWS,
    CONTAINER_ROWS,
    DOOR_ROWS,
    GENERAL_ROWS,
    LIMIT_ROWS,
    OVERRIDES_ROW,
    PACKAGE_ROWS,
    STORAGE_ROWS,
    Row,
)

_HEAD = """\
# Settings

<!-- Written by `make docs` from the table in src/firebox/settings/settings_table.py: change it there. -->

A setting comes from the first of these that has it:

1. a flag: `firebox serve --run-wall-ms 5s`;
2. the environment: `FIREBOX_RUN_WALL_MS=5s`;
3. the environment under the name another system gives it (the last column): `PISTON_RUN_TIMEOUT=5000`, see
   [moving](../operate/moving.md);
4. the file that `--config` or `FIREBOX_CONFIG` names: TOML with the settings' own names (`run_wall_ms = "5s"`), or a file of
   Runner's, which ends in `.yaml` or `.yml` (the last column, in *italics*);
5. the file `firebox.toml` in `data_dir`, in the same form; it may not set `data_dir` itself;
6. the default.

`firebox settings` shows each with its source. Tokens and passwords are hidden there, in messages and in the log.

* Sizes are bytes: `65536`, `64KiB`, `64k`, `64m`, `2GiB` (1024 each); `64KB`, `64MB` (1000 each).
* Times are in the unit of the setting's name, or carry one: `1500ms`, `3s`, `5m`, `1h`.
* A value that is not allowed stops the server with words that name the setting, the value, what is allowed and where it came
  from. So does a name in the TOML file that is no setting. A `FIREBOX_` or `PISTON_` name in the environment without meaning
  here gets a warning, and so does such a name in a file of Runner's.

```toml
port = 2000
run_wall_ms = "5s"
run_memory_bytes = "256MiB"

[limit_overrides.java]
run_memory_bytes = "1GiB"

[limit_overrides."haskell-9.6.6"]     # one installed package
compile_wall_ms = "60s"

[cache_levels]
"python-3.13.5" = "output"
```
"""

_LIMITS = """
A request may ask for its own limits, up to the maximum; what it does not ask for is, in this order: what `limit_overrides`
says for the package or the language, what you set here, what the runtime's definition wants (javac wants more time than
most), the default. 0 means no cap for `cpu_ms` and `memory_bytes`, and no maximum for all `max_` settings. Where you set only
one of a limit and its maximum and they would contradict each other, the other one follows.
"""

_GROUPS: Mapping[str, tuple[Row, ...]] = {
    "The server": GENERAL_ROWS,
    "Users": ACCOUNT_ROWS,
    "What is kept": STORAGE_ROWS,
    "Containers": CONTAINER_ROWS,
    "What is kept of jobs": CACHE_ROWS,
    "Packages": PACKAGE_ROWS,
    "Doors": DOOR_ROWS,
}


def settings_page() -> str:
    """Write the whole page, as Markdown."""
    defaults = [row for row in LIMIT_ROWS if not row.name.startswith("max_")]
    maxima = [row for row in LIMIT_ROWS if row.name.startswith("max_")]
    parts = [_HEAD]
    for title, rows in _GROUPS.items():
        parts += [f"\n## {title}\n\n", *_table(rows)]
    parts += ["\n## Limits\n", _LIMITS]
    parts += ["\n", *_table([*defaults, OVERRIDES_ROW]), "\n### Maxima\n\n", *_table(maxima)]
    return "".join(parts)


def _table(rows: Iterable[Row]) -> list[str]:
    lines = ["| setting | default | what | allowed | other names |\n", "| --- | --- | --- | --- | --- |\n"]
    for row in rows:
        names = ", ".join([*(f"`{alias}`" for alias in row.aliases), *(f"*`{key}`*" for key in row.file_keys)])
        lines.append(f"| `{row.name}` | {_shown(row, row.default)} | {row.help} | {row.allowed} | {names} |\n")
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
