"""Serving an interactive run: what its client sends and what it receives go on side by side.

A client is read from the admission of its run on: one that leaves while it waits, or breaks the protocol, is noticed at once.
Its input is queued by the run; while that queue is full nothing is read from the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run several coroutines until the first one ends, and cancel the others. Of two that end together the first counts.

    Raises: what the first one raised.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            # Only one of them is the reason of the end; the others' must not be reported as forgotten.
            _ = task.cancelled() or task.exception()
