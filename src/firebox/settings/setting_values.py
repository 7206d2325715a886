"""How the value of a setting is read, whether it comes from a flag, the environment or TOML.

| kind      | reads                                                                 | becomes |
| --------- | --------------------------------------------------------------------- | ------- |
| int       | 12, "12"                                                              | int     |
| bytes     | 65536, "64KiB", "64k" (1024 each), "64KB" (1000 each)                 | int     |
| ms, s     | 1500, "1500ms", "2s", "5m", "1h"; a plain number is in the kind's unit | int     |
| bool      | true, false, yes, no, on, off, 1, 0                                   | bool    |
| text      | any text                                                              | str     |
| path      | a path; a leading ~ is the home folder                                | Path    |
| modules   | a table per language of names, "python:json,re perl:POSIX"            | mapping |
| levels    | a table per language of cache levels, "python:output c:none"          | mapping |
| overrides | a table per language of limit settings and their values               | mapping |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from firebox.domain.model import CacheLevel

Kind = Literal["int", "bytes", "ms", "s", "bool", "text", "path", "modules", "levels", "overrides"]
Value = int | str | bool | Path | Mapping[str, str] | Mapping[str, tuple[str, ...]] | Mapping[str, Mapping[str, object]]

_SIZES = {
    "": 1,
    "b": 1,
    **{letter: 1024**power for power, letter in enumerate("kmgt", start=1)},
    **{letter + "ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
    **{letter + "b": 1000**power for power, letter in enumerate("kmgt", start=1)},
}
_DURATIONS_MS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000}
_YES, _NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
_MODULE = re.compile(r"[\w@][\w.:/@-]{0,99}", re.ASCII)
_NUMBER = re.compile(r"\s*(-?\d{1,18})(?:\.(\d{1,9}))?\s*([a-zA-Z]*)\s*", re.ASCII)


def read_value(kind: Kind, value: object) -> Value:
    """Turn a value into the kind's type. Raises: ValueError; RuntimeError for the home folder of nobody."""
    return _READERS[kind](value)


def allowed_values(kind: Kind, minimum: int, maximum: int | None, least: int = 0) -> str:
    """Say in words which values are allowed. maximum: None for no upper bound; least: the lowest besides a minimum of 0."""
    span = f"from {minimum} to {maximum}" if maximum is not None else f"{minimum} or more"
    if minimum < least - 1:
        span = f"{minimum}, or {least} or more"
    return {
        "int": f"a whole number, {span}",
        "bytes": f"a size in bytes, {span}, also written like 64MiB or 64m",
        "ms": f"milliseconds, {span}, also written like 3s or 500ms",
        "s": f"seconds, {span}, also written like 10m or 1h",
        "bool": "true or false",
        "text": "text",
        "path": "a path",
        "modules": "for each language names of modules, such as python:json,re",
        "levels": "for each language or package none, binary or output, such as python:output",
        "overrides": "for each language or package a table of limit settings such as run_memory_bytes",
    }[kind]


def _whole(value: object, units: Mapping[str, int], plain: int = 1) -> int:
    """Read a whole number with an optional unit. plain: what a number without unit counts."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value * plain
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(value)
    unit, part = match[3].lower(), match[2] or ""
    factor = units.get(unit, 0) if unit else plain
    if factor == 0 or (part and not unit):
        raise ValueError(value)
    return int(match[1]) * factor + (int(part) * factor // 10 ** len(part) if part else 0)


def _int(value: object) -> int:
    return _whole(value, {})


def _bytes(value: object) -> int:
    return _whole(value, _SIZES)


def _milliseconds(value: object) -> int:
    return _whole(value, _DURATIONS_MS)


def _seconds(value: object) -> int:
    total_ms = _whole(value, _DURATIONS_MS, plain=1000)
    if total_ms % 1000:
        raise ValueError(value)
    return total_ms // 1000


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
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
    try:
        languages = msgspec.convert(value, dict[str, tuple[str, ...]])
    except msgspec.ValidationError:
        raise ValueError(value) from None
    if not all(_MODULE.fullmatch(name) for names in languages.values() for name in names):
        raise ValueError(value)
    return {language.lower(): names for language, names in languages.items()}


def _levels(value: object) -> Mapping[str, str]:
    if isinstance(value, str):
        words = [word.rpartition(":") for word in value.split()]
        value = {name: level for name, _colon, level in words if name}
        if len(value) != len(words):
            raise ValueError(value)
    try:
        levels = msgspec.convert(value, dict[str, CacheLevel])
    except msgspec.ValidationError:
        raise ValueError(value) from None
    return {name.lower(): level for name, level in levels.items()}


def _overrides(value: object) -> Mapping[str, Mapping[str, object]]:
    """Check the shape only: each limit is read by the row of its name."""
    try:
        languages = msgspec.convert(value, dict[str, dict[str, object]])
    except msgspec.ValidationError:
        raise ValueError(value) from None
    return {language.lower(): limits for language, limits in languages.items()}


_READERS: Mapping[Kind, Callable[[object], Value]] = {
    "int": _int,
    "bytes": _bytes,
    "ms": _milliseconds,
    "s": _seconds,
    "bool": _bool,
    "text": _text,
    "path": _path,
    "modules": _modules,
    "levels": _levels,
    "overrides": _overrides,
}
