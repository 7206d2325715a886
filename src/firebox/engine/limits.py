"""The limits of a stage: the defaults that settings and runtime give, then the request's, never above the maximum."""

from __future__ import annotations

import math
import os
from functools import cache, lru_cache
from pathlib import Path

from msgspec.structs import replace

from firebox.domain.errors import LimitTooHigh
from firebox.domain.model import LimitRequest, Limits, StageName
from firebox.settings.settings import Settings

ZERO_IS_NO_CAP = ("cpu_ms", "memory_bytes", "stack_bytes")

STACK_WITHOUT_MEMORY_LIMIT_BYTES = 1 << 30
"""Not without bound: the kernel then lays out memory in another way, and libraries choose a size of their own for threads."""

_USUAL_STACK_BYTES = 8 << 20


def attended(defaults: Limits, maximum: Limits, settings: Settings) -> tuple[Limits, Limits]:
    """Return defaults and maximum of the run stage for a job with a person at the other end, who takes time to think.

    Never more than a maximum that the operator has set.
    """
    for name, longer in (("wall_ms", settings.interactive_wall_ms), ("cpu_ms", settings.interactive_cpu_ms)):
        usual, most = getattr(defaults, name), getattr(maximum, name)
        is_set = most and settings.source(f"max_run_{name}") != "default"
        wanted = min(longer, most) if is_set else longer
        if usual:
            defaults = replace(defaults, **{name: max(usual, wanted)})
        if most:
            maximum = replace(maximum, **{name: max(most, wanted)})
    return defaults, maximum


@lru_cache(maxsize=1024)  # most requests ask for nothing
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
    if not decided["stack_bytes"]:
        wanted = default_stack_bytes(decided["memory_bytes"])
        decided["stack_bytes"] = min(wanted, maximum.stack_bytes or wanted)
    return Limits(**decided)


def default_stack_bytes(memory_bytes: int) -> int:
    """Return the stack of programs that may use so much memory, 0 for no cap: all of it, as judges have it."""
    return min(memory_bytes or STACK_WITHOUT_MEMORY_LIMIT_BYTES, _largest_stack_bytes())


@cache
def _largest_stack_bytes() -> int:
    """Return the largest stack that each of many threads can be given here, whether it is used or not.

    Source: the kernel's vm/overcommit-accounting.rst: 2 counts what is promised, 0 refuses what is more than there is at all.
    """
    try:
        strict = Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii").strip() == "2"
    except OSError:
        strict = False
    return _USUAL_STACK_BYTES if strict else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
