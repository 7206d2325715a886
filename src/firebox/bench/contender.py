"""The interface of everything that is measured."""

from __future__ import annotations

from typing import Protocol

SETTLE_S = 0.02
"""Pause after a run by Firebox, so that refilling its pool does not disturb the next measurement."""


class BenchmarkFailed(Exception):
    """A measurement failed. The message explains why."""


class Contender(Protocol):
    """One way of running a program."""

    @property
    def name(self) -> str:
        """The column of the report."""
        ...

    @property
    def every(self) -> int:
        """Takes part in every n-th round only: slow contenders must not use up the time of the others."""
        ...

    def run(self) -> float:
        """Run the program once. Return milliseconds. Raises: BenchmarkFailed for an unexpected result."""
        ...
