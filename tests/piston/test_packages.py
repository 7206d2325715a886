"""The package routes of Piston v2: list, install, uninstall, and Piston's messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import require_tool
from tests.piston.packaged import Packaged, packaged, sync
from tests.support.server import RunningServer


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packaged]:
    """A server that does not wait for active runs when uninstalling."""
    with packaged(tmp_path_factory.mktemp("v2"), "--uninstall-wait-ms", "1") as started:
        yield started


@pytest.fixture(params=["v2", "v2/piston"])
def v2(here: Packaged, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with here.client(request.param) as opened:
        yield opened


def ask(client: httpx.Client, method: str, language: str, version: str = "*") -> tuple[int, Any]:
    answer = client.request(method, "/packages", json={"language": language, "version": version})
    return answer.status_code, answer.json()


def add(here: Packaged, name: str, *versions: str, **more: Any) -> None:
    for version in versions or ("1.0.0",):
        here.folder.add_archive(name, version, **more)
    with here.client() as v3:
        sync(v3)


def name_for(client: httpx.Client, name: str) -> str:
    """Return a distinct package name for each route prefix."""
    return f"{name}-{'long' if 'piston' in str(client.base_url) else 'short'}"


def listed(client: httpx.Client, name: str) -> list[tuple[str, bool]]:
    return [(each["language_version"], each["installed"]) for each in client.get("/packages").json() if each["language"] == name]


def test_required_bases_are_not_listed(here: Packaged, v2: httpx.Client) -> None:
    """`ppman spec` uninstalls all other packages, and would always fail on a base."""
    name = name_for(v2, "tower")
    add(here, f"{name}-base", runs=False)
    add(here, name, dependencies={f"{name}-base": "*"})
    assert listed(v2, f"{name}-base") == [("1.0.0", False)]
    assert ask(v2, "POST", name)[0] == 200
    assert listed(v2, name) == [("1.0.0", True)]
    assert listed(v2, f"{name}-base") == []
    assert ask(v2, "DELETE", f"{name}-base")[0] == 500
    assert ask(v2, "DELETE", name)[0] == 200
    assert listed(v2, f"{name}-base") == [("1.0.0", True)]
    assert ask(v2, "DELETE", f"{name}-base")[0] == 200


def test_the_newest_match_is_installed_and_uninstalled(here: Packaged, v2: httpx.Client) -> None:
    name = name_for(v2, "newest")
    add(here, name, "1.2.0", "1.10.0", "2.0.0", "2.1.0-rc.1")
    assert listed(v2, name) == [("2.1.0-rc.1", False), ("2.0.0", False), ("1.10.0", False), ("1.2.0", False)]
    assert ask(v2, "POST", name, "1.x") == (200, {"language": name, "version": "1.10.0"})
    assert ask(v2, "POST", name) == (200, {"language": name, "version": "2.0.0"})
    assert listed(v2, name) == [("2.1.0-rc.1", False), ("2.0.0", True), ("1.10.0", True), ("1.2.0", False)]
    found = {(each["language"], each["version"]) for each in v2.get("/runtimes").json()}
    assert {(name, "2.0.0"), (name, "1.10.0")} <= found
    ran = v2.post("/execute", json={"language": name, "version": "1.x", "files": [{"content": "echo $1"}], "args": ["x"]}).json()
    assert (ran["version"], ran["run"]["stdout"]) == ("1.10.0", f"{name} says hello from {name} 1.10.0\nx\n")
    assert ask(v2, "DELETE", name) == (200, {"language": name, "version": "2.0.0"})
    assert ask(v2, "DELETE", name) == (200, {"language": name, "version": "1.10.0"})
    assert listed(v2, name) == [("2.1.0-rc.1", False), ("2.0.0", False), ("1.10.0", False), ("1.2.0", False)]
    assert name not in {each["language"] for each in v2.get("/runtimes").json()}


def test_failures_use_pistons_messages(here: Packaged, v2: httpx.Client) -> None:
    name = name_for(v2, "words")
    add(here, name)
    assert ask(v2, "POST", "klingon", "1.x") == (404, {"message": "Requested package klingon-1.x does not exist"})
    assert ask(v2, "POST", name, "2.x") == (404, {"message": f"Requested package {name}-2.x does not exist"})
    assert ask(v2, "DELETE", "klingon") == (404, {"message": "Requested package klingon-* does not exist"})
    assert ask(v2, "DELETE", name) == (500, {"message": f"{name}-1.0.0 is not installed"})
    assert ask(v2, "POST", name)[0] == 200
    assert ask(v2, "POST", name) == (500, {"message": "Already installed"})
    assert ask(v2, "DELETE", name)[0] == 200


def test_an_alias_installs_nothing(here: Packaged, v2: httpx.Client) -> None:
    name = name_for(v2, "aliased")
    add(here, name, aliases=[f"{name}-alias"])
    assert ask(v2, "POST", name)[0] == 200
    for method in ("POST", "DELETE"):
        assert ask(v2, method, f"{name}-alias")[0] == 404


def test_host_runtimes_are_not_packages(here: Packaged, v2: httpx.Client) -> None:
    require_tool("bash")
    assert listed(v2, "bash") == []
    (version,) = [each["version"] for each in v2.get("/runtimes").json() if each["language"] == "bash"]
    for wanted in ("*", version):
        assert ask(v2, "POST", "bash", wanted) == (500, {"message": "Already installed"})
        status, body = ask(v2, "DELETE", "bash", wanted)
        assert (status, f"bash-{version} is part of the host" in body["message"]) == (500, True)
    assert ask(v2, "POST", "bash", "<1")[0] == 404


def test_a_package_takes_precedence_over_the_host(here: Packaged, v2: httpx.Client) -> None:
    require_tool("bash")
    version = "999.0.0" if name_for(v2, "") == "-short" else "999.1.0"  # published versions are final
    add(here, "bash", version)
    assert ask(v2, "POST", "bash") == (200, {"language": "bash", "version": version})
    body = {"language": "bash", "version": "*", "files": [{"content": ":"}]}
    assert v2.post("/execute", json=body).json()["version"] == version
    assert ask(v2, "DELETE", "bash") == (200, {"language": "bash", "version": version})
    assert v2.post("/execute", json=body).json()["version"] != version
    here.folder.entries = [entry for entry in here.folder.entries if entry["language"] != "bash"]
    add(here, name_for(v2, "without-bash"))


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    ("language", "version"),
    [
        ("../../etc", "*"),
        ("greet/../greet", "*"),
        ("\0", "*"),
        ("x" * 300, "*"),
        ("greet", "x" * 300),
        ("greet", "../1.0.0"),
        ("greet", "not a range"),
        ("greet", "\0"),
        ("greet", ">" * 200),
        ("-rf", "*"),
        ("ＧＲＥＥＴ", "*"),
        (" ", "*"),
    ],
)
def test_hostile_selectors_are_refused(v2: httpx.Client, method: str, language: str, version: str) -> None:
    before = v2.get("/packages").json()
    status, body = ask(v2, method, language, version)
    assert status in (400, 404)
    assert body["message"]
    assert v2.get("/packages").json() == before


@pytest.mark.parametrize("body", [b'{"language": "\\ud800", "version": "*"}', b'{"language": "greet", "version": "\\udfff"}'])
def test_half_a_character_is_refused(v2: httpx.Client, body: bytes) -> None:
    answer = v2.post("/packages", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "lone surrogate" in answer.json()["message"]


def test_a_file_that_contains_a_different_package_is_rejected(here: Packaged, v2: httpx.Client) -> None:
    name = name_for(v2, "exchanged")
    add(here, name, announced={"checksums": {"sha256": "f" * 64}})
    status, body = ask(v2, "POST", name)
    assert status == 500
    assert f"{name}-1.0.0" in body["message"]
    assert listed(v2, name) == [("1.0.0", False)]


def test_a_package_in_use_is_not_uninstalled(here: Packaged, v2: httpx.Client) -> None:
    name = name_for(v2, "busy")
    add(here, name)
    assert ask(v2, "POST", name)[0] == 200
    code = "echo up; while :; do :; done"
    with here.client("v1") as native:
        started = native.post("/runs", json={"language": name, "code": code}, headers={"Prefer": "respond-async"}).json()["id"]
        with native.stream("GET", f"/runs/{started}/events") as events:
            for line in events.iter_lines():
                if '"data":"up' in line or "up\\n" in line:
                    break
            status, refused = ask(v2, "DELETE", name)
            assert status == 500
            assert f"{name}-1.0.0 is in use by active runs" in refused["message"]
            assert "uninstall_wait_ms" in refused["message"], "Piston's clients show nothing but the message"
            assert listed(v2, name) == [("1.0.0", True)]
            native.delete(f"/runs/{started}")
    assert ask(v2, "DELETE", name) == (200, {"language": name, "version": "1.0.0"})


@pytest.mark.slow
def test_an_unreachable_repository_is_named(start_server: Any, tmp_path: Any) -> None:
    server: RunningServer = start_server(
        "--data-dir", str(tmp_path), "--repositories", "gone=http://127.0.0.1:1/index.yaml", "--allow-unsigned-packages"
    )
    with httpx.Client(base_url=f"{server.url}/api", timeout=120, trust_env=False) as client:
        for answer, status in (
            (client.get("/v2/packages"), 500),
            (client.post("/v2/packages", json={"language": "python", "version": "*"}), 500),
            (client.get("/v3/repos/gone/packages"), 502),
        ):
            assert answer.status_code == status
            assert "gone" in answer.json()["message"]
        assert client.get("/v2/runtimes").status_code == 200
