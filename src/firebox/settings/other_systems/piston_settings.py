"""Piston's environment names, read as our settings: someone moving over sets the same names and gets the same limits.

In Piston a configured limit is the default and the maximum at once, so most names set two settings here.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from firebox.domain.errors import SettingsError
from firebox.settings.other_systems.result import Found, no_effect
from firebox.settings.settings_table import STAGES, TABLE

SYSTEM = "Piston"
PREFIX = "PISTON_"

_LOG_LEVELS = {"none": "critical", "error": "error", "warn": "warning", "info": "info", "debug": "debug", "trace": "debug"}
_OVERRIDE_NAMES = {"timeout": "wall_ms", "cpu_time": "cpu_ms", "memory_limit": "memory_bytes"}
_SHARED_OVERRIDE_NAMES = {
    "max_process_count": "processes",
    "max_open_files": "open_files",
    "max_file_size": "file_size_bytes",
    "output_max_size": "output_bytes",
}


def read_environment(environ: Mapping[str, str]) -> Found:
    """Translate the PISTON_ names that are set, and warn of each one that has no meaning here.

    Empty values count as not set. Raises: SettingsError for a value that Piston would refuse too.
    """
    settings: dict[str, list[str]] = {}
    for row in TABLE:
        for alias in row.aliases:  # Of other systems too: only Piston's prefix is looked for below.
            settings.setdefault(alias, []).append(row.name)
    found = Found()
    for variable, value in sorted(environ.items()):
        if not variable.startswith(PREFIX) or not value:
            continue
        if variable in settings:
            items = _translate(variable, value, settings[variable])
            found.values.update({name: (item, variable) for name, item in items.items()})
        elif variable == "PISTON_DISABLE_NETWORKING":
            if value.strip().lower() != "true":
                found.warnings.append(f"{variable} is {value!r} and has no effect: programs never get a network here")
        else:
            found.warnings.append(no_effect(variable))
    return found


def _translate(variable: str, value: str, names: list[str]) -> dict[str, object]:
    match variable:
        case "PISTON_BIND_ADDRESS":
            return _address(value)
        case "PISTON_LIMIT_OVERRIDES":
            return {"limit_overrides": _overrides(variable, value)}
        case "PISTON_LOG_LEVEL":
            return {"log_level": _LOG_LEVELS.get(value.strip().lower(), value)}
        case "PISTON_OUTPUT_MAX_SIZE":
            return {name: "kill" if name.endswith("output_mode") else value for name in names}
        case _:
            return {name: override_value(name, value) for name in names}


def _address(value: str) -> dict[str, object]:
    """Split `host:port`; the host may be an IPv6 address in brackets, the port may be missing."""
    host, colon, port = value.strip().rpartition(":")
    if not colon or port.endswith("]"):
        host, port = value.strip(), ""
    address: dict[str, object] = {"host": host.strip("[]")}
    return {**address, "port": port} if port else address


def override_value(name: str, value: object) -> object:
    """-1 is "none" in Piston, for memory; 0 is here."""
    return 0 if name.endswith("memory_bytes") and str(value).strip() == "-1" else value


def _overrides(variable: str, value: str) -> dict[str, dict[str, object]]:
    """Translate `{"c++": {"run_timeout": 5000, "max_file_size": 1000}}`."""
    try:
        languages = msgspec.json.decode(value, type=dict[str, dict[str, object]])
    except (msgspec.DecodeError, UnicodeError):
        source = f"environment {variable}"
        raise SettingsError("limit_overrides", value, "a JSON object of objects", source=source) from None
    result: dict[str, dict[str, object]] = {}
    for language, limits in languages.items():
        result[language] = {}
        for key, limit in limits.items():
            for name in override_names(key):
                result[language] |= {name: override_value(name, limit), "max_" + name: override_value(name, limit)}
    return result


def override_names(key: str) -> list[str]:
    """Give the settings a Piston name of an override stands for; an unknown one stands for itself, to be refused by name."""
    if key in _SHARED_OVERRIDE_NAMES:
        return [f"{stage}_{_SHARED_OVERRIDE_NAMES[key]}" for stage in STAGES]
    stage, _, rest = key.partition("_")
    if stage in STAGES and rest in _OVERRIDE_NAMES:
        return [f"{stage}_{_OVERRIDE_NAMES[rest]}"]
    return [key]
