"""Validation of the Host header, and trusted proxies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from firebox.domain.errors import SettingsError
from firebox.doors.http.hosts_and_proxies import HostNames, Proxies
from firebox.doors.http.refusals import ForeignOrigin
from firebox.doors.http.requests import AnyConnection, check_origin
from firebox.settings.settings import Settings, load_settings
from tests.accounts.people import program
from tests.support.server import RunningServer


def read(**flags: str) -> Settings:
    return load_settings({"data_dir": "/nowhere", **flags}, environ={})


def answers_to(hosts: HostNames, *values: str) -> bool:
    return not hosts.problem([value.encode("latin-1") for value in values])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:2000", True),
        ("localhost:", True),
        ("[::1]:", True),
        ("localhost.", True),
        ("box.localhost:80", True),
        ("127.0.0.1:2000", True),
        ("127.1.2.3", True),
        ("[::1]:2000", True),
        ("[::ffff:127.0.0.1]", True),
        ("rebound.example", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("notlocalhost", False),
        ("0.0.0.0:2000", False),
        ("192.0.2.1", False),
        ("[2001:db8::1]", False),
        ("", False),
        ("localhost:2000:1", False),
        ("localhost:999999", False),
        (":", False),
        (":2000", False),
        ("user@localhost", False),
        ("localhost\0", False),
        ("localhost evil", False),
        ("[::1", False),
        ("x" * 5000, False),
    ],
)
def test_a_server_on_loopback_accepts_loopback_hosts_only(host: str, value: str, expected: bool) -> None:
    assert answers_to(HostNames(read(host=host)), value) is expected


def test_exactly_one_host_header_is_required() -> None:
    hosts = HostNames(read())
    assert not answers_to(hosts)
    assert not answers_to(hosts, "localhost", "localhost")


def test_a_public_server_accepts_any_host_unless_configured() -> None:
    assert answers_to(HostNames(read(host="0.0.0.0")), "anything.example")
    named = HostNames(read(host="0.0.0.0", allowed_hosts="run.example, *.box.example"))
    for value, expected in (
        ("run.example", True),
        ("RUN.example.:443", True),
        ("a.box.example", True),
        ("a.b.box.example", True),
        ("localhost", True),
        ("box.example", False),
        ("evilbox.example", False),
        ("x.run.example", False),
        ("192.0.2.1", False),
    ):
        assert answers_to(named, value) is expected, value
    assert answers_to(HostNames(read(allowed_hosts="*")), "anything.example")


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://localhost", "localhost", True),
        ("http://localhost", "localhost:", True),
        ("http://localhost", "LOCALHOST:80", True),
        ("https://run.example", "run.example:443", True),
        ("http://localhost:2000", "localhost:2000", True),
        ("http://[::1]:80", "[::1]", True),
        ("http://localhost:2000", "localhost", False),
        ("http://localhost", "localhost:443", False),
        ("http://elsewhere.example", "localhost", False),
        ("http://[", "localhost", False),
        ("null", "localhost", False),
    ],
)
def test_pages_of_the_requested_host_may_connect(origin: str, host: str, allowed: bool) -> None:
    headers = [(b"origin", origin.encode()), (b"host", host.encode())]
    connection = AnyConnection(cast(Any, {"type": "websocket", "headers": headers}))
    if allowed:
        check_origin(connection, frozenset())
    else:
        with pytest.raises(ForeignOrigin):
            check_origin(connection, frozenset())


PROXIES = "10.0.0.0/8, 2001:db8::/32 192.0.2.9"


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.1", ["203.0.113.1"], "198.51.100.1"),  # not a proxy of ours: its words count for nothing
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.1"], "203.0.113.1"),  # what the client wrote itself is left of what our proxy wrote
        ("10.0.0.1", ["1.1.1.1", "203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["203.0.113.1, 10.0.0.2, 192.0.2.9"], "203.0.113.1"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["203.0.113.1:5555"], "203.0.113.1"),
        ("10.0.0.1", ["[2001:db9::1]:5555"], "2001:db9::1"),
        ("2001:db8::5", ["2001:db9::1"], "2001:db9::1"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["203.0.113.1, unknown"], "10.0.0.1"),  # the proxy itself could not say
        ("10.0.0.1", ["203.0.113.1, "], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%" + "x" * 3000], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.1" + " ," * 5000], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1," * 5000 + "203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["203.0.113.1," + "10.0.0.2," * 5000 + "10.0.0.3"], "10.0.0.2"),
        ("10.0.0.1", ["\xff\xfe, 203.0.113.1"], "203.0.113.1"),
        ("unix", ["203.0.113.1"], "unix"),
    ],
)
def test_client_address_behind_proxies(peer: str, forwarded: list[str], expected: str) -> None:
    found = Proxies(read(trusted_proxies=PROXIES)).client_of(peer, [value.encode("latin-1") for value in forwarded])
    assert found == expected


@pytest.mark.parametrize("text", ["10.0.0.0/99", "proxy.example", "10.0.0.1-10.0.0.9"])
def test_an_invalid_trusted_proxy_is_a_settings_error(text: str) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies"):
        Proxies(read(trusted_proxies=text))


def test_dns_rebinding_is_rejected(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    evil = {"Host": "rebound.example"}
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for method, path in (("POST", "/api/v1/runs"), ("GET", "/api/v1/health"), ("GET", "/schema"), ("GET", "/nothing")):
            answer = client.request(method, path, json=program(), headers=evil)
            assert answer.status_code == 421
            assert answer.json()["error"]["code"] == "http.misdirected_request"
            assert "allowed_hosts" in answer.json()["message"]
        assert client.post("/api/v2/execute", json={}, headers={"Host": "localhost"}).status_code == 400
        assert client.get("/api/v1/health").json()["in_flight"] == 0
    port = server.address[1]
    live = f"ws://rebound.example:{port}/api/v1/runs/live"
    with pytest.raises(InvalidStatus) as refusal, connect(live, sock=server.connect(), proxy=None):
        pass
    assert refusal.value.response.status_code == 403


@pytest.mark.parametrize("trusted", ["127.0.0.0/8", ""])
def test_addresses_behind_a_proxy_are_counted_where_the_proxy_is_trusted(
    start_server: Callable[..., RunningServer], trusted: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    database = f"sqlite:///{tmp_path_factory.mktemp('database') / 'accounts.db'}"
    server = start_server("--trusted-proxies", trusted, "--anonymous-concurrent-runs", "1", "--database-url", database)
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:

        def submit(forwarded: str) -> int:
            headers = {"X-Forwarded-For": forwarded, "Prefer": "respond-async"}
            return client.post("/api/v1/runs", json=program("sleep 50"), headers=headers).status_code

        assert submit("203.0.113.1") == 202
        assert submit("9.9.9.9, 203.0.113.1") == 429
        assert submit("203.0.113.2") == (202 if trusted else 429)
