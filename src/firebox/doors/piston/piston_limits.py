"""Piston's six limits: keys, order of the checks, meaning of -1."""

from __future__ import annotations

from typing import Any, cast

from firebox.domain.errors import InvalidRequest, LimitTooHigh
from firebox.domain.limits import MAX_NUMBER, STAGES, LimitRequest, OutputMode, StageName
from firebox.doors.piston.wire import LIMIT_KEYS
from firebox.runtimes.runtime import Runtime
from firebox.settings.limit_policy import limit_policy
from firebox.settings.other_systems.piston_settings import PREFIX
from firebox.settings.settings import Settings


def read_limits(document: dict[str, Any], runtime: Runtime, settings: Settings) -> tuple[LimitRequest, LimitRequest]:
    """Read the limits of both stages. 0, "", false and null ask for nothing, as in Piston.

    Raises: InvalidRequest, LimitTooHigh.
    """
    policy = limit_policy(settings)
    asked: dict[StageName, dict[str, int]] = {"compile": {}, "run": {}}
    for limit, key in LIMIT_KEYS.items():
        value = document.get(key)
        if not value:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(f"If specified, {key} must be a number")
        stage, name = cast("tuple[StageName, str]", limit.split("."))
        maximum: int = getattr(policy.maximum_limits(stage, runtime), name)
        if value > (maximum or MAX_NUMBER):
            raise LimitTooHigh(limit, asked=value, allowed=maximum or MAX_NUMBER)
        if value < 0:
            decided = _read_negative(key, stage, name, maximum, settings)
            if decided is not None:
                asked[stage][name] = decided
        else:
            asked[stage][name] = max(1, round(value))
    compile_limits, run_limits = (LimitRequest(output_mode=OutputMode.KILL, **asked[stage]) for stage in STAGES)
    return compile_limits, run_limits


def _read_negative(key: str, stage: StageName, name: str, maximum: int, settings: Settings) -> int | None:
    """Return what a negative limit asks for: no cap (0) or the default (None). Raises: InvalidRequest.

    Many clients always send -1 for memory, since Piston has no memory limit by default. So it is refused only where the operator
    set a limit under Piston's own name.
    """
    if name != "wall_ms" and not maximum:
        return 0
    if name == "memory_bytes" and PREFIX not in settings.source(f"max_{stage}_{name}"):
        return None
    raise InvalidRequest(f"{key} must be non-negative")
