"""Users, languages and snippets: the same behaviour on both databases."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from firebox.domain.errors import Conflict, InvalidRequest, NotFound
from firebox.storage.records import Quota
from firebox.storage.stores import Stores
from firebox.storage.tables import users as users_table
from tests.storage.places import stores_at

TOKEN = "a-token-that-is-long-enough-0001"
OTHER = "a-token-that-is-long-enough-0002"


async def test_user_is_found_by_everything_that_names_him(stores: Stores) -> None:
    before = datetime.now(UTC)
    user = await stores.users.add(name="ada", token=TOKEN, role="admin", quota=Quota(runs_per_minute=3, cpu_seconds_per_day=9))
    assert (user.name, user.role, user.disabled, user.token_hint) == ("ada", "admin", False, "0001")
    assert (user.runs_per_minute, user.concurrent_runs, user.cpu_seconds_per_day) == (3, None, 9)
    assert user.quota == Quota(runs_per_minute=3, cpu_seconds_per_day=9)
    assert before - timedelta(seconds=1) <= user.created_at == user.modified_at <= datetime.now(UTC)
    assert user.created_at.tzinfo is UTC
    assert await stores.users.get(user.id) == user
    assert await stores.users.by_uuid(user.uuid) == user
    assert await stores.users.by_name("ada") == user
    assert await stores.users.by_token(TOKEN) == user
    assert await stores.users.by_token(OTHER) is None


async def test_only_the_hash_of_a_token_is_stored(stores: Stores) -> None:
    await stores.users.add(name="ada", token=TOKEN)
    row = await stores.database.read(lambda connection: connection.execute(users_table.select()).one())
    assert row.token_sha256 == hashlib.sha256(TOKEN.encode()).digest()
    assert TOKEN not in str(row)


async def test_short_token_has_no_hint(stores: Stores) -> None:
    assert (await stores.users.add(name="ada", token="short")).token_hint == ""


async def test_name_and_token_are_unique(stores: Stores) -> None:
    await stores.users.add(name="ada", token=TOKEN)
    with pytest.raises(Conflict, match="name 'ada'"):
        await stores.users.add(name="ada", token=OTHER)
    with pytest.raises(Conflict, match="token"):
        await stores.users.add(name="bob", token=TOKEN)
    assert [user.name for user in await stores.users.all()] == ["ada"]


async def test_new_token_ends_the_old_one(stores: Stores) -> None:
    user = await stores.users.add(name="ada", token=TOKEN)
    changed = await stores.users.set_token(user.id, OTHER)
    assert changed.modified_at >= user.modified_at
    assert changed.token_hint == "0002"
    assert await stores.users.by_token(TOKEN) is None
    assert await stores.users.by_token(OTHER) == changed


async def test_token_of_another_cannot_be_taken(stores: Stores) -> None:
    await stores.users.add(name="ada", token=TOKEN)
    bob = await stores.users.add(name="bob", token=OTHER)
    with pytest.raises(Conflict, match="token"):
        await stores.users.set_token(bob.id, TOKEN)
    assert await stores.users.by_token(OTHER) == bob


async def test_disabled_user_is_found_as_disabled(stores: Stores) -> None:
    user = await stores.users.add(name="ada", token=TOKEN)
    assert (await stores.users.set_disabled(user.id, disabled=True)).disabled
    found = await stores.users.by_token(TOKEN)
    assert found is not None
    assert found.disabled
    assert not (await stores.users.set_disabled(user.id, disabled=False)).disabled


async def test_disabling_twice_keeps_the_first_time(stores: Stores) -> None:
    user = await stores.users.add(name="ada", token=TOKEN)
    await stores.users.set_disabled(user.id, disabled=True)
    between = datetime.now(UTC)
    assert (await stores.users.set_disabled(user.id, disabled=True)).disabled
    assert await stores.users.remove_disabled(between, 10) == 1


async def test_limits_are_replaced_together(stores: Stores) -> None:
    user = await stores.users.add(name="ada", token=TOKEN, quota=Quota(runs_per_minute=3))
    changed = await stores.users.set_quota(user.id, Quota(concurrent_runs=0, cpu_seconds_per_day=2**40))
    assert (changed.runs_per_minute, changed.concurrent_runs, changed.cpu_seconds_per_day) == (None, 0, 2**40)


@pytest.mark.parametrize("number", [-1, 2**63])
async def test_limit_out_of_range_is_refused(stores: Stores, number: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await stores.users.add(name="ada", token=TOKEN, quota=Quota(concurrent_runs=number))
    assert refused.value.where == "concurrent_runs"


async def test_ids_ascend_and_are_never_reused(stores: Stores) -> None:
    first = await stores.users.add(name="ada", token=TOKEN)
    await stores.users.remove(first.id)
    second = await stores.users.add(name="ada", token=TOKEN)
    assert second.id > first.id
    shared = await stores.snippets.add(code="a", language="go", output="", error="")
    await stores.snippets.remove(shared.id)
    assert (await stores.snippets.add(code="b", language="go", output="", error="")).id > shared.id


@pytest.mark.parametrize("number", [0, -1, 1, 2**31, 2**63 - 1, 2**63, 2**200])
async def test_unknown_number_is_not_found(stores: Stores, number: int) -> None:
    for call in (
        stores.users.get(number),
        stores.users.remove(number),
        stores.users.set_token(number, TOKEN),
        stores.users.set_disabled(number, disabled=True),
        stores.users.set_quota(number, Quota(runs_per_minute=1)),
        stores.snippets.get(number),
        stores.snippets.remove(number),
    ):
        with pytest.raises(NotFound) as refused:
            await call
        assert refused.value.name == str(number)


async def test_language_has_the_id_that_scripts_compute(stores: Stores) -> None:
    language = await stores.languages.put("python", "3.11", image="glot/python:3.11")
    assert language.id == hashlib.sha1(b"python3.11").hexdigest()
    assert await stores.languages.get(language.id) == language
    assert await stores.languages.find("python", "3.11") == language
    assert await stores.languages.find("python", "3") is None


async def test_language_that_is_put_again_gets_the_new_image(stores: Stores) -> None:
    first = await stores.languages.put("python", "latest", image="one")
    second = await stores.languages.put("python", "latest", image="two")
    assert (second.id, second.image, second.created_at) == (first.id, "two", first.created_at)
    assert second.modified_at >= first.modified_at
    assert await stores.languages.all() == [second]


async def test_language_with_the_id_of_another_is_refused(stores: Stores) -> None:
    kept = await stores.languages.put("py", "thon", image="one")
    with pytest.raises(Conflict):
        await stores.languages.put("pyt", "hon", image="two")
    assert await stores.languages.all() == [kept]


async def test_languages_come_in_order(stores: Stores) -> None:
    for name, version in (("b", "1"), ("B", "1"), ("a", "2"), ("a", "10"), ("é", "1")):
        await stores.languages.put(name, version, image="image")
    assert [(each.name, each.version) for each in await stores.languages.all()] == [
        ("B", "1"),
        ("a", "10"),
        ("a", "2"),
        ("b", "1"),
        ("é", "1"),
    ]


async def test_removed_language_is_gone(stores: Stores) -> None:
    language = await stores.languages.put("python", "3", image="image")
    await stores.languages.remove(language.id)
    with pytest.raises(NotFound):
        await stores.languages.remove(language.id)
    with pytest.raises(NotFound):
        await stores.languages.get(language.id)


async def test_snippet_comes_back_as_it_was(stores: Stores) -> None:
    text = "package main // ¡ñ 漢字 🙂 \r\n\t'\"\\ \x01 \x7f \x85 \u2028 e\u0301"
    snippet = await stores.snippets.add(code=text, language="go", output=text, error="")
    assert (snippet.code, snippet.language, snippet.output, snippet.error) == (text, "go", text, "")
    assert await stores.snippets.get(snippet.id) == snippet
    assert abs(datetime.now(UTC) - snippet.created_at) < timedelta(minutes=1)


async def test_data_survives_a_restart(database_url: str) -> None:
    async with stores_at(database_url) as stores:
        user = await stores.users.add(name="ada", token=TOKEN)
        snippet = await stores.snippets.add(code="1", language="go", output="2", error="3")
    async with stores_at(database_url) as stores:
        assert await stores.users.all() == [user]
        assert await stores.snippets.get(snippet.id) == snippet
