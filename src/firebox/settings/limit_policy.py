"""The limit policy as a plain value, made from the settings."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from firebox.domain.limits import NUMBER_NAMES, STAGES, LimitPolicy, Limits, StageName
from firebox.settings.settings import Settings

NO_MAXIMA = {f"max_{stage}_{name}": 0 for stage in STAGES for name in NUMBER_NAMES}
OF_ONE_RUN = {**NO_MAXIMA, "ready_sandboxes": 0, "slots": 1, "launchers": 1}
"""Settings of a person who runs one program on a machine of their own: no maximum but the machine."""


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
