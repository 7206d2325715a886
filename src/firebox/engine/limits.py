"""The limits of a stage: the defaults that settings and runtime give, then the request's, never above the maximum."""

from __future__ import annotations

import math

from firebox.errors import LimitTooHigh
from firebox.model import LimitRequest, Limits, StageName

ZERO_IS_NO_CAP = ("cpu_ms", "memory_bytes")


def decide(stage: StageName, defaults: Limits, maximum: Limits, request: LimitRequest) -> Limits:
    """Decide every limit of a stage. A maximum of 0 means there is none.

    Raises: LimitTooHigh for what the request asks above the maximum, "no cap" included.
    """
    decided = {name: getattr(defaults, name) for name in Limits.__struct_fields__}
    for name in Limits.__struct_fields__:
        asked = getattr(request, name)
        if asked is None:
            continue
        if name != "output_mode":
            allowed = getattr(maximum, name)
            unlimited = asked == 0 and name in ZERO_IS_NO_CAP
            if allowed and (asked > allowed or unlimited):
                raise LimitTooHigh(f"{stage}.{name}", math.inf if unlimited else asked, allowed)
        decided[name] = asked
    return Limits(**decided)
