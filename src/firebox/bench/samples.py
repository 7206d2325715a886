"""How long something took, several times over."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from msgspec import Struct


class Duration(Struct, frozen=True):
    """Several measurements of one thing, in milliseconds. p99_ms: with less than a hundred of them simply the slowest."""

    runs: int
    median_ms: float
    p99_ms: float


def summarise(samples_ms: Sequence[float]) -> Duration:
    """Sum up at least one sample."""
    ordered = sorted(samples_ms)
    rank = math.ceil(len(ordered) * 0.99)
    return Duration(len(ordered), round(statistics.median(ordered), 4), round(ordered[rank - 1], 4))
