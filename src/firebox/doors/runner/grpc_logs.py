"""Logs of the gRPC door: without the library's own output on stderr, and without repetition."""

from __future__ import annotations

import os
import time
from collections import Counter

import structlog

PAUSE_S = 10.0
"""Minimum interval between two equal lines."""


def silence() -> None:
    """Disable gRPC's log, before it is imported, unless GRPC_VERBOSITY is set. Source: gRPC, doc/environment_variables.md."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


class SparingLog:
    """Rate-limited log of what hostile clients do: the first time, then once per interval with the number of repetitions. Events
    and reasons must be constants: an entry is kept for each.
    """

    def __init__(self, name: str) -> None:
        self._log = structlog.get_logger(name)
        self._next_s: dict[tuple[str, str], float] = {}
        self._left_out = Counter[tuple[str, str]]()

    def info(self, event: str, *, reason: str, address: str) -> None:
        """Log a line, unless the same one was logged within the interval."""
        key, now = (event, reason), time.monotonic()
        if now < self._next_s.get(key, 0.0):
            self._left_out[key] += 1
            return
        self._next_s[key] = now + PAUSE_S
        self._log.info(event, reason=reason, address=address, left_out=self._left_out.pop(key, 0))
