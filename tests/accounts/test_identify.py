"""Lookup of tokens, on a real database and without a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from firebox.domain.errors import Conflict, Forbidden, InvalidRequest, NotFound, RateLimited, Unauthenticated
from firebox.service import accounts as module
from firebox.service.accounts import WRONG_TOKENS_PER_MINUTE, Accounts
from firebox.service.callers import Caller, rate_limit_key
from firebox.settings.settings import Settings, load_settings
from firebox.storage.records import Quota
from firebox.storage.stores import Stores

HERE = "192.0.2.1"
OPERATOR = "an-operator's-token"

_guesses = count()

pytestmark = pytest.mark.asyncio


@pytest.fixture
def accounts(stores: Stores, tmp_path: Path) -> Accounts:
    return Accounts(stores, load_settings({"data_dir": str(tmp_path), "admin_token": OPERATOR}, environ={}))


@contextmanager
def counted_queries() -> Generator[list[str]]:
    """Collect every statement sent to the database."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def guess(accounts: Accounts, number: int, address: str = HERE) -> None:
    for _ in range(number):
        with pytest.raises(Unauthenticated):
            await accounts.identify(f"wrong-{next(_guesses)}", address=address)


async def test_a_token_names_its_user(accounts: Accounts) -> None:
    created = await accounts.create("ann", quota=Quota(runs_per_minute=1, concurrent_runs=2, cpu_seconds_per_day=3))
    caller = await accounts.identify(created.token, address=HERE)
    assert caller == Caller(
        address=HERE,
        user_id=created.user.id,
        name="ann",
        role="user",
        quota=Quota(runs_per_minute=1, concurrent_runs=2, cpu_seconds_per_day=3),
    )
    assert caller.key == f"user {created.user.id}"


async def test_made_tokens_are_long_and_differ(accounts: Accounts) -> None:
    tokens = {(await accounts.create(f"user{number}")).token for number in range(20)}
    assert len(tokens) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens)


async def test_no_token_is_an_address_unless_everybody_has_to_log_in(stores: Stores, accounts: Accounts, tmp_path: Path) -> None:
    assert (await accounts.identify(None, address=HERE)).key == f"address {HERE}"
    closed = Accounts(stores, load_settings({"data_dir": str(tmp_path), "require_login": "true"}, environ={}))
    with pytest.raises(Unauthenticated):
        await closed.identify(None, address=HERE)


@pytest.mark.parametrize("token", ["", " ", "x", "x" * 10_000, "\0", "\ud800", "' OR 1=1 --", OPERATOR + " ", OPERATOR.upper()])
async def test_a_wrong_token_is_refused_even_where_none_is_needed(accounts: Accounts, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await accounts.identify(token, address=HERE)


async def test_the_operator_is_an_admin_who_is_no_user(accounts: Accounts) -> None:
    caller = await accounts.identify(OPERATOR, address=HERE)
    assert caller.is_admin
    assert caller.user_id is None
    accounts.require_admin(caller)


async def test_without_admin_token_there_is_no_operator(stores: Stores, settings: Settings) -> None:
    with pytest.raises(Unauthenticated):
        await Accounts(stores, settings).identify("", address=HERE)


async def test_only_admins_pass_as_admins(accounts: Accounts) -> None:
    user = await accounts.identify((await accounts.create("ann")).token, address=HERE)
    admin = await accounts.identify((await accounts.create("eve", "admin")).token, address=HERE)
    accounts.require_admin(admin)
    with pytest.raises(Forbidden):
        accounts.require_admin(user)
    with pytest.raises(Unauthenticated):
        accounts.require_admin(Caller(address=HERE))
    assert admin.user_id is not None
    assert user.user_id is not None
    assert await accounts.is_admin(admin.user_id)
    assert not await accounts.is_admin(user.user_id)
    assert not await accounts.is_admin(999)
    await accounts.set_disabled(admin.user_id, disabled=True)
    assert not await accounts.is_admin(admin.user_id)


async def test_a_token_that_was_used_a_moment_ago_needs_no_query(accounts: Accounts) -> None:
    token = (await accounts.create("ann")).token
    first = await accounts.identify(token, address=HERE)
    with counted_queries() as statements:
        assert [await accounts.identify(token, address=HERE) for _ in range(100)] == [first] * 100
        assert not statements
        await accounts.identify(None, address=HERE)
        await accounts.identify(OPERATOR, address=HERE)
        assert not statements
        with pytest.raises(Unauthenticated):
            await accounts.identify("another", address=HERE)
        assert any("firebox_users" in statement for statement in statements)


async def test_changes_hold_at_once_in_this_process(accounts: Accounts) -> None:
    created = await accounts.create("ann")
    await accounts.identify(created.token, address=HERE)
    await accounts.set_disabled(created.user.id, disabled=True)
    with pytest.raises(Forbidden):
        await accounts.identify(created.token, address=HERE)
    await accounts.set_disabled(created.user.id, disabled=False)
    await accounts.set_quota(created.user.id, Quota(runs_per_minute=7))
    assert (await accounts.identify(created.token, address=HERE)).quota.runs_per_minute == 7
    newer = await accounts.new_token(created.user.id)
    with pytest.raises(Unauthenticated):
        await accounts.identify(created.token, address=HERE)
    assert (await accounts.identify(newer.token, address=HERE)).name == "ann"
    await accounts.remove(created.user.id)
    with pytest.raises(Unauthenticated):
        await accounts.identify(newer.token, address=HERE)


async def test_changes_of_another_process_hold_once_what_is_remembered_is_old(
    stores: Stores, accounts: Accounts, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await accounts.create("ann")
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    await accounts.identify(created.token, address=HERE)
    await Accounts(stores, settings).set_disabled(created.user.id, disabled=True)
    with pytest.raises(Forbidden):
        await accounts.identify(created.token, address=HERE)


async def test_a_change_during_a_lookup_is_not_forgotten(accounts: Accounts) -> None:
    for number in range(20):
        created = await accounts.create(f"ann{number}")
        await asyncio.gather(
            accounts.identify(created.token, address=HERE),
            accounts.set_disabled(created.user.id, disabled=True),
            return_exceptions=True,
        )
        with pytest.raises(Forbidden):
            await accounts.identify(created.token, address=HERE)


async def test_guesses_are_bounded_for_each_address(accounts: Accounts) -> None:
    known = (await accounts.create("known")).token
    await accounts.identify(known, address=HERE)
    unknown = (await accounts.create("unknown")).token
    await guess(accounts, WRONG_TOKENS_PER_MINUTE)
    for token in ("wrong", unknown, OPERATOR):  # trying does not reveal which one is right
        with pytest.raises(RateLimited) as refusal:
            await accounts.identify(token, address=HERE)
        assert 0 < refusal.value.retry_after_s <= 60
    assert (await accounts.identify(known, address=HERE)).name == "known", "who was right before is not shut out"
    assert (await accounts.identify(unknown, address="192.0.2.2")).name == "unknown", "nor is anybody elsewhere"


async def test_a_client_with_an_old_token_locks_no_one_out(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await accounts.create("ann")).token
    for fresh_s in (5.0, 0.0):
        monkeypatch.setattr(module, "FRESH_S", fresh_s)
        for _ in range(2 * WRONG_TOKENS_PER_MINUTE):
            with pytest.raises(Unauthenticated):
                await accounts.identify("an-old-token", address=HERE)
    assert (await accounts.identify(token, address=HERE)).name == "ann"


async def test_a_wrong_token_that_becomes_right_is_right(accounts: Accounts) -> None:
    with pytest.raises(Unauthenticated):
        await accounts.identify("chosen", address=HERE)
    await accounts.create("ann", token="chosen")
    assert (await accounts.identify("chosen", address=HERE)).name == "ann"


async def test_refused_guesses_cost_no_query(accounts: Accounts) -> None:
    await guess(accounts, WRONG_TOKENS_PER_MINUTE)
    with counted_queries() as statements:
        for number in range(50):
            with pytest.raises(RateLimited):
                await accounts.identify(f"more-{number}", address=HERE)
    assert not statements


async def test_a_network_of_ipv6_guesses_as_one(accounts: Accounts) -> None:
    for number in range(WRONG_TOKENS_PER_MINUTE):
        await guess(accounts, 1, f"2001:db8:0:1::{number:x}")
    with pytest.raises(RateLimited):
        await accounts.identify("wrong", address="2001:db8:0:1:ffff::1")
    await guess(accounts, 1, "2001:db8:0:2::1")


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
async def test_what_counts_as_one_client(address: str, counts_as: str) -> None:
    assert rate_limit_key(address) == counts_as


@pytest.mark.parametrize("token", ["", "two words", "new\nline", "é", "x" * 257, "\x7f"])
async def test_a_token_that_no_header_can_carry_is_refused(accounts: Accounts, token: str) -> None:
    with pytest.raises(InvalidRequest):
        await accounts.create("ann", token=token)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[31m", "x" * 101, "\u202e"])
async def test_a_name_that_could_deceive_is_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await accounts.create(name)


async def test_tokens_and_names_are_taken_once(accounts: Accounts) -> None:
    await accounts.create("ann", token="mine")
    bob = (await accounts.create("bob")).user.id
    for attempt in (
        accounts.create("ann"),
        accounts.create("eve", token="mine"),
        accounts.new_token(bob, "mine"),
        accounts.create("eve", token=OPERATOR),
    ):
        with pytest.raises(Conflict):
            await attempt


async def test_who_is_not_there_cannot_be_changed(accounts: Accounts) -> None:
    for attempt in (
        accounts.new_token(99),
        accounts.set_disabled(99, disabled=True),
        accounts.set_quota(99, Quota()),
        accounts.remove(99),
    ):
        with pytest.raises(NotFound):
            await attempt
