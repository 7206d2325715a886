"""Retention: deletes old snippets, usage and disabled users, as set in the settings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

import structlog

from firebox.domain.errors import FireboxError
from firebox.settings.settings import Settings
from firebox.storage.counters import Clock
from firebox.storage.stores import Stores

EVERY_S = 600.0
BATCH = 1000
"""Rows deleted per transaction, which keeps transactions short."""

_log = structlog.get_logger("firebox.retention")


async def keep_removing(stores: Stores, settings: Settings) -> None:
    """Delete expired rows, now and every ten minutes. A failure waits for the next time."""
    while True:
        try:
            removed = await remove_old(stores, settings)
        except FireboxError as error:
            _log.warning("retention failed", reason=error.message)
        else:
            if removed:
                _log.info("expired rows deleted", **removed)
        await asyncio.sleep(EVERY_S)


async def remove_old(stores: Stores, settings: Settings, clock: Clock = time.time) -> dict[str, int]:
    """Delete expired rows. Return their number per kind. clock: seconds since 1970. Raises: PartUnavailable."""
    if await stores.are_empty():
        return {}
    await stores.load()
    now_s = clock()

    def before(age_s: int) -> datetime:
        return datetime.fromtimestamp(now_s - age_s, UTC)

    work = {"usage": partial(stores.counters.forget, before_s=now_s - settings.usage_retention_s, at_most=BATCH)}
    if settings.snippet_retention_s:
        work["snippets"] = partial(stores.snippets.remove_older, before(settings.snippet_retention_s), BATCH)
    if settings.disabled_user_retention_s:
        work["disabled_users"] = partial(stores.users.remove_disabled, before(settings.disabled_user_retention_s), BATCH)
    removed = {kind: await _in_batches(remove) for kind, remove in work.items()}
    return {kind: count for kind, count in removed.items() if count}


async def _in_batches(remove: Callable[[], Awaitable[int]]) -> int:
    """Delete batches until one is not full."""
    total = 0
    while True:
        removed = await remove()
        total += removed
        if removed < BATCH:
            return total
