"""Runner's YAML file, read as our settings: named by `--config`, `FIREBOX_CONFIG` or, as there, `CONFIG_PATH`.

```yaml
env: prod                       # log_level, log_format
db_uri: postgres://user:password@db:5432/runner      # database_url
redis_addr: redis:6379          # redis_url
prometheus_addr: 0.0.0.0:9100   # metrics_port
grpc: {port: 44000, timeout: 5s}                     # grpc_port, runner_timeout_ms
clients: {sso: {address: sso:44044, timeout: 5s, retriesCount: 3}}   # sso_address, sso_timeout_ms, sso_retries
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import cast

from firebox.domain.errors import SettingsError
from firebox.domain.redaction import HIDDEN, hide_secret
from firebox.settings.other_systems.result import Found, no_effect

SYSTEM = "Runner"
FILE_VARIABLE = "CONFIG_PATH"
SUFFIXES = (".yaml", ".yml")

MOST_BYTES = 1 << 20
_SECRET = {"db_uri", "redis_addr"}
_GROUPS = {"grpc", "clients", "clients.sso"}
_ENVIRONMENTS = {"local": ("text", "debug"), "dev": ("json", "debug"), "prod": ("json", "info")}
_UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def read_file(path: Path, known: Mapping[str, object]) -> Found:
    """Translate the file. known: our own settings by name, to tell somebody who wrote these as YAML.

    Names without meaning here get a warning, as the reference ignores them.
    Raises: SettingsError for a file that cannot be read, and for a value that Runner would refuse too.
    """
    found = Found()
    for key, value in _walk(_load(path)):
        if key in _GROUPS and value is None:
            continue
        if key in _GROUPS:
            raise SettingsError(key, HIDDEN, "a mapping", source=_source(path, key))
        if key not in _READERS:
            found.warnings.append(_about_unknown(path, key, known))
        elif value is not None and value != "":
            try:
                values = _READERS[key](value)
            except ValueError:
                shown = hide_secret(value, key in _SECRET)
                raise SettingsError(NAMES[key][0], shown, _ALLOWED[key], source=_source(path, key)) from None
            found.values.update({setting: (item, key) for setting, item in values.items()})
    return found


def _source(path: Path, key: str) -> str:
    return f"file {path} ({key})"


def _about_unknown(path: Path, key: str, known: Mapping[str, object]) -> str:
    name = f"{key} in {path}"
    return no_effect(name, "a YAML file is read as Runner's; Firebox's own is TOML") if key in known else no_effect(name)


def _load(path: Path) -> Mapping[object, object]:
    # Only who brings such a file waits for its reader.
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SettingsError("config", str(path), "a file that can be read", hint=f"{error.strerror}") from None
    try:
        if len(text) > MOST_BYTES:
            raise ValueError("too large")
        content: object = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The library's own words quote the file, passwords included: only the place is told.
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else ""
        raise SettingsError("config", str(path), f"a YAML file of at most {MOST_BYTES} bytes", hint=where) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError("config", str(path), "a YAML file with a mapping of settings")
    return cast("Mapping[object, object]", content)


def _walk(content: Mapping[object, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield each key with its groups before it, and its value. Only groups that mean something are looked into."""
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key in _GROUPS and isinstance(value, dict):
            yield from _walk(cast("Mapping[object, object]", value), f"{key}.")
        else:
            yield key, value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value.strip()


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(value)
    return value


def _environment(value: object) -> dict[str, object]:
    try:
        log_format, log_level = _ENVIRONMENTS[_text(value).lower()]
    except KeyError:
        raise ValueError(value) from None
    return {"log_level": log_level, "log_format": log_format}


def _database(value: object) -> dict[str, object]:
    uri = _text(value)
    return {"database_url": "postgresql://" + uri.removeprefix("postgres://") if uri.startswith("postgres://") else uri}


def _redis(value: object) -> dict[str, object]:
    address = _text(value)
    if "://" not in address:
        address = f"redis://{'localhost' if address.startswith(':') else ''}{address}/0"
    return {"redis_url": address}


def _metrics(value: object) -> dict[str, object]:
    """`host:port`, `:port` or a port; where the metrics are listened for is `host`'s business here."""
    return {"metrics_port": _number(value) if isinstance(value, int) else _text(value).rpartition(":")[2]}


def duration_ms(value: object) -> int:
    """Read a duration the way Go writes it (`5s`, `1m30s`, `1.5h`); a plain number counts nanoseconds, as in Go's YAML.

    Returns: milliseconds, rounded up. Raises: ValueError.
    Source: Go's package time, "ParseDuration".
    """
    from fractions import Fraction  # takes longer to load than all of this module, which every command loads

    if isinstance(value, int) and not isinstance(value, bool):
        total = Fraction(value)
    else:
        text = _text(value).removeprefix("+")
        parts = list(_PART.finditer(text))
        if "".join(part[0] for part in parts) != text or not parts:
            raise ValueError(value)
        total = sum((Fraction(part[1].strip() or "0") * _UNITS_NS[part[2]] for part in parts), Fraction(0))
    if total < 0:
        raise ValueError(value)
    return ceil(total / 10**6)


NAMES: Mapping[str, tuple[str, ...]] = {
    "env": ("log_level", "log_format"),
    "db_uri": ("database_url",),
    "redis_addr": ("redis_url",),
    "prometheus_addr": ("metrics_port",),
    "grpc.port": ("grpc_port",),
    "grpc.timeout": ("runner_timeout_ms",),
    "clients.sso.address": ("sso_address",),
    "clients.sso.timeout": ("sso_timeout_ms",),
    "clients.sso.retriesCount": ("sso_retries",),
}
"""Runner's keys, and the settings each decides."""

_READERS: Mapping[str, Callable[[object], dict[str, object]]] = {
    "env": _environment,
    "db_uri": _database,
    "redis_addr": _redis,
    "prometheus_addr": _metrics,
    "grpc.port": lambda value: {"grpc_port": _number(value)},
    "grpc.timeout": lambda value: {"runner_timeout_ms": duration_ms(value)},
    "clients.sso.address": lambda value: {"sso_address": _text(value)},
    "clients.sso.timeout": lambda value: {"sso_timeout_ms": duration_ms(value)},
    "clients.sso.retriesCount": lambda value: {"sso_retries": _number(value)},
}

_DURATION = "a duration such as 5s or 1m30s"
_ALLOWED: Mapping[str, str] = {
    "env": "local, dev or prod",
    "db_uri": "the address of a database",
    "redis_addr": "HOST:PORT",
    "prometheus_addr": "HOST:PORT",
    "grpc.port": "a port",
    "grpc.timeout": _DURATION,
    "clients.sso.address": "HOST:PORT",
    "clients.sso.timeout": _DURATION,
    "clients.sso.retriesCount": "a number",
}
