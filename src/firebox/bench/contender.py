"""What every way of running a program looks like to the one that measures."""

from __future__ import annotations

from typing import Protocol

SETTLE_S = 0.02
"""Pause after a run by Firebox: what it makes ready for the next one must not disturb what is measured next."""


class BenchmarkFailed(Exception):
    """Something that was to be measured did not work; the message says what, with its words."""


class Contender(Protocol):
    """One way of running one program."""

    @property
    def name(self) -> str:
        """The column of the report."""
        ...

    @property
    def every(self) -> int:
        """Take part in every n-th round only: what is slow must not use up the time of the rest."""
        ...

    def run(self) -> float:
        """Run the program once and return milliseconds. Raises: BenchmarkFailed when it did not do what it should."""
        ...
