"""The gRPC library writes to standard error by itself, in a form of its own, between the lines of our log."""

from __future__ import annotations

import os
import time
from collections import Counter

import structlog

PAUSE_S = 10.0
"""Between two lines that say the same."""


def silence() -> None:
    """Have it say nothing, unless somebody wants to hear it: GRPC_VERBOSITY=info. To be called before the library is imported.

    Source: gRPC core, doc/environment_variables.md.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


class SparingLog:
    """Logs what hostile clients do: the first time, and then once in a while, with how often it happened in between.

    Events and reasons must be ours: one entry is kept for each.
    """

    def __init__(self, name: str) -> None:
        self._log = structlog.get_logger(name)
        self._next_s: dict[tuple[str, str], float] = {}
        self._left_out = Counter[tuple[str, str]]()

    def info(self, event: str, *, reason: str, address: str) -> None:
        """Log one line, unless the same was logged a moment ago."""
        key, now = (event, reason), time.monotonic()
        if now < self._next_s.get(key, 0.0):
            self._left_out[key] += 1
            return
        self._next_s[key] = now + PAUSE_S
        self._log.info(event, reason=reason, address=address, left_out=self._left_out.pop(key, 0))
