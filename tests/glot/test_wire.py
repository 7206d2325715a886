"""Every route and every error on the wire."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import httpx
import pytest

import firebox
from tests.glot.conftest import Glot, files

TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
NOBODY = "00000000-0000-4000-8000-000000000000"


def check(answer: httpx.Response, status: int, body: Any) -> None:
    assert (answer.status_code, answer.json()) == (status, body)
    assert answer.headers["content-type"] == "application/json"


def test_root_links_to_the_api(glot: Glot) -> None:
    url = glot.server.url
    urls = {"admin": f"{url}/admin", "images": f"{url}/images", "languages": f"{url}/languages"}
    body = {"name": "firebox", "description": "Runs programs in sandboxes", "version": firebox.__version__, "urls": urls}
    check(glot.anonymous.get("/"), 200, body)
    check(glot.anonymous.get("/", headers={"Accept": "application/json"}), 200, body)


def test_root_is_a_page_in_a_browser(glot: Glot) -> None:
    answer = glot.anonymous.get("/", headers={"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    links = re.findall(r'href="([^"]+)"', answer.text)
    assert links
    for link in links:
        assert glot.anonymous.get(link, follow_redirects=True).status_code == 200, link


def test_languages_are_sorted_and_there_once(glot: Glot) -> None:
    entries = glot.anonymous.get("/languages").json()
    names = [entry["name"] for entry in entries]
    assert names == sorted(set(names))
    assert {"bash", "python"} <= set(names)
    assert {"name": "python", "url": f"{glot.server.url}/languages/python"} in entries


def test_versions_are_latest_and_exact_ones(glot: Glot) -> None:
    entries = glot.anonymous.get("/languages/python").json()
    assert [set(entry) for entry in entries] == [{"version", "url"}] * len(entries)
    versions = [entry["version"] for entry in entries]
    assert "latest" in versions
    assert any(re.fullmatch(r"\d+\.\d+\.\d+.*", version) for version in versions)
    for entry in entries:
        assert entry["url"] == f"{glot.server.url}/languages/python/{entry['version']}"
        answer = glot.user.post(entry["url"], json=files("print(1)"))
        check(answer, 200, {"stdout": "1\n", "stderr": "", "error": ""})


def test_images_name_what_runs(glot: Glot) -> None:
    entries = glot.anonymous.get("/images").json()
    images = [entry["image"] for entry in entries]
    assert len(set(images)) == len(images)
    python = next(entry for entry in entries if entry["image"].startswith("native:python@"))
    check(glot.user.post(python["url"], json=files("print(1)")), 200, {"stdout": "1\n", "stderr": "", "error": ""})


def test_admin_root(glot: Glot) -> None:
    url = glot.server.url
    check(glot.anonymous.get("/admin"), 200, {"urls": {"users": f"{url}/admin/users", "languages": f"{url}/admin/languages"}})


def test_life_of_a_user(glot: Glot) -> None:
    token, next_token = "0123456789-a-token-in-full", "another-token-in-full-9876"
    created = glot.admin.post("/admin/users", json={"token": token})
    assert created.status_code == 200
    user = created.json()
    assert list(user) == ["id", "token", "created", "modified", "url"]
    assert UUID4.fullmatch(user["id"])
    assert TIME.fullmatch(user["created"])
    assert TIME.fullmatch(user["modified"])
    assert user["url"] == f"{glot.server.url}/admin/users/{user['id']}"
    assert user["token"] == token

    shown = {**user, "token": "********full"}
    check(glot.admin.get(user["url"]), 200, shown)
    assert shown in glot.admin.get("/admin/users").json()
    assert glot.anonymous.post("/languages/python/latest", json=files("print(1)"), headers=bearing(token)).status_code == 200

    changed = glot.admin.put(user["url"], json={"token": next_token})
    assert changed.status_code == 200
    assert {**changed.json(), "modified": ""} == {**user, "token": next_token, "modified": ""}
    assert glot.anonymous.post("/languages/python/latest", json=files("print(1)"), headers=bearing(token)).status_code == 401
    assert glot.anonymous.post("/languages/python/latest", json=files("print(1)"), headers=bearing(next_token)).status_code == 200

    removed = glot.admin.delete(user["url"])
    assert (removed.status_code, removed.content) == (204, b"")
    check(glot.admin.get(user["url"]), 404, {"error": "not_found", "message": f"no such user: '{user['id']}'"})
    assert glot.anonymous.post("/languages/python/latest", json=files("print(1)"), headers=bearing(next_token)).status_code == 401


def test_a_token_belongs_to_one_user(glot: Glot) -> None:
    assert glot.admin.post("/admin/users", json={"token": "shared-by-two-users"}).status_code == 200
    answer = glot.admin.post("/admin/users", json={"token": "shared-by-two-users"})
    assert answer.status_code == 409
    assert answer.json()["error"] == "request.conflict"


def test_what_is_shown_of_a_token_never_logs_in(glot: Glot) -> None:
    for user in glot.admin.get("/admin/users").json():
        assert user["token"].startswith("********")
        assert glot.anonymous.post("/languages/python/latest", json=files("x"), headers=bearing(user["token"])).status_code == 401


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Token {token}"}


MISSING = {"error": "access_token", "message": "Missing auth token"}
WRONG = {"error": "access_token", "message": "Wrong auth token"}
ADMIN_ROUTES = [
    ("GET", "/admin/users"),
    ("POST", "/admin/users"),
    ("GET", f"/admin/users/{NOBODY}"),
    ("PUT", f"/admin/users/{NOBODY}"),
    ("DELETE", f"/admin/users/{NOBODY}"),
    ("GET", "/admin/languages"),
    ("PUT", "/admin/languages"),
    ("GET", "/admin/languages/x"),
    ("DELETE", "/admin/languages/x"),
]


@pytest.mark.parametrize(
    ("method", "path"), [*ADMIN_ROUTES, ("POST", "/languages/python/latest"), ("POST", "/languages/no/such")]
)
def test_a_token_is_needed(glot: Glot, method: str, path: str) -> None:
    answer = glot.anonymous.request(method, path)
    check(answer, 401, MISSING)
    assert answer.headers["www-authenticate"] == 'Token realm="firebox"'
    check(glot.anonymous.request(method, path, headers={"Authorization": "Basic bm9ib2R5Og=="}), 401, MISSING)


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
def test_a_user_is_no_admin(glot: Glot, method: str, path: str) -> None:
    answer = glot.user.request(method, path)
    check(answer, 401, WRONG)
    assert answer.headers["www-authenticate"] == 'Token realm="firebox"'


def test_a_wrong_token_is_refused(glot: Glot) -> None:
    for method, path in (ADMIN_ROUTES[0], ("POST", "/languages/python/latest")):
        answer = glot.anonymous.request(method, path, headers=bearing("nobody-has-this"))
        check(answer, 401, WRONG)
        assert answer.headers["www-authenticate"] == 'Token realm="firebox"'


def test_the_operators_token_is_for_the_admin_routes(glot: Glot) -> None:
    check(glot.admin.post("/languages/python/latest", json=files("print(1)")), 401, WRONG)


@pytest.mark.parametrize(
    ("path", "words"),
    [("/languages/klingon", "no such language: 'klingon'"), ("/languages/python%20/", "no such language: 'python '")],
)
def test_unknown_languages(glot: Glot, path: str, words: str) -> None:
    check(glot.anonymous.get(path), 404, {"error": "not_found", "message": words})


@pytest.mark.parametrize("path", ["/languages/klingon/latest", "/languages/python/0.0.1"])
def test_unknown_languages_cannot_run(glot: Glot, path: str) -> None:
    answer = glot.user.post(path, json=files("x"))
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/admin/users/x", f"/admin/users/{NOBODY}", "/admin/languages/0123456789abcdef"])
def test_unknown_ids(glot: Glot, path: str) -> None:
    for method in ("GET", "DELETE"):
        answer = glot.admin.request(method, path)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/languages/a/b/c", "/images/a", "/admin/a", "/admin/a/b", "/admin/users/a/b"])
def test_unknown_routes(glot: Glot, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        check(glot.admin.request(method, path), 404, {"error": "route.not_found", "message": "Route not found"})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/", "GET, HEAD"),
        ("POST", "/languages", "GET, HEAD"),
        ("DELETE", "/languages/python", "GET, HEAD"),
        ("GET", "/languages/python/latest", "POST"),
        ("PUT", "/images", "GET, HEAD"),
        ("POST", "/admin", "GET, HEAD"),
        ("DELETE", "/admin/users", "GET, HEAD, POST"),
        ("POST", f"/admin/users/{NOBODY}", "GET, HEAD, PUT, DELETE"),
        ("POST", "/admin/languages", "GET, HEAD, PUT"),
        ("PUT", "/admin/languages/x", "GET, HEAD, DELETE"),
    ],
)
def test_unknown_methods(glot: Glot, method: str, path: str, allowed: str) -> None:
    answer = glot.anonymous.request(method, path)
    check(answer, 405, {"error": "route.method_not_allowed", "message": "Method not allowed"})
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/languages", "/languages/python", "/images", "/admin"])
def test_head_is_get_without_a_body(glot: Glot, path: str) -> None:
    answer = glot.anonymous.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_links_begin_with_the_base_url(start_server: Any) -> None:
    server = start_server(env={"BASE_URL": "https://run.example.org/glot/"})
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/").json()["urls"]["languages"] == "https://run.example.org/glot/languages"
        (cpp,) = [entry for entry in client.get("/languages").json() if entry["name"] == "bash"]
        assert cpp["url"] == "https://run.example.org/glot/languages/bash"


def test_without_an_admin_token_the_admin_routes_are_closed_and_no_token_is_needed_to_run(start_server: Any) -> None:
    server = start_server()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        for method, path in ADMIN_ROUTES:
            check(client.request(method, path), 401, MISSING)
        check(client.get("/admin/users", headers=bearing("x")), 401, WRONG)
        check(client.post("/languages/python/latest", json=files("print(1)")), 200, {"stdout": "1\n", "stderr": "", "error": ""})
        check(client.post("/languages/python/latest", json=files("print(1)"), headers=bearing("x")), 401, WRONG)


def test_who_has_to_log_in_has_to_do_so_here(start_server: Any) -> None:
    server = start_server("--require-login")
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        check(client.post("/languages/python/latest", json=files("print(1)")), 401, MISSING)


def test_the_id_of_a_language_can_be_computed(glot: Glot) -> None:
    languages = glot.admin.get("/admin/languages").json()
    (python,) = [entry for entry in languages if (entry["name"], entry["version"]) == ("python", "latest")]
    assert python["id"] == hashlib.sha1(b"pythonlatest").hexdigest()
    assert python["image"].startswith("native:python@")
