"""What is measured, and the summary of its runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import Struct

SETTLE_S = 0.02
"""Pause after a run by Firebox, so that refilling its pool does not disturb the next measurement."""


class BenchmarkFailed(Exception):
    """A measurement failed. The message explains why."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of running a program. name: the column of the report.

    run: runs it once and returns milliseconds; raises BenchmarkFailed for an unexpected result.
    every: takes part in every n-th round only: slow contenders must not use up the time of the others.
    """

    name: str
    run: Callable[[], float]
    every: int = 1


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
