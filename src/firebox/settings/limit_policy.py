"""The limit policy as a plain value, made from the settings."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from firebox.domain.limits import LIMIT_NAMES, NUMBER_NAMES, STAGES, LimitPolicy, Limits
from firebox.settings.settings import Settings

NO_MAXIMA = {f"max_{stage}_{name}": 0 for stage in STAGES for name in NUMBER_NAMES}
"""Settings of a person who runs programs on a machine of their own: no maximum but the machine."""


@lru_cache(maxsize=16)
def limit_policy(settings: Settings) -> LimitPolicy:
    """Return the policy of a server. The same settings return the same object."""
    names = [*NO_MAXIMA, *(f"{stage}_{name}" for stage in STAGES for name in LIMIT_NAMES)]
    return LimitPolicy(
        defaults={stage: _limits(settings, stage, "") for stage in STAGES},
        maxima={stage: _limits(settings, stage, "max_") for stage in STAGES},
        overrides=settings.limit_overrides,
        chosen=frozenset(name for name in names if settings.source(name) != "default"),
        interactive_wall_ms=settings.interactive_wall_ms,
        interactive_cpu_ms=settings.interactive_cpu_ms,
    )


def _limits(settings: Settings, stage: str, prefix: str) -> Limits:
    values: dict[str, Any] = {name: getattr(settings, f"{prefix}{stage}_{name}") for name in NUMBER_NAMES}
    return msgspec.convert({**values, "output_mode": getattr(settings, f"{stage}_output_mode")}, Limits)
