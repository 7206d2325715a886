"""Retention deletes expired rows, and nothing else."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from firebox.domain.errors import NotFound
from firebox.engine.background import background
from firebox.service import retention as module
from firebox.service.retention import keep_removing, remove_old
from firebox.storage.database_counters import DatabaseCounters
from firebox.storage.stores import Stores
from firebox.storage.tables import snippets
from tests.storage.places import Clock, settings_for, stores_at
from tests.support.waiting import until

DAY_S = 86_400


async def share(stores: Stores, number: int) -> list[int]:
    return [(await stores.snippets.add(code="x", language="go", output="", error="")).id for _ in range(number)]


async def make_older(stores: Stores, ids: list[int], age_s: float) -> None:
    change = update(snippets).where(snippets.c.id.in_(ids)).values(created_at=datetime.now(UTC) - timedelta(seconds=age_s))
    await stores.database.write(lambda connection: connection.execute(change).close())


async def test_nothing_expires_by_default(stores: Stores) -> None:
    user = await stores.users.add(name="ada", token="token")
    await stores.users.set_disabled(user.id, disabled=True)
    (snippet,) = await share(stores, 1)
    assert await remove_old(stores, settings_for(""), Clock(time.time() + 1000 * DAY_S)) == {}
    assert (await stores.users.get(user.id)).disabled
    assert (await stores.snippets.get(snippet)).id == snippet


async def test_old_snippets_go_and_young_ones_stay(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    old, young = await share(stores, 5), await share(stores, 2)
    await make_older(stores, old, 10 * DAY_S + 60)
    await make_older(stores, young, 10 * DAY_S - 60)
    assert await remove_old(stores, settings_for("", snippet_retention_s=10 * DAY_S)) == {"snippets": 5}
    for number in old:
        with pytest.raises(NotFound):
            await stores.snippets.get(number)
    for number in young:
        await stores.snippets.get(number)


async def test_disabled_users_go_and_others_stay(stores: Stores) -> None:
    ada, bob, eve = [await stores.users.add(name=name, token=name) for name in ("ada", "bob", "eve")]
    await stores.users.set_disabled(ada.id, disabled=True)
    await stores.users.set_disabled(eve.id, disabled=True)
    await stores.users.set_disabled(eve.id, disabled=False)
    settings = settings_for("", disabled_user_retention_s=DAY_S)
    assert await remove_old(stores, settings, Clock(time.time() + DAY_S - 60)) == {}
    assert await remove_old(stores, settings, Clock(time.time() + DAY_S + 60)) == {"disabled_users": 1}
    assert [user.name for user in await stores.users.all()] == [bob.name, eve.name]


async def test_old_usage_is_deleted(database_url: str) -> None:
    clock = Clock(time.time() // DAY_S * DAY_S)
    settings = settings_for("", usage_retention_s=3 * DAY_S)
    async with stores_at(database_url) as stores:
        stores.counters = DatabaseCounters(stores.database, clock)
        await stores.counters.add("user 7", "cpu_ms", amount=5, window_s=DAY_S)
        clock.now_s += 3.9 * DAY_S
        assert await remove_old(stores, settings, clock) == {}
        clock.now_s += 0.2 * DAY_S
        assert await remove_old(stores, settings, clock) == {"usage": 1}


async def test_server_removes_what_is_too_old_by_itself(stores: Stores) -> None:
    (number,) = await share(stores, 1)
    await make_older(stores, [number], 61)

    async def gone() -> bool:
        try:
            await stores.snippets.get(number)
        except NotFound:
            return True
        return False

    async with background(keep_removing(stores, settings_for("", snippet_retention_s=60))):
        await until(gone)


async def test_retention_retries_after_an_outage(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    (number,) = await share(stores, 1)
    await make_older(stores, [number], 61)
    rename = "ALTER TABLE shared_codes RENAME TO {}".format
    await stores.database.write(lambda connection: connection.exec_driver_sql(rename("away")).close())
    with capture_logs() as lines:
        async with background(keep_removing(stores, settings_for("", snippet_retention_s=60))):

            async def complained() -> bool:
                return any(line["event"] == "retention failed" for line in lines)

            await until(complained)
            back = "ALTER TABLE away RENAME TO shared_codes"
            await stores.database.write(lambda connection: connection.exec_driver_sql(back).close())

            async def removed() -> bool:
                return any(line.get("snippets") == 1 for line in lines)

            await until(removed)


async def test_task_ends_with_its_context(stores: Stores) -> None:
    before = asyncio.all_tasks()
    async with background(keep_removing(stores, settings_for(""))):
        assert len(asyncio.all_tasks()) == len(before) + 1
    assert asyncio.all_tasks() == before
