"""Any text is stored unchanged or rejected with its field, the same on both databases."""

from __future__ import annotations

import pytest

from firebox.domain.errors import InvalidRequest, NotFound
from firebox.storage.stores import Stores

TOKEN = "a-token-that-is-long-enough-0001"
SQL = [
    "'; DROP TABLE firebox_users; --",
    '"; DELETE FROM shared_codes; --',
    "$1 :name %s %(name)s ? {0} \\",
    "%_ LIKE",
    "\\x00 \\u0000",
    "NULL",
    "",
]
UNKEEPABLE = ["\0", "a\0b", "\ud800", "x\udfff", "\ud83d\ude00"[:1]]


@pytest.mark.parametrize("text", SQL)
async def test_text_that_looks_like_sql_is_text(stores: Stores, text: str) -> None:
    user = await stores.users.add(name=text, token=TOKEN)
    assert await stores.users.by_name(text) == user
    language = await stores.languages.put(text, text, image=text)
    assert await stores.languages.find(text, text) == language
    snippet = await stores.snippets.add(code=text, language=text, output=text, error=text)
    assert await stores.snippets.get(snippet.id) == snippet
    assert await stores.counters.add(text, "runs", amount=1, window_s=60) == 1
    assert await stores.counters.lease(text, text, allowed=1, ttl_s=60)
    assert await stores.users.by_token(text) is None


@pytest.mark.parametrize("text", UNKEEPABLE)
async def test_unstorable_text_is_rejected_with_its_field(stores: Stores, text: str) -> None:
    for call, where in (
        (stores.users.add(name=text, token=TOKEN), "name"),
        (stores.languages.put(text, "1", image="image"), "name"),
        (stores.languages.put("go", text, image="image"), "version"),
        (stores.languages.put("go", "1", image=text), "image"),
        (stores.snippets.add(code=text, language="go", output="", error=""), "code"),
        (stores.snippets.add(code="", language=text, output="", error=""), "language"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await call
        assert refused.value.where == where


@pytest.mark.parametrize("text", UNKEEPABLE)
async def test_unstorable_output_is_replaced(stores: Stores, text: str) -> None:
    snippet = await stores.snippets.add(code="", language="go", output=f"<{text}>", error=text)
    kept = await stores.snippets.get(snippet.id)
    assert kept == snippet
    assert kept.output == "<" + text.replace("\0", "\ufffd").encode("utf-8", "replace").decode().replace("?", "\ufffd") + ">"
    assert "\ufffd" in kept.error


@pytest.mark.parametrize("text", UNKEEPABLE)
async def test_unstorable_keys_are_not_found(stores: Stores, text: str) -> None:
    assert await stores.users.by_token(text) is None
    assert await stores.languages.find(text, text) is None
    for call in (
        stores.users.by_name(text),
        stores.users.by_uuid(text),
        stores.languages.get(text),
        stores.languages.remove(text),
    ):
        with pytest.raises(NotFound):
            await call


@pytest.mark.parametrize("text", [*UNKEEPABLE, "x" * 100_000])
async def test_token_and_subject_may_be_anything(stores: Stores, text: str) -> None:
    user = await stores.users.add(name="ada", token=text)
    assert await stores.users.by_token(text) == user
    assert await stores.users.by_token(text + "x") is None
    assert await stores.counters.add(text, "runs", amount=2, window_s=60) == 2
    assert await stores.counters.total(text, "runs", window_s=60) == 2
    assert await stores.counters.total(text + "x", "runs", window_s=60) == 0
    assert await stores.counters.lease(text, text, allowed=1, ttl_s=60)
    assert not await stores.counters.lease(text, text + "x", allowed=1, ttl_s=60)


async def test_name_too_long_for_an_index_is_refused(stores: Stores) -> None:
    longest = "🙂" * 255
    assert (await stores.users.add(name=longest, token=TOKEN)).name == longest
    assert (await stores.languages.put(longest, longest, image="image")).version == longest
    for call in (stores.users.add(name=longest + "x", token="other"), stores.languages.put("go", longest + "x", image="image")):
        with pytest.raises(InvalidRequest, match="255"):
            await call


async def test_huge_text_is_stored(stores: Stores) -> None:
    code, output = "é" * 4_000_000, "\n" * 8_000_000
    snippet = await stores.snippets.add(code=code, language="go", output=output, error="")
    kept = await stores.snippets.get(snippet.id)
    assert kept.code == code
    assert kept.output == output
