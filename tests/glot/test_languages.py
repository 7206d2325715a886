"""Registering, changing, listing and removing languages."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.glot.conftest import ADMIN_TOKEN, Glot, client_of, files


def test_life_of_a_language(start_server: Any, tmp_path: Any) -> None:
    server = start_server("--data-dir", str(tmp_path), env={"ADMIN_TOKEN": ADMIN_TOKEN})
    with client_of(server, ADMIN_TOKEN) as admin, client_of(server, "the-token-of-a-user") as user:
        admin.post("/admin/users", json={"token": "the-token-of-a-user"})
        put = admin.put("/admin/languages", json={"name": "py", "version": "3", "image": "native:python@^3"})
        identifier = hashlib.sha1(b"py3").hexdigest()
        url = f"{server.url}/admin/languages/{identifier}"
        entry = {"id": identifier, "name": "py", "version": "3", "image": "native:python@^3"}
        assert (put.status_code, put.json()) == (200, {**entry, "url": url})
        assert list(put.json()) == ["id", "name", "version", "image", "url"]
        assert admin.get(url).json() == entry
        assert admin.get("/admin/languages").json() == [{**entry, "url": url}]
        assert admin.get("/languages").json() == [{"name": "py", "url": f"{server.url}/languages/py"}]
        assert admin.get("/images").json() == [{"image": "native:python@^3", "url": f"{server.url}/languages/py/3"}]
        assert user.post("/languages/py/3", json=files("print(3)")).json()["stdout"] == "3\n"
        assert user.post("/languages/python/latest", json=files("print(3)")).status_code == 404

        changed = admin.put("/admin/languages", json={"name": "py", "version": "3", "image": "native:bash"})
        assert changed.json() == {**entry, "image": "native:bash", "url": url}
        assert user.post("/languages/py/3", json=files("echo $BASH_VERSION", "main.sh")).json()["stdout"] != "\n"

        clash = admin.put("/admin/languages", json={"name": "p", "version": "y3", "image": "native:python"})
        assert (clash.status_code, clash.json()["error"]) == (409, "request.conflict")

        removed = admin.delete(url)
        assert (removed.status_code, removed.content) == (204, b"")
        assert admin.get(url).status_code == 404
        assert user.post("/languages/python/latest", json=files("print(3)")).json()["stdout"] == "3\n"


def test_what_the_host_brings_cannot_be_removed(glot: Glot) -> None:
    answer = glot.admin.delete(f"/admin/languages/{hashlib.sha1(b'pythonlatest').hexdigest()}")
    assert (answer.status_code, answer.json()["error"]) == (409, "request.conflict")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"version": "1", "image": "a"}, "Missing name"),
        ({"name": "a", "image": "a"}, "Missing version"),
        ({"name": "a", "version": "1"}, "Missing image"),
        ({"name": "a", "version": 1, "image": "a"}, "Missing version"),
        ({"name": "a/b", "version": "1", "image": "a"}, "name: must be a word of at most 100 characters"),
        ({"name": "a", "version": "..", "image": "a"}, "version: must be a word of at most 100 characters"),
        ({"name": "a" * 101, "version": "1", "image": "a"}, "name: must be a word of at most 100 characters"),
        ({"name": "a", "version": "1", "image": "not an image"}, "image: not the name of a container image"),
        ({"name": "a", "version": "1", "image": "--privileged"}, "image: not the name of a container image"),
        ({"name": "a", "version": "1", "image": "native:klingon"}, "no runtime matches 'klingon'"),
        ({"name": "a", "version": "1", "image": "native:python@9999"}, "no runtime matches 'python' at version '9999'"),
        ([], "the body is not a JSON object"),
    ],
)
def test_bad_languages_are_explained(glot: Glot, body: object, message: str) -> None:
    answer = glot.admin.put("/admin/languages", json=body)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(message)


@pytest.mark.parametrize(
    "body", [{}, {"token": ""}, {"token": 7}, {"token": "with space"}, {"token": "x" * 257}, {"token": "\u00e9"}, []]
)
def test_bad_tokens_are_explained(glot: Glot, body: object) -> None:
    answer = glot.admin.post("/admin/users", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "request.parse")


def test_the_operators_token_cannot_be_a_users(glot: Glot) -> None:
    assert glot.admin.post("/admin/users", json={"token": ADMIN_TOKEN}).status_code == 409
