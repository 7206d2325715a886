"""Limits in the settings: overrides by language, defaults that fit their maxima, and the policy that is made of all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import msgspec

from firebox.domain.errors import SettingsError
from firebox.domain.limits import LIMIT_NAMES, NUMBER_NAMES, STAGES, LimitPolicy, Limits, StageName, exceeds
from firebox.settings.declaration import Given
from firebox.settings.settings_table import ROWS, nearest

if TYPE_CHECKING:
    from firebox.settings.settings import Settings

_STAGE_LIMITS = tuple(f"{stage}_{limit}" for stage in STAGES for limit in LIMIT_NAMES)
LIMIT_SETTINGS = tuple(name for limit in _STAGE_LIMITS for name in (limit, f"max_{limit}") if name in ROWS)
NO_MAXIMA = {f"max_{stage}_{name}": 0 for stage in STAGES for name in NUMBER_NAMES}
OF_ONE_RUN = {**NO_MAXIMA, "ready_sandboxes": 0, "slots": 1, "launchers": 1}
"""Settings of a person who runs one program on a machine of their own: no maximum but the machine."""


def read_overrides(given: Given) -> dict[str, dict[str, int | str]]:
    """Parse the limits of each language or package. Raises: SettingsError."""
    overrides = cast("Mapping[str, Mapping[str, object]]", ROWS["limit_overrides"].read_given(given))
    result: dict[str, dict[str, int | str]] = {language: {} for language in overrides}
    for language, limits in overrides.items():
        for name, value in limits.items():
            setting = f"limit_overrides.{language}.{name}"
            if name not in LIMIT_SETTINGS:
                allowed, hint = "a limit setting such as run_memory_bytes", nearest(name, LIMIT_SETTINGS)
                raise SettingsError(setting, value=value, allowed=allowed, source=given.source, hint=hint)
            result[language][name] = cast("int | str", ROWS[name].read_given(Given(value, given.source), setting))
    return result


def reconcile_maxima(values: dict[str, Any], given: Mapping[str, Given]) -> None:
    """Reject a default above its maximum if the operator set both; otherwise the one left unset follows the other.

    values: by setting, without those left at their default.
    """
    for name, maximum_name in ((name, f"max_{name}") for name in _STAGE_LIMITS if f"max_{name}" in ROWS):
        default: Any = values.get(name, ROWS[name].default)
        maximum: Any = values.get(maximum_name, ROWS[maximum_name].default)
        if exceeds(default, maximum=maximum):
            if name in given and maximum_name in given:
                raise _too_high(name, default, maximum_name, maximum, given[name].source)
            default = maximum = maximum if maximum_name in given else default
            values |= {name: default, maximum_name: maximum}
        for language, limits in values.get("limit_overrides", {}).items():
            wanted = limits.get(name, default)
            if name in limits and maximum_name not in limits and exceeds(wanted, maximum=maximum):
                limits[maximum_name] = wanted
            elif maximum_name in limits and exceeds(wanted, maximum=limits[maximum_name]):
                if name in limits:
                    setting, source = f"limit_overrides.{language}.{name}", given["limit_overrides"].source
                    raise _too_high(setting, wanted, maximum_name, limits[maximum_name], source)
                limits[name] = limits[maximum_name]


def _too_high(setting: str, wanted: int, maximum_name: str, maximum: object, source: str) -> SettingsError:
    return SettingsError(setting, value=wanted, allowed=f"at most {maximum_name}, which is {maximum}", source=source)


@lru_cache(maxsize=16)
def limit_policy(settings: Settings) -> LimitPolicy:
    """Return the policy of a server. The same settings return the same object."""
    return LimitPolicy(
        defaults={stage: _limits(settings, stage, "") for stage in STAGES},
        maxima={stage: _limits(settings, stage, "max_") for stage in STAGES},
        overrides=settings.limit_overrides,
        chosen=frozenset(name for name in settings.limits if settings.source(name) != "default"),
        interactive_wall_ms=settings.interactive_wall_ms,
        interactive_cpu_ms=settings.interactive_cpu_ms,
    )


def _limits(settings: Settings, stage: StageName, prefix: str) -> Limits:
    values = {name: settings.limits[f"{prefix}{stage}_{name}"] for name in NUMBER_NAMES}
    return msgspec.convert({**values, "output_mode": settings.limits[f"{stage}_output_mode"]}, Limits)
