"""Waiting for something that makes no sound: ask, with a pause, until it is so or the time is up. One deadline for all tests."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator

PATIENCE_S = 60.0
"""Far more than anything takes; less than the time limit of a test, so that the failure says what never came."""
PAUSE_S = 0.005


def wait_until(is_so: Callable[[], bool], what: str = "") -> None:
    """Block until something is so. Raises: TimeoutError with `what`, or with the line that asked."""
    for _ in _attempts(is_so, what):
        if is_so():
            return
        time.sleep(PAUSE_S)


async def until(is_so: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str = "") -> None:
    """As `wait_until`, while other tasks go on."""
    for _ in _attempts(is_so, what):
        answer = is_so()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        await asyncio.sleep(PAUSE_S)


def _attempts(is_so: Callable[[], object], what: str) -> Iterator[None]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        yield
    raise TimeoutError(f"not within {PATIENCE_S:.0f} s: {what or _source(is_so)}")


def _source(is_so: Callable[[], object]) -> str:
    try:
        return inspect.getsource(is_so).strip()
    except (OSError, TypeError):  # a method that was bound, a partial
        return repr(is_so)
