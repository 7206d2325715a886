"""Runner's YAML file, read as our settings: named by `--config`, `FIREBOX_CONFIG` or, as in Runner, `CONFIG_PATH`.

The settings declare its keys: `grpc.timeout` is `timeout` in the mapping `grpc`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import yaml

from firebox.domain.errors import SettingsError
from firebox.domain.redaction import HIDDEN
from firebox.settings.declaration import Given, unreadable
from firebox.settings.other_systems.aliases import Runner
from firebox.settings.settings_table import ROWS, TABLE

MAX_BYTES = 1 << 20

_ALIASES = [(alias, setting) for setting in TABLE for alias in setting.aliases if isinstance(alias, Runner)]
_KEYS = {alias.name for alias, _setting in _ALIASES}
_GROUPS = {key[:end] for key in _KEYS for end, letter in enumerate(key) if letter == "."}


def read_runner_file(path: Path, warnings: list[str]) -> dict[str, Given]:
    """Read the settings in the file, and add a warning for each key without effect: Runner ignores unknown keys.

    Raises: SettingsError for a file that cannot be read, and for a value that Runner would reject too.
    """
    given: dict[str, Given] = {}
    for key, value in _flatten(_load(path)):
        source = f"file {path} ({key})"
        if key in _GROUPS and value is not None:
            raise SettingsError(key, value=HIDDEN, allowed="a mapping", source=source)
        if key not in _KEYS | _GROUPS:
            hint = ": YAML files are read as Runner's; use TOML" if key in ROWS else ""
            warnings.append(f"{key} in {path} is not supported and has no effect{hint}")
        elif value is not None and value != "":
            for alias, setting in _ALIASES:
                if alias.name == key:
                    given[setting.name] = Given(setting.translate(alias, value, source), source)
    return given


def _load(path: Path) -> Mapping[object, object]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        if len(text) > MAX_BYTES:
            raise ValueError("too large")
        content: object = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The library's message quotes the file, passwords included: only the line number is safe to show.
        mark = getattr(error, "problem_mark", None)
        hint = f"line {mark.line + 1}" if mark is not None else ""
        raise SettingsError("config", value=str(path), allowed=f"a YAML file of at most {MAX_BYTES} bytes", hint=hint) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError("config", value=str(path), allowed="a YAML file with a mapping of settings")
    return cast("Mapping[object, object]", content)


def _flatten(content: Mapping[object, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield each key, with its groups before it, and its value. Unknown groups are not entered: they may repeat without end."""
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key in _GROUPS and isinstance(value, dict):
            yield from _flatten(cast("Mapping[object, object]", value), f"{key}.")
        else:
            yield key, value
