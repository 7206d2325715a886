"""Counters in the database, for one server or several on one PostgreSQL."""

from __future__ import annotations

import time

from sqlalchemy import Connection, Delete, bindparam, delete, func, select, text, tuple_

from firebox.storage.counters import Clock, Counters, key_text, window_end
from firebox.storage.database import Database
from firebox.storage.tables import leases, usage

SHORT_WINDOW_S = 3_600
"""Windows up to this long serve rate limits only, and are deleted once they have ended."""

# Statements are built once: every run counts, and building one takes as long as SQLite needs to execute it.
_TOTAL = select(usage.c.amount).where(
    usage.c.subject == bindparam("subject"),
    usage.c.name == bindparam("name"),
    usage.c.window_s == bindparam("window_s"),
    usage.c.ends_at_s == bindparam("ends_at_s"),
)
_OTHERS = select(func.count()).where(
    leases.c.subject == bindparam("subject"),
    leases.c.lease_id != bindparam("lease_id"),
    leases.c.ends_at_ms > bindparam("now_ms"),
)
_RELEASE = delete(leases).where(leases.c.subject == bindparam("its_subject"), leases.c.lease_id == bindparam("its_id"))
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('firebox lease ' || :subject, 0))")


class DatabaseCounters(Counters):
    """Counters in two tables. clock: seconds since 1970."""

    def __init__(self, database: Database, clock: Clock = time.time) -> None:
        self._database = database
        self._clock = clock
        sum_ = database.insert(usage)
        self._add = sum_.on_conflict_do_update(
            index_elements=[*usage.primary_key.columns], set_={"amount": usage.c.amount + sum_.excluded.amount}
        ).returning(usage.c.amount)
        place = database.insert(leases)
        self._take = place.on_conflict_do_update(
            index_elements=[*leases.primary_key.columns], set_={"ends_at_ms": place.excluded.ends_at_ms}
        )

    async def add(self, subject: str, name: str, *, amount: int, window_s: int) -> int:
        """A single statement, so that concurrent additions are not lost."""
        values = {**self._window(subject, name, window_s), "amount": amount}
        return await self._database.write(lambda connection: int(connection.execute(self._add, values).scalar_one()))

    async def total(self, subject: str, name: str, *, window_s: int) -> int:
        values = self._window(subject, name, window_s)
        return await self._database.read(lambda connection: int(connection.execute(_TOTAL, values).scalar() or 0))

    async def lease(self, subject: str, lease_id: str, *, allowed: int, ttl_s: int) -> bool:
        """Leases of one subject are granted one at a time."""
        place = {"subject": key_text(subject), "lease_id": key_text(lease_id)}
        now_ms = int(self._clock() * 1000)

        def work(connection: Connection) -> bool:
            if self._database.address.kind == "postgresql":
                # SQLite has a single writer anyway. Subjects with the same hash only wait for each other.
                connection.execute(_LOCK, {"subject": place["subject"]})
            if connection.execute(_OTHERS, {**place, "now_ms": now_ms}).scalar_one() >= allowed:
                return False
            connection.execute(self._take, {**place, "ends_at_ms": now_ms + ttl_s * 1000})
            return True

        return await self._database.write(work)

    async def release(self, subject: str, lease_id: str) -> None:
        place = {"its_subject": key_text(subject), "its_id": key_text(lease_id)}
        await self._database.write(lambda connection: connection.execute(_RELEASE, place).rowcount)

    async def forget(self, *, before_s: float, at_most: int) -> int:
        """Windows of up to an hour are deleted as soon as they have ended."""
        now_s = self._clock()
        over = (usage.c.ends_at_s <= int(before_s)) | ((usage.c.window_s <= SHORT_WINDOW_S) & (usage.c.ends_at_s <= int(now_s)))
        statements: list[Delete] = []
        for table, condition in ((usage, over), (leases, leases.c.ends_at_ms <= int(now_s * 1000))):
            key = [*table.primary_key.columns]
            statements.append(delete(table).where(tuple_(*key).in_(select(*key).where(condition).limit(at_most))))
        return await self._database.write(lambda connection: sum(connection.execute(each).rowcount for each in statements))

    def _window(self, subject: str, name: str, window_s: int) -> dict[str, str | int]:
        ends_at_s = window_end(self._clock(), window_s)
        return {"subject": key_text(subject), "name": name, "window_s": window_s, "ends_at_s": ends_at_s}
