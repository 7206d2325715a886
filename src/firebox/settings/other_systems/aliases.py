"""Names that other systems use for our settings, and functions that translate their values.

A function gets the value as the other system writes it. It returns what `Setting.read` understands, or None if the value does
not decide the setting. For a value that the other system would reject too it raises ValueError, whose text describes what is
allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct


def unchanged(value: Any) -> Any:
    """Return the value: it means the same here."""
    return value


class Alias(Struct):
    """A name that another system uses for a setting, and the function that translates its values.

    shared: programs other than that system use the name too, so it counts only beside one of the system's own names.
    """

    name: str
    read: Callable[[Any], Any] = unchanged
    shared: bool = False


class Piston(Alias):
    """An environment variable of Piston. "{STAGE}" in the name of a limit stands for COMPILE or RUN."""

    prefix = "PISTON_"


class Glot(Alias):
    """An environment variable of glot-run."""


class Grounds(Alias):
    """An environment variable of grounds-exec."""


class Runner(Alias):
    """A key in Runner's YAML file, with its groups before it: `grpc.port`."""


def piston_host(value: str) -> str:
    """Return the host of `host:port`. It may be an IPv6 address in brackets, and the port may be missing."""
    return _host_and_port(value)[0].strip("[]")


def piston_port(value: str) -> str | None:
    return _host_and_port(value)[1] or None


def _host_and_port(value: str) -> tuple[str, str]:
    host, colon, port = value.strip().rpartition(":")
    return (host, port) if colon and not port.endswith("]") else (value.strip(), "")


def piston_log_level(value: str) -> str:
    levels = {"none": "critical", "error": "error", "warn": "warning", "info": "info", "debug": "debug", "trace": "debug"}
    return levels.get(value.strip().lower(), value)


def piston_memory(value: object) -> object:
    """Translate -1, which is "no limit" in Piston; here that is 0."""
    return 0 if str(value).strip() == "-1" else value


def piston_output_mode(_value: str) -> str:
    """Return the mode that goes with any output limit: Piston kills the program."""
    return "kill"


def piston_overrides(value: str) -> dict[str, dict[str, object]]:
    """Parse `{"c++": {"run_timeout": 5000, "max_file_size": 1000}}`. The names inside stay Piston's."""
    try:
        return msgspec.json.decode(value, type=dict[str, dict[str, object]])
    except (msgspec.DecodeError, UnicodeError):
        raise ValueError("a JSON object of objects") from None


def glot_timeout(value: str) -> str:
    """Add the unit: glot-run counts seconds."""
    return f"{value.strip()}s" if value.strip().isdecimal() else value


def glot_docker_url(value: str) -> str:
    """Translate `http://`, as glot-run treats the engine's API like any other HTTP service."""
    return "tcp://" + value.removeprefix("http://").rstrip("/") if value.startswith("http://") else value


def runner_log_level(value: object) -> str:
    return "info" if _runner_environment(value) == "prod" else "debug"


def runner_log_format(value: object) -> str:
    return "text" if _runner_environment(value) == "local" else "json"


def _runner_environment(value: object) -> str:
    name = _text(value, allowed := "local, dev or prod").lower()
    if name not in {"local", "dev", "prod"}:
        raise ValueError(allowed)
    return name


def runner_database(value: object) -> str:
    return re.sub(r"^postgres://", "postgresql://", _text(value, "the URL of a database"))


def runner_redis(value: object) -> str:
    address = _text(value, "HOST:PORT")
    return address if "://" in address else f"redis://{'localhost' if address.startswith(':') else ''}{address}/0"


def runner_address(value: object) -> str:
    return _text(value, "HOST:PORT")


def runner_metrics_port(value: object) -> object:
    """Return the port of `host:port`, `:port` or a port. The host is that of all listeners here."""
    return runner_number(value) if isinstance(value, int) else _text(value, "HOST:PORT").rpartition(":")[2]


def runner_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a number")
    return value


def go_duration_ms(value: object) -> int:
    """Parse a duration as Go writes it (`5s`, `1m30s`, `1.5h`); a plain number counts nanoseconds, as in Go's YAML.

    Returns: milliseconds, rounded up.
    Source: Go's package time, "ParseDuration".
    """
    from fractions import Fraction  # takes longer to load than all modules of settings

    allowed = "a duration such as 5s or 1m30s"
    if isinstance(value, int) and not isinstance(value, bool):
        total = Fraction(value)
    else:
        text = _text(value, allowed).removeprefix("+")
        parts = re.findall(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ns|us|µs|μs|ms|s|m|h)", text, re.ASCII)
        if "".join(number + unit for number, unit in parts) != text or not parts:
            raise ValueError(allowed)
        total = sum((Fraction(number) * _UNITS_NS[unit] for number, unit in parts), Fraction(0))
    if total < 0:
        raise ValueError(allowed)
    return -int(-total // 10**6)


_UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def _text(value: object, allowed: str) -> str:
    if not isinstance(value, str):
        raise ValueError(allowed)
    return value.strip()
