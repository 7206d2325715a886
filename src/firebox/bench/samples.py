"""Summaries of repeated measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from msgspec import Struct


class Duration(Struct, frozen=True):
    """Repeated measurements in milliseconds. p99_ms: the maximum if there are fewer than a hundred."""

    runs: int
    median_ms: float
    p99_ms: float


def summarise(samples_ms: Sequence[float]) -> Duration:
    """Summarise at least one sample."""
    ordered = sorted(samples_ms)
    rank = math.ceil(len(ordered) * 0.99)
    return Duration(len(ordered), round(statistics.median(ordered), 4), round(ordered[rank - 1], 4))
