"""The limits of a stage, as default, maximum and override settings decide them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

import msgspec

from firebox.domain.errors import SettingsError
from firebox.domain.model import LimitRequest, Limits, OutputMode, StageName
from firebox.settings.declaration import Given
from firebox.settings.settings_table import LIMIT_NAMES, ROWS, STAGES, SettingsTable, nearest

_STAGE_LIMITS = tuple(f"{stage}_{limit}" for stage in STAGES for limit in LIMIT_NAMES)


@lru_cache(maxsize=4096)  # every request needs them
def default_limits(settings: SettingsTable, stage: StageName, names: tuple[str, ...], runtime: LimitRequest) -> Limits:
    """See `Settings.default_limits`."""
    limits = _limits(settings, f"{stage}_")
    maxima = maximum_limits(settings, stage, names)
    for name in LIMIT_NAMES:
        wanted = getattr(runtime, name)
        if wanted is not None and f"{stage}_{name}" not in settings.sources:
            limits[name] = _capped(wanted, getattr(maxima, name))
    return msgspec.convert(limits | _overrides(settings, f"{stage}_", names), Limits)


@lru_cache(maxsize=4096)
def maximum_limits(settings: SettingsTable, stage: StageName, names: tuple[str, ...]) -> Limits:
    """See `Settings.maximum_limits`."""
    maxima = _limits(settings, f"max_{stage}_") | _overrides(settings, f"max_{stage}_", names)
    return msgspec.convert(maxima | {"output_mode": getattr(settings, f"{stage}_output_mode")}, Limits)


def _limits(settings: SettingsTable, prefix: str) -> dict[str, Any]:
    return {name: getattr(settings, prefix + name) for name in LIMIT_NAMES if prefix + name in ROWS}


def _overrides(settings: SettingsTable, prefix: str, names: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        for key, value in settings.limit_overrides.get(name.lower(), {}).items():
            if key.startswith(prefix):
                found.setdefault(key.removeprefix(prefix), value)
    return found


def _capped(wanted: Any, maximum: Any) -> Any:
    """Return a limit, lowered to its maximum. 0 means no limit, or no maximum."""
    if isinstance(wanted, OutputMode) or not maximum:
        return wanted
    return min(wanted, maximum) if wanted else maximum


def read_overrides(given: Given) -> dict[str, dict[str, int | str]]:
    """Parse the limits of each language or package. Raises: SettingsError."""
    names = [name for stage_limit in _STAGE_LIMITS for name in (stage_limit, f"max_{stage_limit}") if name in ROWS]
    overrides = cast("Mapping[str, Mapping[str, object]]", ROWS["limit_overrides"].read_given(given))
    result: dict[str, dict[str, int | str]] = {language: {} for language in overrides}
    for language, limits in overrides.items():
        for name, value in limits.items():
            setting = f"limit_overrides.{language}.{name}"
            if name not in names:
                hint = nearest(name, names)
                raise SettingsError(setting, value, "a limit setting such as run_memory_bytes", source=given.source, hint=hint)
            result[language][name] = cast("int | str", ROWS[name].read_given(Given(value, given.source), setting))
    return result


def reconcile_maxima(values: dict[str, Any], given: Mapping[str, Given]) -> None:
    """Reject a default above its maximum if the operator set both; otherwise the one left unset follows the other.

    values: by setting, without those left at their default.
    """
    for name, maximum_name in ((name, f"max_{name}") for name in _STAGE_LIMITS if f"max_{name}" in ROWS):
        default: Any = values.get(name, ROWS[name].default)
        maximum: Any = values.get(maximum_name, ROWS[maximum_name].default)
        if _exceeds(default, maximum):
            if name in given and maximum_name in given:
                raise _too_high(name, default, maximum_name, maximum, given[name].source)
            default = maximum = maximum if maximum_name in given else default
            values |= {name: default, maximum_name: maximum}
        for language, limits in values.get("limit_overrides", {}).items():
            wanted = limits.get(name, default)
            if name in limits and maximum_name not in limits and _exceeds(wanted, maximum):
                limits[maximum_name] = wanted
            elif maximum_name in limits and _exceeds(wanted, limits[maximum_name]):
                if name in limits:
                    setting, source = f"limit_overrides.{language}.{name}", given["limit_overrides"].source
                    raise _too_high(setting, wanted, maximum_name, limits[maximum_name], source)
                limits[name] = limits[maximum_name]


def _too_high(setting: str, wanted: int, maximum_name: str, maximum: object, source: str) -> SettingsError:
    return SettingsError(setting, wanted, f"at most {maximum_name}, which is {maximum}", source=source)


def _exceeds(wanted: int, maximum: int) -> bool:
    return maximum != 0 and (wanted == 0 or wanted > maximum)
