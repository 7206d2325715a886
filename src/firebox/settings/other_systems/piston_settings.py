"""Piston's limit overrides: they are named like its environment variables, in lower case and without the prefix."""

from __future__ import annotations

from collections.abc import Mapping

from firebox.domain.limits import LIMIT_NAMES, STAGES
from firebox.settings.other_systems.aliases import Piston, piston_memory
from firebox.settings.settings_table import ROWS

PREFIX = Piston.prefix


def override_names(key: str) -> list[str]:
    """Return the limits that an override such as `run_timeout` sets, or the key itself if Piston has no such override."""
    limits = [f"{stage}_{limit}" for stage in STAGES for limit in LIMIT_NAMES if limit != "output_mode"]
    return [name for name in limits if key in {alias.name.removeprefix(PREFIX).lower() for alias in ROWS[name].aliases}] or [key]


def override_value(name: str, value: object) -> object:
    """Translate the value of an override. name: the limit that it sets."""
    return piston_memory(value) if name.endswith("memory_bytes") else value


def translate_overrides(overrides: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    """Translate the overrides of each language. A limit that is configured in Piston is the default and the maximum at once."""
    result: dict[str, dict[str, object]] = {}
    for language, limits in overrides.items():
        translated = {name: override_value(name, value) for key, value in limits.items() for name in override_names(key)}
        result[language] = translated | {f"max_{name}": value for name, value in translated.items()}
    return result
