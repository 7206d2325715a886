"""Quotas per client: runs per minute, concurrent runs, CPU time per day.

Usage is counted in the shared counters, so a limit holds across connections, doors, workers and servers. Clients without limits
cause no queries. While the counters are unavailable, clients with limits are rejected: a quota that cannot be checked counts as
used up.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, NoReturn

import structlog
from msgspec import structs
from ulid import ULID

from firebox.domain.errors import PartUnavailable, RateLimited
from firebox.service.callers import Caller
from firebox.settings.settings import Settings
from firebox.storage.counters import Counters, window_end
from firebox.storage.records import Quota

MINUTE_S = 60
DAY_S = 86_400
LEASE_S = 60
"""How long the leases of a killed server stay taken."""
RENEWED_EVERY_S = LEASE_S / 4
RETRY_AFTER_RUN_S = 1.0
"""Retry-After when there are too many concurrent runs: their end is not known."""
REMEMBERED_REFUSALS = 10_000
OWED_SUBJECTS = 10_000

_log = structlog.get_logger("firebox.quotas")


@dataclass(slots=True)
class Charge:
    """Usage of one run in progress. Add to `cpu_ms` as it becomes known."""

    subject: str
    lease_id: str
    allowed: Quota
    cpu_ms: float = 0.0


class Quotas:
    """Checks and records usage. counters: called to count; settings: the default limits of users and addresses."""

    def __init__(self, counters: Callable[[], Counters], settings: Settings) -> None:
        self._counters = counters
        self._of_users = Quota(
            runs_per_minute=settings.user_runs_per_minute,
            concurrent_runs=settings.user_concurrent_runs,
            cpu_seconds_per_day=settings.user_cpu_seconds_per_day,
        )
        self._of_addresses = Quota(
            runs_per_minute=settings.anonymous_runs_per_minute,
            concurrent_runs=settings.anonymous_concurrent_runs,
            cpu_seconds_per_day=settings.anonymous_cpu_seconds_per_day,
        )
        self._used_up: OrderedDict[tuple[str, str, int], int] = OrderedDict()
        self._owed_ms: OrderedDict[str, int] = OrderedDict()
        self._finishing: set[asyncio.Task[None]] = set()

    def of(self, caller: Caller) -> Quota:
        """Return the limits of a client. The operator's admin token has none."""
        if caller.user_id is None:
            return _UNLIMITED if caller.is_admin else self._of_addresses
        own = {name: limit for name, limit in structs.asdict(caller.quota).items() if limit is not None}
        return structs.replace(self._of_users, **own)

    async def take(self, caller: Caller) -> Charge | None:
        """Count a run. Return None if no limit applies, or the charge for `held()`. Raises: RateLimited, PartUnavailable."""
        allowed = self.of(caller)
        if not (allowed.runs_per_minute or allowed.concurrent_runs or allowed.cpu_seconds_per_day):
            return None
        subject, lease_id = caller.key, str(ULID())
        self._refuse_used_up(subject, "cpu_seconds_per_day", allowed.cpu_seconds_per_day)
        self._refuse_used_up(subject, "runs_per_minute", allowed.runs_per_minute)
        if allowed.cpu_seconds_per_day:
            await self._check_processor(subject, allowed.cpu_seconds_per_day)
        try:
            if allowed.concurrent_runs and not await self._counters().lease(
                subject, lease_id, allowed=allowed.concurrent_runs, ttl_s=LEASE_S
            ):
                raise RateLimited("concurrent_runs", allowed.concurrent_runs, retry_after_s=RETRY_AFTER_RUN_S)
            if allowed.runs_per_minute:
                await self._count_run(subject, allowed.runs_per_minute)
        except BaseException:
            if allowed.concurrent_runs:
                await self._finish(self._release(subject, lease_id))
            raise
        return Charge(subject, lease_id, allowed)

    @asynccontextmanager
    async def held(self, charge: Charge) -> AsyncGenerator[None]:
        """Hold the lease while the context is open, then settle, even if the waiting task is cancelled."""
        renewing = asyncio.create_task(self._renew(charge)) if charge.allowed.concurrent_runs else None
        try:
            yield
        finally:
            await self._finish(self._settle(charge, renewing))

    async def close(self) -> None:
        """Wait until everything is recorded."""
        await asyncio.gather(*self._finishing, return_exceptions=True)

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Complete the last work of a run, even if the waiting task is cancelled."""
        task = asyncio.create_task(work)
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        await asyncio.shield(task)

    async def _renew(self, charge: Charge) -> None:
        allowed = charge.allowed.concurrent_runs or 0
        while True:
            await asyncio.sleep(RENEWED_EVERY_S)
            with _logged("lease not renewed", charge.subject):
                await self._counters().lease(charge.subject, charge.lease_id, allowed=allowed, ttl_s=LEASE_S)

    async def _settle(self, charge: Charge, renewing: asyncio.Task[None] | None) -> None:
        """Record the CPU time and release the lease. CPU time that cannot be recorded now stays pending."""
        if charge.allowed.cpu_seconds_per_day:
            self._owe(charge.subject, ceil(charge.cpu_ms))
            with _logged("CPU time not recorded", charge.subject):
                await self._pay(charge.subject)
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait((renewing,))  # or it might renew the lease after its release
            await self._release(charge.subject, charge.lease_id)

    async def _release(self, subject: str, lease_id: str) -> None:
        """Release a lease. If that fails, it expires after `LEASE_S`."""
        with _logged("lease not released", subject):
            await self._counters().release(subject, lease_id)

    def _owe(self, subject: str, cpu_ms: int) -> None:
        """Remember CPU time that is not recorded yet."""
        if cpu_ms > 0:
            self._owed_ms[subject] = self._owed_ms.pop(subject, 0) + cpu_ms
            if len(self._owed_ms) > OWED_SUBJECTS:
                self._owed_ms.popitem(last=False)

    async def _pay(self, subject: str) -> None:
        """Record pending CPU time. Raises: PartUnavailable; it then stays pending."""
        owed_ms = self._owed_ms.pop(subject, 0)
        if not owed_ms:
            return
        try:
            await self._counters().add(subject, "cpu_ms", amount=owed_ms, window_s=DAY_S)
        except BaseException:
            self._owe(subject, owed_ms)
            raise

    async def _check_processor(self, subject: str, allowed_s: int) -> None:
        await self._pay(subject)
        until_s = window_end(time.time(), DAY_S)
        if await self._counters().total(subject, "cpu_ms", window_s=DAY_S) >= allowed_s * 1000:
            self._refuse(subject, "cpu_seconds_per_day", allowed_s, until_s)

    async def _count_run(self, subject: str, allowed: int) -> None:
        until_s = window_end(time.time(), MINUTE_S)
        if await self._counters().add(subject, "runs", amount=1, window_s=MINUTE_S) > allowed:
            self._refuse(subject, "runs_per_minute", allowed, until_s)

    def _refuse(self, subject: str, limit: str, allowed: int, until_s: int) -> NoReturn:
        """Reject a run, and cache until when: usage within a window only grows. Raises: RateLimited."""
        self._used_up[subject, limit, allowed] = until_s
        if len(self._used_up) > REMEMBERED_REFUSALS:
            self._used_up.popitem(last=False)
        raise RateLimited(limit, allowed, retry_after_s=max(until_s - time.time(), 0.0))

    def _refuse_used_up(self, subject: str, limit: str, allowed: int | None) -> None:
        """Reject a run by the cache. A changed limit takes effect at once. Raises: RateLimited."""
        until_s = self._used_up.get((subject, limit, allowed)) if allowed else None
        if until_s is None or allowed is None:
            return
        remaining_s = until_s - time.time()
        if remaining_s > 0:
            raise RateLimited(limit, allowed, retry_after_s=remaining_s)
        del self._used_up[subject, limit, allowed]


_UNLIMITED = Quota(runs_per_minute=0, concurrent_runs=0, cpu_seconds_per_day=0)


@contextmanager
def _logged(event: str, subject: str) -> Generator[None]:
    """Log that the counters are unavailable, and go on."""
    try:
        yield
    except PartUnavailable as error:
        _log.warning(event, subject=subject, reason=error.message)
