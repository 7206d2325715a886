"""How the value of a setting is read from a flag, the environment or TOML.

| kind      | reads                                                                  | becomes |
| --------- | ---------------------------------------------------------------------- | ------- |
| int       | 12, "12"                                                               | int     |
| bytes     | 65536, "64KiB", "64k" (1024 each), "64KB" (1000 each)                  | int     |
| ms, s     | 1500, "1500ms", "2s", "5m", "1h"; a plain number is in the kind's unit | int     |
| bool      | true, false, yes, no, on, off, 1, 0                                    | bool    |
| text      | any printable text                                                     | str     |
| path      | a path; a leading ~ is the home folder                                 | Path    |
| modules   | a table of module names by language, "python:json,re perl:POSIX"       | mapping |
| levels    | a table of cache levels by language or package, "python:output c:none" | mapping |
| overrides | a table of limit settings by language or package                       | mapping |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from firebox.domain.model import CacheLevel

Kind = Literal["int", "bytes", "ms", "s", "bool", "text", "path", "modules", "levels", "overrides"]
Value = int | str | bool | Path | Mapping[str, str] | Mapping[str, tuple[str, ...]] | Mapping[str, Mapping[str, Any]]

_SUFFIXES = {"": 1024, "ib": 1024, "b": 1000}
_SIZES = {letter + suffix: base**power for power, letter in enumerate("kmgt", 1) for suffix, base in _SUFFIXES.items()} | {"b": 1}
_DURATIONS_MS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000}
_YES, _NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
# Compiled when first used: most commands read no such text.
_MODULE = r"[\w@][\w.:/@-]{0,99}"
_NUMBER = r"\s*(-?\d{1,18})(?:\.(\d{1,9}))?\s*([a-zA-Z]*)\s*"


def _number(value: object, units: Mapping[str, int], default_unit: int = 1) -> int:
    """Read a whole number with an optional unit. default_unit: the factor of a number without a unit."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value * default_unit
    match = re.fullmatch(_NUMBER, value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError(value)
    unit, fraction = match[3].lower(), match[2] or ""
    factor = units.get(unit, 0) if unit else default_unit
    if factor == 0 or (fraction and not unit):
        raise ValueError(value)
    return int(match[1]) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)


def _seconds(value: object) -> int:
    total_ms = _number(value, _DURATIONS_MS, default_unit=1000)
    if total_ms % 1000:
        raise ValueError(value)
    return total_ms // 1000


def _bool(value: object) -> bool:
    word = str(value).strip().lower() if isinstance(value, str | bool) else ""
    if word not in _YES | _NO:
        raise ValueError(value)
    return word in _YES


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(value)
    return value.strip()


def _path(value: object) -> Path:
    text = str(value) if isinstance(value, Path) else _text(value)
    if not text:
        raise ValueError(value)
    return Path(text).expanduser()


def _modules(value: object) -> Mapping[str, tuple[str, ...]]:
    if isinstance(value, str):
        words = [word.partition(":") for word in value.split()]
        value = {language: names.split(",") for language, _colon, names in words}
    modules = _by_language(value, tuple[str, ...])
    if not all(re.fullmatch(_MODULE, name, re.ASCII) for names in modules.values() for name in names):
        raise ValueError(value)
    return modules


def _levels(value: object) -> Mapping[str, str]:
    if isinstance(value, str):
        words = [word.rpartition(":") for word in value.split()]
        value = {name: level for name, _colon, level in words if name}
        if len(value) != len(words):
            raise ValueError(value)
    return _by_language(value, CacheLevel)


def _by_language(value: object, type_: Any) -> Mapping[str, Any]:
    try:
        return {name.lower(): item for name, item in msgspec.convert(value, dict[str, type_]).items()}
    except msgspec.ValidationError:
        raise ValueError(value) from None


# fmt: off
KINDS: Mapping[Kind, tuple[Callable[[object], Value], str]] = {
    "int": (lambda value: _number(value, {}), "a whole number, {range}"),
    "bytes": (lambda value: _number(value, _SIZES), "a size in bytes, {range}, also written like 64MiB or 64m"),
    "ms": (lambda value: _number(value, _DURATIONS_MS), "milliseconds, {range}, also written like 3s or 500ms"),
    "s": (_seconds, "seconds, {range}, also written like 10m or 1h"),
    "bool": (_bool, "true or false"),
    "text": (_text, "text"),
    "path": (_path, "a path"),
    "modules": (_modules, "module names by language, such as python:json,re"),
    "levels": (_levels, "none, binary or output by language or package, such as python:output"),
    "overrides": (lambda value: _by_language(value, dict[str, Any]),  # each limit is read later, as the setting of that name
        "a table of limit settings such as run_memory_bytes by language or package"),
}
# fmt: on
"""The function that parses a value of each kind, and what it allows; {range} stands for the allowed numbers.

A function raises ValueError, or RuntimeError for the home folder of an unknown user.
"""
