"""Lazy logging: loading structlog takes longer than a small program runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_set_up: list[Callable[[], None]] = []


def set_up_later(set_up: Callable[[], None]) -> None:
    """Have `set_up` called before the first line of this process is logged."""
    _set_up[:] = [set_up]


class LazyLogger:
    """Stands for structlog's logger."""

    def __getattr__(self, name: str) -> Any:
        while _set_up:
            _set_up.pop()()
        import structlog

        return getattr(structlog.get_logger(), name)
