"""docs/reference/settings.md, written from the declarations of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from textwrap import fill

from firebox.settings.declaration import Setting
from firebox.settings.other_systems.aliases import Runner
from firebox.settings.settings_table import TABLE

_WIDTH = 130

_HEAD = """\
# Settings

<!-- Written by `make docs` from the declarations in src/firebox/settings/settings_table.py: edit them there. -->

The value of a setting comes from the first of these sources that has one:

1. a flag: `firebox serve --run-wall-ms 5s`
2. the environment: `FIREBOX_RUN_WALL_MS=5s`
3. an environment variable of another system, named after *Also* below: `PISTON_RUN_TIMEOUT=5000`; see
   [moving](../operate/moving.md)
4. the file named by `--config` or `FIREBOX_CONFIG`: TOML with the names below (`run_wall_ms = "5s"`), or a `.yaml` or `.yml` file
   of Runner, whose keys are in *italics* below
5. the TOML file `firebox.toml` in `data_dir`, which cannot set `data_dir` itself
6. the default

`firebox settings` prints every value and its source. Tokens and passwords are hidden there, in error messages and in the log.

* Sizes are in bytes or have a unit: `65536`, `64KiB`, `64k`, `64m`, `2GiB` (powers of 1024); `64KB`, `64MB` (powers of 1000).
* Times are in the unit in the setting's name or have one: `1500ms`, `3s`, `5m`, `1h`.
* An invalid value stops the server with an error that names the setting, the value, its source and what is allowed. So does an
  unknown name in the TOML file. Unknown `FIREBOX_` and `PISTON_` variables and unknown keys in Runner's file cause a warning.

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

_INTRODUCTIONS = {
    "Default limits": """\
A request may set its own limits, up to the maximum. A limit that it does not set comes from the first of these that has it:
`limit_overrides` for the package or language, the setting here, the runtime's definition (javac needs more time than most), the
default. 0 means no limit for `cpu_ms` and `memory_bytes`, and no maximum for all `max_` settings. If you set only one of a limit
and its maximum and they contradict each other, the other one follows.

"""
}


def settings_page() -> str:
    sections = groupby(TABLE, lambda setting: setting.section)
    return _HEAD + "".join(
        f"\n## {title}\n\n{_INTRODUCTIONS.get(title, '')}" + "".join(map(_entry, settings)) for title, settings in sections
    )


def _entry(setting: Setting) -> str:
    return fill(" ".join(_sentences(setting)), _WIDTH, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False) + "\n"


def _sentences(setting: Setting) -> Iterator[str]:
    default = f" (default `{setting.default_text}`)" if setting.default_text else ""
    has_range = setting.minimum or setting.maximum or setting.least > 1
    yield f"**`{setting.name}`**{default}: {setting.help}"
    if setting.choices:
        yield f"Allowed: {', '.join(f'`{choice}`' for choice in setting.choices)}."
    elif isinstance(setting.default, int) and setting.kind != "bool" and has_range:
        yield f"Allowed: {setting.range}."
    names = [f"*`{alias.name}`*" if isinstance(alias, Runner) else f"`{alias.name}`" for alias in setting.aliases]
    if names:
        yield f"Also {', '.join(names)}."
