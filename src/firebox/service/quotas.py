"""Quotas per client: runs per minute, concurrent runs, CPU time per day.

Usage is counted in the shared counters, so a limit holds across connections, doors, workers and servers. Clients without limits
cause no queries. While the counters are unavailable, clients with limits are rejected: a quota that cannot be checked counts as
used up.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from ulid import ULID

from firebox.domain.errors import PartUnavailable, RateLimited
from firebox.service.callers import Caller
from firebox.settings.settings import Settings
from firebox.storage.counters import window_end
from firebox.storage.records import Quota

if TYPE_CHECKING:
    from firebox.storage.counters import Counters

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


class Charge:
    """Usage of one run in progress. Add to `cpu_ms` as it becomes known; the service settles it once."""

    def __init__(self, quotas: Quotas, subject: str, lease_id: str, allowed: Quota) -> None:
        self.cpu_ms = 0.0
        self._quotas = quotas
        self._subject = subject
        self._lease_id = lease_id
        self._allowed = allowed

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[Charge]:
        """Hold the lease while the context is open, then settle, even if the waiting task is cancelled."""
        renewing = asyncio.create_task(self._renew()) if self._allowed.concurrent_runs else None
        try:
            yield self
        finally:
            await self._quotas.finish(self._settle(renewing))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEWED_EVERY_S)
            try:
                await self._quotas.counters.lease(
                    self._subject, self._lease_id, allowed=self._allowed.concurrent_runs or 0, ttl_s=LEASE_S
                )
            except PartUnavailable as error:
                _log.warning("lease not renewed", subject=self._subject, reason=error.message)

    async def _settle(self, renewing: asyncio.Task[None] | None) -> None:
        """Record the CPU time and release the lease. CPU time that cannot be recorded now stays pending."""
        if self._allowed.cpu_seconds_per_day:
            self._quotas.owe(self._subject, ceil(self.cpu_ms))
            try:
                await self._quotas.pay(self._subject)
            except PartUnavailable as error:
                _log.warning("CPU time not recorded", subject=self._subject, reason=error.message)
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait((renewing,))  # or it might renew the lease after its release
            await self._quotas.give_back(self._subject, self._lease_id)


class Quotas:
    """Checks and records usage. find_counters: called once something is counted; settings: the default limits of users and
    addresses.
    """

    def __init__(self, find_counters: Callable[[], Counters], settings: Settings) -> None:
        self._find_counters = find_counters
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

    @cached_property
    def counters(self) -> Counters:
        return self._find_counters()

    def of(self, caller: Caller) -> Quota:
        """Return the limits of a client. The operator's admin token has none."""
        if caller.user_id is None:
            return _UNLIMITED if caller.is_admin else self._of_addresses
        own, others = caller.quota, self._of_users
        if own == _NOTHING_OF_ONES_OWN:
            return others
        return Quota(
            runs_per_minute=_first(own.runs_per_minute, others.runs_per_minute),
            concurrent_runs=_first(own.concurrent_runs, others.concurrent_runs),
            cpu_seconds_per_day=_first(own.cpu_seconds_per_day, others.cpu_seconds_per_day),
        )

    async def take(self, caller: Caller) -> Charge | None:
        """Count a run. Return None if no limit applies; otherwise the caller must enter the charge's `held()`.

        Raises: RateLimited, PartUnavailable.
        """
        allowed = self.of(caller)
        if not (allowed.runs_per_minute or allowed.concurrent_runs or allowed.cpu_seconds_per_day):
            return None
        subject, lease_id = caller.key, str(ULID())
        self._refuse_used_up(subject, "cpu_seconds_per_day", allowed.cpu_seconds_per_day)
        self._refuse_used_up(subject, "runs_per_minute", allowed.runs_per_minute)
        if allowed.cpu_seconds_per_day:
            await self._check_processor(subject, allowed.cpu_seconds_per_day)
        try:
            if allowed.concurrent_runs and not await self.counters.lease(
                subject, lease_id, allowed=allowed.concurrent_runs, ttl_s=LEASE_S
            ):
                raise RateLimited("concurrent_runs", allowed.concurrent_runs, retry_after_s=RETRY_AFTER_RUN_S)
            if allowed.runs_per_minute:
                await self._count_run(subject, allowed.runs_per_minute)
        except BaseException:
            if allowed.concurrent_runs:
                await self.finish(self.give_back(subject, lease_id))
            raise
        return Charge(self, subject, lease_id, allowed)

    @asynccontextmanager
    async def charged(self, caller: Caller) -> AsyncGenerator[Charge]:
        """Count a run outside of the service's executor, such as one in a container. Add to the charge's `cpu_ms`.

        Raises, on entry: RateLimited, PartUnavailable.
        """
        charge = await self.take(caller)
        if charge is None:
            yield Charge(self, "", "", _UNLIMITED)
        else:
            async with charge.held():
                yield charge

    def owe(self, subject: str, cpu_ms: int) -> None:
        """Remember CPU time that is not recorded yet."""
        if cpu_ms > 0:
            self._owed_ms[subject] = self._owed_ms.pop(subject, 0) + cpu_ms
            if len(self._owed_ms) > OWED_SUBJECTS:
                self._owed_ms.popitem(last=False)

    async def pay(self, subject: str) -> None:
        """Record pending CPU time. Raises: PartUnavailable; it then stays pending."""
        owed_ms = self._owed_ms.pop(subject, 0)
        if not owed_ms:
            return
        try:
            await self.counters.add(subject, "cpu_ms", amount=owed_ms, window_s=DAY_S)
        except BaseException:
            self.owe(subject, owed_ms)
            raise

    async def give_back(self, subject: str, lease_id: str) -> None:
        """Release a lease. If that fails, it expires after `LEASE_S`."""
        try:
            await self.counters.release(subject, lease_id)
        except PartUnavailable as error:
            _log.warning("lease not released", subject=subject, reason=error.message)

    async def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Complete the last work of a run, even if the waiting task is cancelled."""
        task = asyncio.create_task(work)
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Wait until everything is recorded."""
        await asyncio.gather(*self._finishing, return_exceptions=True)

    async def _check_processor(self, subject: str, allowed_s: int) -> None:
        await self.pay(subject)
        until_s = window_end(time.time(), DAY_S)
        if await self.counters.total(subject, "cpu_ms", window_s=DAY_S) >= allowed_s * 1000:
            self._refuse(subject, "cpu_seconds_per_day", allowed_s, until_s)

    async def _count_run(self, subject: str, allowed: int) -> None:
        until_s = window_end(time.time(), MINUTE_S)
        if await self.counters.add(subject, "runs", amount=1, window_s=MINUTE_S) > allowed:
            self._refuse(subject, "runs_per_minute", allowed, until_s)

    def _refuse(self, subject: str, limit: str, allowed: int, until_s: int) -> NoReturn:
        """Reject a run, and cache until when: usage within a window only grows.

        Raises: RateLimited.
        """
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
_NOTHING_OF_ONES_OWN = Quota()


def _first(own: int | None, other: int | None) -> int | None:
    return other if own is None else own
