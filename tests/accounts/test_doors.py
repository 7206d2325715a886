"""A server that requires login: open and closed routes, and the owners of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.accounts.people import People, program
from tests.support.server import RunningServer
from tests.support.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}
RUN = "/api/v1/runs/01KBX3W7Y5B7V0M4C1ZQ9T8RDE"

OPEN = [
    ("GET", "/api/v1/health"),
    ("GET", "/api/v1/runtimes"),
    ("GET", "/schema"),
    ("GET", "/schema/openapi.json"),
    ("GET", "/api/v2/runtimes"),
    ("GET", "/api/v2/piston/runtimes"),
]
CLOSED = [
    ("POST", "/api/v1/runs"),
    ("GET", RUN),
    ("DELETE", RUN),
    ("GET", RUN + "/events"),
    ("GET", "/api/v1/metrics"),
    ("GET", "/metrics"),
    ("POST", "/api/v2/execute"),
    ("POST", "/api/v2/piston/execute"),
    ("GET", "/api/v2/packages"),
    ("POST", "/api/v2/packages"),
    ("DELETE", "/api/v2/packages"),
]
SOCKETS = ["/api/v1/runs/live", "/api/v2/connect", "/api/v2/piston/connect"]


@pytest.fixture
def anonymous(closed: RunningServer, members: People) -> Iterator[httpx.Client]:
    with members.client(closed, None) as client:
        yield client


@pytest.fixture
def ann(closed: RunningServer, members: People) -> Iterator[httpx.Client]:
    with members.client(closed, "ann") as client:
        yield client


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_is_open(anonymous: httpx.Client, method: str, path: str) -> None:
    assert anonymous.request(method, path).status_code == 200


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Token wrong", "wrong", "Bearer", "Token", "Basic YTpi"])
def test_is_closed_without_a_right_token(anonymous: httpx.Client, method: str, path: str, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = anonymous.request(method, path, json=program(), headers=headers)
    assert (answer.status_code, answer.headers.get("www-authenticate")) == (401, 'Bearer realm="firebox"')
    assert "message" in json.dumps(answer.json())


def test_every_route_that_is_described_is_in_one_of_the_lists(anonymous: httpx.Client) -> None:
    described = anonymous.get("/schema/openapi.json").json()["paths"]
    ours = {
        (method.upper(), path.replace("{run_id}", RUN.rpartition("/")[2]))
        for path, methods in described.items()
        if path.startswith("/api/v1")
        for method in methods
    }
    assert ours <= {*OPEN, *CLOSED}
    assert len(ours) == 7


@pytest.mark.parametrize("scheme", ["Bearer {}", "bearer {}", "Token {}", "TOKEN   {}", "{}"])
def test_a_token_comes_in_any_of_the_usual_forms(closed: RunningServer, members: People, scheme: str) -> None:
    headers = {"Authorization": scheme.format(members.tokens["ann"])}
    with members.client(closed, None) as client:
        answer = client.post("/api/v1/runs", json=program(), headers=headers)
        assert answer.json()["run"]["stdout"] == "hello\n"


@pytest.mark.parametrize("name", ["ann", "eve", "operator"])
def test_any_token_allows_runs(closed: RunningServer, members: People, name: str) -> None:
    with members.client(closed, name) as client:
        assert client.post("/api/v1/runs", json=program()).json()["run"]["stdout"] == "hello\n"
        assert client.get("/api/v1/metrics").status_code == 200
        body = {"language": "bash", "version": "*", "files": [{"content": "echo hello"}]}
        assert client.post("/api/v2/execute", json=body).json()["run"]["stdout"] == "hello\n"


@pytest.mark.parametrize("path", SOCKETS)
def test_a_websocket_takes_the_token_from_a_header_or_the_query(closed: RunningServer, members: People, path: str) -> None:
    url = closed.url.replace("http", "ws") + path
    token = members.tokens["ann"]
    for query, headers in (
        ("", {}),
        ("?access_token=", {}),
        ("?access_token=wrong", {}),
        (f"?access_token={token}&access_token={token}", {}),
        (f"?access_token={token}", {"Authorization": "Bearer wrong"}),
        ("?user_id=1", {}),
    ):
        with pytest.raises(InvalidStatus) as refusal, connect(url + query, additional_headers=headers, proxy=None):
            pass
        assert refusal.value.response.status_code == 403
    start: dict[str, Any] = (
        {"type": "start", **program()}
        if path.startswith("/api/v1")
        else {"type": "init", "language": "bash", "version": "*", "files": [{"content": "echo hello"}]}
    )
    for query, headers in ((f"?access_token={token}", {}), ("", {"Authorization": f"Bearer {token}"})):
        with connect(url + query, additional_headers=headers, proxy=None) as socket:
            socket.send(json.dumps(start))
            while json.loads(socket.recv(timeout=60)).get("data") != "hello\n":
                pass


def test_only_an_event_stream_takes_the_token_from_the_query(closed: RunningServer, members: People, ann: httpx.Client) -> None:
    query = {"access_token": members.tokens["ann"]}
    run_id = ann.post("/api/v1/runs", json=program(), headers=ASYNC).json()["id"]
    with members.client(closed, None) as browser:
        events = browser.get(f"/api/v1/runs/{run_id}/events", params=query, headers={"Accept": "text/event-stream"})
        assert (events.status_code, "event: finished" in events.text) == (200, True)
        assert browser.get(f"/api/v1/runs/{run_id}", params=query).status_code == 401
        assert browser.post("/api/v1/runs", params=query, json=program()).status_code == 401
        event_stream = {"Accept": "text/event-stream"}
        assert browser.post("/api/v1/runs", params=query, json=program(), headers=event_stream).status_code == 401


def test_runs_of_other_users_are_not_found(closed: RunningServer, members: People, ann: httpx.Client) -> None:
    body = program("echo secret > kept; echo secret; sleep 50", artifacts=["kept"])
    run_id = ann.post("/api/v1/runs", json=body, headers=ASYNC).json()["id"]
    unknown = {method: ann.request(method, RUN) for method in ("GET", "DELETE")}
    for name, expected in (("bob", 404), (None, 401)):
        with members.client(closed, name) as other:
            for query in ({}, {"user_id": "1"}, {"user": "ann"}, {"base64": "true"}):
                for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
                    answer = other.request(method, f"/api/v1/runs/{run_id}{path}", params=query)
                    assert answer.status_code == expected
                    assert "secret" not in answer.text
                    if expected == 404:  # the very answer that an id gets that never was
                        assert answer.json()["error"]["code"] == unknown["GET"].json()["error"]["code"]
    assert ann.get(f"/api/v1/runs/{run_id}").json()["state"] == "running"
    for name in ("eve", "operator"):
        with members.client(closed, name) as admin:
            assert admin.get(f"/api/v1/runs/{run_id}").json()["state"] == "running"
    with members.client(closed, "eve") as admin:
        assert admin.delete(f"/api/v1/runs/{run_id}").json()["result"]["verdict"] == "cancelled"
    assert ann.get(f"/api/v1/runs/{run_id}").json()["state"] == "ended"


def test_a_run_of_an_admin_is_not_for_users(closed: RunningServer, members: People, ann: httpx.Client) -> None:
    for name in ("eve", "operator"):
        with members.client(closed, name) as admin:
            run_id = admin.post("/api/v1/runs", json=program(), headers=ASYNC).json()["id"]
            assert admin.get(f"/api/v1/runs/{run_id}").status_code == 200
        assert ann.get(f"/api/v1/runs/{run_id}").status_code == 404


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_packages_are_changed_by_admins_only(closed: RunningServer, members: People, method: str) -> None:
    for name, status in ((None, 401), ("ann", 403), ("eve", 500), ("operator", 500)):
        with members.client(closed, name) as client:
            answer = client.request(method, "/api/v2/packages", json={"language": "bash", "version": "*"})
            assert answer.status_code == status
            if status == 500:  # Piston's answer to what cannot be done
                assert "installed" in answer.json()["message"]


def test_a_disabled_user_is_refused_and_an_enabled_one_let_in(closed: RunningServer, members: People) -> None:
    token = members.add("dora")
    members.ask("disable", "dora")
    headers = {"Authorization": f"Bearer {token}"}
    with members.client(closed, None) as client:
        assert client.post("/api/v1/runs", json=program(), headers=headers).status_code == 403
        members.ask("enable", "dora")
        # What this server remembers of her is a few seconds old at most.
        wait_until(lambda: client.post("/api/v1/runs", json=program(), headers=headers).status_code != 403)
        assert client.post("/api/v1/runs", json=program(), headers=headers).status_code == 200


def test_a_page_of_an_allowed_site_may_send_a_token(start_server: Any, members: People) -> None:
    server = start_server("--require-login", "--cors-origins", "https://page.example", env=members.environment())
    with members.client(server, None) as client:
        asked = {
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        answer = client.options("/api/v1/runs", headers=asked)
        assert answer.is_success
        allowed = answer.headers["access-control-allow-headers"].lower()
        assert "authorization" in allowed
        assert answer.headers["access-control-allow-origin"] == "https://page.example"


def test_without_required_login_the_run_id_is_enough(start_server: Any, members: People) -> None:
    server = start_server(env=members.environment())
    with members.client(server, None) as anonymous, members.client(server, "ann") as ann:
        run_id = anonymous.post("/api/v1/runs", json=program(), headers=ASYNC).json()["id"]
        assert anonymous.get(f"/api/v1/runs/{run_id}").status_code == 200
        assert ann.get(f"/api/v1/runs/{run_id}").status_code == 200
        own = ann.post("/api/v1/runs", json=program(), headers=ASYNC).json()["id"]
        assert anonymous.get(f"/api/v1/runs/{own}").status_code == 404
        wrong = {"Authorization": "Bearer wrong"}
        assert anonymous.post("/api/v1/runs", json=program(), headers=wrong).status_code == 401
        assert anonymous.post("/api/v2/packages", json={"language": "bash", "version": "*"}).status_code == 401
