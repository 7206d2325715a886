"""Authorization of package management: admins, or clients on this machine if accounts are disabled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from firebox.domain.errors import FireboxError, Forbidden, Unauthenticated
from firebox.service.accounts import Accounts
from firebox.service.callers import Caller
from firebox.settings.settings import load_settings
from firebox.storage.stores import open_stores
from tests.support.server import RunningServer, running_server

TOKEN = "the-token-of-the-operator-0123456789"

V3 = [
    ("GET", "/api/v3/repos"),
    ("GET", "/api/v3/repos/all/packages"),
    ("GET", "/api/v3/repos/all/packages/x/1.0.0"),
    ("POST", "/api/v3/repos/all/packages/x/1.0.0/install"),
    ("GET", "/api/v3/packages"),
    ("GET", "/api/v3/packages/x/1.0.0"),
    ("DELETE", "/api/v3/packages/x/1.0.0"),
    ("POST", "/api/v3/packages/x/1.0.0/execute"),
]
CHANGES = [("POST", "/api/v2/packages"), ("DELETE", "/api/v2/packages"), ("POST", "/api/v2/piston/packages")]
BODY = {"language": "x", "version": "*", "code": ""}


@pytest.fixture(scope="module")
def closed() -> Iterator[RunningServer]:
    with running_server(env={"FIREBOX_ADMIN_TOKEN": TOKEN, "FIREBOX_REQUIRE_LOGIN": "true"}) as started:
        yield started


def ask(server: RunningServer, method: str, path: str, **headers: str) -> httpx.Response:
    return httpx.request(
        method, server.url + path, json=BODY if method != "GET" else None, headers=headers, timeout=60, trust_env=False
    )


@pytest.mark.parametrize(("method", "path"), [*V3, *CHANGES])
def test_with_accounts_only_admins_are_allowed(closed: RunningServer, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}):
        refused = ask(closed, method, path, **headers)
        assert (refused.status_code, refused.headers.get("www-authenticate")) == (401, 'Bearer realm="firebox"')
        assert refused.json()["message"]
    assert ask(closed, method, path, Authorization=f"Bearer {TOKEN}").status_code in (200, 404)


@pytest.mark.parametrize(("method", "path"), [*V3, *CHANGES])
@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_without_accounts_forwarded_requests_are_rejected(server: RunningServer, method: str, path: str, header: str) -> None:
    assert ask(server, method, path).status_code in (200, 404)
    refused = ask(server, method, path, **{header: "127.0.0.1"})
    assert refused.status_code == 401
    assert "from other machines" in refused.json()["message"]


def test_the_package_list_is_visible_to_all_clients(server: RunningServer, closed: RunningServer) -> None:
    assert ask(server, "GET", "/api/v2/packages", **{"X-Forwarded-For": "192.0.2.1"}).status_code == 200
    assert ask(closed, "GET", "/api/v2/packages").status_code == 401
    assert ask(closed, "GET", "/api/v2/packages", Authorization=f"Bearer {TOKEN}").status_code == 200


HERE, THERE = Caller(address="127.0.0.1"), Caller(address="192.0.2.1")
USER, ADMIN = Caller(address="192.0.2.1", user_id=1), Caller(address="192.0.2.1", user_id=2, role="admin")
OPERATOR = Caller(address="192.0.2.1", name="admin", role="admin")


@pytest.mark.parametrize(
    ("settings", "caller", "forwarded", "refusal"),
    [
        ({}, HERE, False, None),
        ({}, Caller(address="::1"), False, None),
        ({}, HERE, True, Unauthenticated),
        ({}, THERE, False, Unauthenticated),
        ({}, Caller(address=""), False, Unauthenticated),
        ({}, Caller(address="127.0.0.1.example"), False, Unauthenticated),
        ({}, USER, False, Forbidden),
        ({}, ADMIN, True, None),
        ({"FIREBOX_ADMIN_TOKEN": TOKEN}, HERE, False, Unauthenticated),
        ({"FIREBOX_ADMIN_TOKEN": TOKEN}, OPERATOR, True, None),
        ({"FIREBOX_REQUIRE_LOGIN": "true"}, HERE, False, Unauthenticated),
        ({"FIREBOX_REQUIRE_LOGIN": "true"}, USER, False, Forbidden),
        ({"FIREBOX_REQUIRE_LOGIN": "true"}, ADMIN, False, None),
    ],
)
async def test_who_is_an_operator(
    settings: dict[str, str], caller: Caller, forwarded: bool, refusal: type[FireboxError] | None, tmp_path: Path
) -> None:
    chosen = load_settings({"data_dir": tmp_path}, None, settings)
    async with open_stores(chosen) as stores:
        accounts = Accounts(stores, chosen)
        if refusal is None:
            accounts.require_operator(caller, forwarded=forwarded)
        else:
            with pytest.raises(refusal):
                accounts.require_operator(caller, forwarded=forwarded)
