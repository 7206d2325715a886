"""Piston v3: packages from a repository, installed and run by a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.piston.packaged import Packaged, install, must_install, packaged, read_events, run, sync
from tests.support.package_folder import AUTHOR, PackageFolder, serving
from tests.support.repository import announced, new_key, trust, write_index
from tests.support.server import RunningServer
from tests.support.waiting import wait_until

EVENT_STREAM = "text/event-stream"
LINES = "application/x-ndjson"
SETTINGS = """
[cache_levels]
"settled-1.0.0" = "output"

[limit_overrides."settled-1.0.0"]
run_output_bytes = 1000
"""
"""Overrides for one package, as an operator configures them."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packaged]:
    folder = tmp_path_factory.mktemp("v3")
    (folder / "data").mkdir()
    (folder / "data" / "firebox.toml").write_text(SETTINGS)
    with packaged(folder, "--slots", "4") as started:
        yield started


@pytest.fixture
def v3(here: Packaged) -> Iterator[httpx.Client]:
    with here.client() as opened:
        yield opened


def add(here: Packaged, client: httpx.Client, name: str, version: str = "1.0.0", **more: Any) -> None:
    here.folder.add_archive(name, version, **more)
    sync(client)


def test_repositories_are_listed(v3: httpx.Client) -> None:
    assert v3.get("/repos").json() == [{"name": "main"}]


def test_a_repository_package_has_all_fields_of_the_index(here: Packaged, v3: httpx.Client) -> None:
    shown = v3.get("/repos/main/packages/greet/1.x").json()
    announced = here.folder.entries[0]
    assert shown == {
        "package": "greet", "version": "1.0.0", "repository": "main", "author": AUTHOR, "size_bytes": 4096, "architecture": "",
        "checksums": announced["checksums"], "dependencies": {}, "buildfile": "https://example.com/greet",
        "download": f"{here.files.url}/greet-1.0.0.pkg.tar.gz", "signed": False, "installed": False,
    }  # fmt: skip
    for repository in ("main", "all"):
        assert shown in v3.get(f"/repos/{repository}/packages").json()


@pytest.mark.parametrize(
    ("method", "path", "hint"),
    [
        (
            "GET",
            "/repos/main/packages/lua/*",
            "Firebox has a recipe: `firebox packages install --build lua` builds and installs it",
        ),
        ("POST", "/repos/all/packages/kt/2.x/install", "Firebox has a recipe: `firebox packages install --build kotlin` builds"),
        ("POST", "/packages/befunge93/1.0.0/execute", "`firebox packages install --build befunge93` builds it"),
        ("DELETE", "/packages/lua/5.4.7", "`firebox packages install --build lua` builds it"),
        ("GET", "/repos/main/packages/greet/9.x", "available versions of greet: 1.0.0"),
        ("GET", "/repos/nowhere/packages/lua/*", ""),
        ("GET", "/repos/main/packages/klingon/*", ""),
    ],
)
def test_a_missing_package_has_an_installation_hint(v3: httpx.Client, method: str, path: str, hint: str) -> None:
    answer = v3.request(method, path, json={"files": [{"content": "x"}]} if method == "POST" else None)
    assert (answer.status_code, answer.json()["code"]) == (404, "request.not_found")
    assert answer.json().get("hint", "").startswith(hint)
    assert ("hint" in answer.json()) == bool(hint)


def test_an_index_is_fetched_again_on_request(here: Packaged, v3: httpx.Client) -> None:
    v3.get("/repos/main/packages")
    here.folder.add_archive("fresh", "1.0.0")
    assert v3.get("/repos/main/packages/fresh/*").status_code == 404
    listed = v3.get("/repos/all/packages", params={"sync": "true"}).json()
    assert "fresh" in {each["package"] for each in listed}
    assert v3.get("/repos/main/packages/fresh/*").json()["version"] == "1.0.0"


def test_a_package_is_installed_run_and_uninstalled(here: Packaged, v3: httpx.Client) -> None:
    add(here, v3, "alpha", aliases=["al"])
    answer = install(v3, "alpha")
    assert (answer.status_code, answer.json()) == (
        200,
        {"type": "result", "package": "alpha", "version": "1.0.0", "installed": ["alpha-1.0.0"]},
    )
    shown = v3.get("/packages/alpha/1.0.0").json()
    assert shown in v3.get("/packages").json()
    assert shown["runtimes"] == [{"language": "alpha", "version": "1.0.0", "aliases": ["al"]}]
    assert (shown["id"], shown["repository"], shown["requires"]) == ("alpha-1.0.0", "main", [])
    assert shown["size_bytes"] > 0
    assert v3.get("/repos/main/packages/alpha/1.0.0").json()["installed"] is True

    ran = run(v3, "alpha", "1.0.0", "echo $1; cat; echo err >&2; exit 3", args=["a b"], stdin="in").json()
    assert {key: ran[key] for key in ("package", "version", "language", "language_version", "cache")} == {
        "package": "alpha", "version": "1.0.0", "language": "alpha", "language_version": "1.0.0", "cache": "none",
    }  # fmt: skip
    stage = ran["run"]
    assert stage["stdout"] == "alpha says hello from alpha 1.0.0\na b\nin"
    assert (stage["stderr"], stage["code"], stage["signal"], stage["status"]) == ("err\n", 3, None, "RE")
    assert stage["memory"] > 0
    assert "compile" not in ran

    removed = v3.delete("/packages/alpha/1.0.0")
    assert (removed.status_code, removed.json()) == (200, {"package": "alpha", "version": "1.0.0"})
    for answer in (v3.get("/packages/alpha/1.0.0"), v3.delete("/packages/alpha/1.0.0"), run(v3, "alpha", "1.0.0", ":")):
        assert (answer.status_code, answer.json()["code"]) == (404, "request.not_found")
    assert "alpha" not in {each["language"] for each in runtimes(here)}


def runtimes(here: Packaged) -> list[dict[str, Any]]:
    with here.client("v1") as native:
        found: list[dict[str, Any]] = native.get("/runtimes").json()
        return found


def test_an_image_is_installed_and_run_through_other_doors_too(here: Packaged, v3: httpx.Client) -> None:
    here.folder.add_image("pictured", "2.1.0")
    sync(v3)
    must_install(v3, "pictured")
    own = next(each for each in runtimes(here) if each["language"] == "pictured")
    assert (own["version"], own["installed"]) == ("2.1.0", "pictured-2.1.0")
    assert next(each for each in runtimes(here) if each["language"] == "bash")["installed"] is None
    said = "pictured says hello from pictured 2.1.0\nit runs\n"
    assert run(v3, "pictured", "2.1.0", "echo it runs").json()["run"]["stdout"] == said
    with here.client("v2") as v2:
        body = {"language": "pictured", "version": "2.x", "files": [{"content": "echo it runs"}]}
        assert v2.post("/execute", json=body).json()["run"]["stdout"] == said


def test_several_versions_coexist(here: Packaged, v3: httpx.Client) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        add(here, v3, "many", version)
    assert install(v3, "many", "1.x").json()["version"] == "1.1.0"
    assert install(v3, "many", "2.0.0").json()["version"] == "2.0.0"
    for version in ("1.1.0", "2.0.0"):
        assert run(v3, "many", version).json()["run"]["stdout"] == f"many says hello from many {version}\n"
    assert run(v3, "many", "1.0.0").status_code == 404


def test_dependencies_are_installed_and_protected(here: Packaged, v3: httpx.Client) -> None:
    add(here, v3, "below")
    add(here, v3, "above", dependencies={"below": "1.x"})
    assert install(v3, "above").json()["installed"] == ["below-1.0.0", "above-1.0.0"]
    assert v3.get("/packages/above/1.0.0").json()["requires"] == ["below-1.0.0"]
    refused = v3.delete("/packages/below/1.0.0")
    assert refused.status_code == 409
    assert "above-1.0.0" in refused.json()["message"]
    assert v3.delete("/packages/above/1.0.0").status_code == 200
    assert v3.delete("/packages/below/1.0.0").status_code == 200


def test_a_package_with_several_languages_requires_a_choice(here: Packaged, v3: httpx.Client) -> None:
    provides = [{"language": "french", "aliases": ["fr"], "limit_overrides": {}}, {"language": "german", "aliases": []}]
    add(here, v3, "babel", provides=provides)
    must_install(v3, "babel")
    refused = run(v3, "babel", "1.0.0")
    assert refused.status_code == 400
    assert "french, german" in refused.json()["message"]
    for language, expected in (("fr", "french"), ("german", "german")):
        ran = run(v3, "babel", "1.0.0", language=language).json()
        assert (ran["package"], ran["language"]) == ("babel", expected)
        assert ran["run"]["stdout"].startswith(f"{expected} says")
    assert run(v3, "babel", "1.0.0", language="bash").status_code == 400
    assert run(v3, "babel", "1.0.0", language=5).status_code == 400


def test_a_job_runs_with_the_requested_package_despite_a_name_conflict(here: Packaged, v3: httpx.Client) -> None:
    for name in ("first", "second"):
        add(here, v3, name, provides=[{"language": "shared", "aliases": []}])
        must_install(v3, name)
    for name in ("first", "second"):
        ran = run(v3, name, "1.0.0").json()
        assert (ran["package"], ran["language"]) == (name, "shared")
        assert ran["run"]["stdout"] == f"shared says hello from {name} 1.0.0\n"


def test_an_installed_package_is_not_installed_again(here: Packaged, v3: httpx.Client) -> None:
    add(here, v3, "once")
    must_install(v3, "once")
    for accept in ("application/json", EVENT_STREAM):
        again = install(v3, "once", "1.0.0", Accept=accept)
        assert (again.status_code, again.json()) == (409, {"message": "Already installed", "code": "request.conflict"})
    assert v3.delete("/packages/once/1.0.0").status_code == 200
    must_install(v3, "once")


@pytest.mark.parametrize("accept", [EVENT_STREAM, LINES, f"text/html, {LINES};q=0.9, */*;q=0.1"])
def test_an_installation_is_streamed_to_its_result(here: Packaged, v3: httpx.Client, accept: str) -> None:
    name = f"streamed-{abs(hash(accept)) % 10**6}"
    add(here, v3, name)
    answer = install(v3, name, Accept=accept)
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in accept
    messages = read_events(answer.text) if media_type == EVENT_STREAM else [json.loads(line) for line in answer.text.splitlines()]
    *progress, last = messages
    assert last == {"type": "result", "package": name, "version": "1.0.0", "installed": [f"{name}-1.0.0"]}
    assert {each["type"] for each in progress} == {"progress"}
    assert {each["package"] for each in progress} == {f"{name}-1.0.0"}
    download = [each for each in progress if each["step"] == "download"][-1]
    assert download["done"] == download["total"] == (here.folder.path / f"{name}-1.0.0.pkg.tar.gz").stat().st_size


def test_a_stream_ends_with_the_failure(here: Packaged, v3: httpx.Client) -> None:
    add(here, v3, "damaged", announced={"checksums": {"sha256": "0" * 64}})
    streamed = read_events(install(v3, "damaged", Accept=EVENT_STREAM).text)
    assert {each["type"] for each in streamed[:-1]} <= {"progress"}
    assert (streamed[-1]["type"], streamed[-1]["status"], streamed[-1]["code"]) == ("error", 502, "package.checksum")
    plain = install(v3, "damaged")
    assert (plain.status_code, plain.json()["code"]) == (502, "package.checksum")
    assert "damaged-1.0.0" in plain.json()["message"]
    assert v3.get("/packages/damaged/1.0.0").status_code == 404


def test_an_installation_survives_a_disconnect(here: Packaged, v3: httpx.Client) -> None:
    add(here, v3, "left-alone")
    with here.files.holding("left-alone-1.0.0.pkg.tar.gz") as let_go:
        with v3.stream("POST", "/repos/all/packages/left-alone/*/install", json={}, headers={"Accept": LINES}) as answer:
            assert json.loads(next(answer.iter_lines()))["type"] == "progress"
        assert v3.get("/packages/left-alone/1.0.0").status_code == 404
        let_go.set()
        wait_until(lambda: v3.get("/packages/left-alone/1.0.0").status_code != 404)
    assert run(v3, "left-alone", "1.0.0").status_code == 200


def test_clients_share_an_installation_in_progress(here: Packaged, v3: httpx.Client) -> None:
    add(here, v3, "shared-work")
    file = "shared-work-1.0.0.pkg.tar.gz"
    with (
        here.files.holding(file) as let_go,
        here.client() as other,
        ThreadPoolExecutor() as threads,
        v3.stream("POST", "/repos/main/packages/shared-work/1.0.0/install", json={}, headers={"Accept": LINES}) as first,
    ):
        lines = first.iter_lines()
        assert json.loads(next(lines))["type"] == "progress"
        with other.stream("POST", "/repos/all/packages/shared-work/*/install", json={}, headers={"Accept": LINES}) as second:
            others = second.iter_lines()
            assert json.loads(next(others))["type"] == "progress"
            third = threads.submit(v2_install, here, "shared-work")
            let_go.set()
            results = [json.loads(list(each)[-1]) for each in (lines, others)]
        plain = third.result()
    assert results == [{"type": "result", "package": "shared-work", "version": "1.0.0", "installed": ["shared-work-1.0.0"]}] * 2
    # It may have arrived after the end.
    assert plain.json() in ({"language": "shared-work", "version": "1.0.0"}, {"message": "Already installed"})
    assert here.files.times(f"/{file}") == 1


def v2_install(here: Packaged, name: str) -> httpx.Response:
    with here.client("v2") as client:
        return client.post("/packages", json={"language": name, "version": "*"})


def test_only_packages_signed_by_a_trusted_key_are_installed(tmp_path: Path, start_server: Callable[..., RunningServer]) -> None:
    folder = PackageFolder(tmp_path / "repository")
    folder.path.mkdir()
    key, stranger = new_key(), new_key()
    files = {name: folder.add_archive(name, "1.0.0") for name in ("signed", "forged", "bare")}
    signers = {"signed": key, "forged": stranger, "bare": None}
    write_index(folder.path, [announced(file, name, "1.0.0", signers[name]) for name, file in files.items()], key)
    trust(tmp_path / "data", "main", key)
    with serving(folder.path) as web:
        repositories = f"main={web.url}/index.yaml open={web.url}/index.yaml"
        server = start_server("--data-dir", str(tmp_path / "data"), "--repositories", repositories)
        with httpx.Client(base_url=f"{server.url}/api/v3", timeout=60, trust_env=False) as client:
            listed = {each["package"]: each["signed"] for each in client.get("/repos/main/packages").json()}
            assert listed == {"signed": True, "forged": True, "bare": False}
            for name, repository in (("forged", "main"), ("bare", "main"), ("signed", "open")):
                refused = install(client, name, repository=repository)
                assert (refused.status_code, refused.json()["code"]) == (502, "package.not_trusted")
            must_install(client, "signed")
            assert [each["id"] for each in client.get("/packages").json()] == ["signed-1.0.0"]


def test_shutdown_leaves_no_partial_installation(tmp_path: Path) -> None:
    with packaged(tmp_path) as there, there.client() as client:
        file = there.folder.add_archive("cut-off", "1.0.0")
        sync(client)
        with (
            there.files.holding(file.name),
            client.stream("POST", "/repos/all/packages/cut-off/*/install", json={}, headers={"Accept": LINES}) as answer,
        ):
            lines = answer.iter_lines()
            assert json.loads(next(lines))["type"] == "progress"
            assert there.server.stop() == 0
            last = json.loads(list(lines)[-1])
        assert (last["type"], last["status"]) == ("error", 503)
    packages = tmp_path / "data" / "packages"
    assert not list(packages.glob("installed/*"))
    assert not list(packages.glob("installing/*/package.json"))


def test_a_corrupt_package_can_be_uninstalled(here: Packaged, v3: httpx.Client) -> None:
    for name in ("unreadable", "whole"):
        add(here, v3, name)
    must_install(v3, "unreadable")
    installed = here.folder.path.parent / "data" / "packages" / "installed"
    (installed / "unreadable-1.0.0" / "package.json").write_text("{")
    must_install(v3, "whole")  # the server reloads
    assert v3.get("/packages/unreadable/1.0.0").status_code == 404
    assert v3.delete("/packages/unreadable/1.0.0").json() == {"package": "unreadable", "version": "1.0.0"}
    assert not (installed / "unreadable-1.0.0").exists()
    assert v3.delete("/packages/unreadable/1.0.0").status_code == 404


def test_an_uninstallation_waits_for_the_run_and_refuses_new_ones(here: Packaged, v3: httpx.Client) -> None:
    add(here, v3, "in-use")
    must_install(v3, "in-use")
    url = here.server.url.replace("http", "ws") + "/api/v2/connect"
    with connect(url, proxy=None) as socket, ThreadPoolExecutor() as threads:
        begin = {"type": "init", "language": "in-use", "version": "*", "files": [{"content": "echo up; read line; echo $line"}]}
        socket.send(json.dumps(begin))
        output = ""
        while "up\n" not in output:
            output += json.loads(socket.recv(timeout=60)).get("data", "")
        going = threads.submit(delete, here, "in-use")
        answers: list[httpx.Response] = []

        def is_refused() -> bool:
            answers.append(run(v3, "in-use", "1.0.0", ":"))
            return answers[-1].status_code != 200

        wait_until(is_refused)
        assert answers[-1].status_code == 409
        assert "in-use-1.0.0" in answers[-1].json()["message"]
        assert not going.done()
        socket.send(json.dumps({"type": "data", "stream": "stdin", "data": "the end\n"}))
        while "the end\n" not in output:
            output += json.loads(socket.recv(timeout=60)).get("data", "")
        assert going.result().status_code == 200
    assert v3.get("/packages/in-use/1.0.0").status_code == 404


def delete(here: Packaged, name: str) -> httpx.Response:
    with here.client() as client:
        return client.delete(f"/packages/{name}/1.0.0")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/packages/greet/1.0.0/cache"),
        ("POST", "/packages/greet"),
        ("GET", "/packages/greet"),
        ("PUT", "/packages/greet/1.0.0"),
        ("GET", "/repos/main"),
        ("POST", "/repos"),
        ("GET", "/repos/main/packages/greet"),
        ("GET", "/repos/main/packages/greet/1.0.0/install"),
        ("GET", "/"),
        ("GET", "/nothing"),
    ],
)
def test_an_unknown_route_is_answered_in_pistons_shape(v3: httpx.Client, method: str, path: str) -> None:
    answer = v3.request(method, path, json={})
    assert (answer.status_code, answer.json()) == (404, {"message": "Not Found"})


@pytest.mark.parametrize(
    "path", ["/repos/main/packages/greet/1.0.0/install", "/packages/greet/1.0.0/execute"], ids=["install", "execute"]
)
def test_cross_site_posts_are_rejected(v3: httpx.Client, path: str) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        headers = {"Content-Type": content_type} if content_type else {}
        answer = v3.post(path, content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "http.unsupported_body")


def test_cross_origin_requests_are_rejected(here: Packaged) -> None:
    with here.client(Origin="https://evil.example") as page:
        answer = page.get("/packages")
        assert "access-control-allow-origin" not in answer.headers
        asked = page.options("/packages/greet/1.0.0", headers={"Access-Control-Request-Method": "DELETE"})
        assert "access-control-allow-origin" not in asked.headers


EXECUTIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "code is required as a string, or files as an array"),
    ({"code": "", "files": []}, "code and files exclude each other"),
    ({"code": 5}, "code is required as a string"),
    ({"files": {}}, "files is required as an array"),
    ({"files": [{"name": "a"}]}, "files[0].content is required as a string"),
    ({"code": "", "cache": "all"}, "cache must be one of none, binary, output"),
    ({"code": "", "cache": ["none"]}, "cache must be one of none, binary, output"),
    ({"code": "", "stdin": 5}, "stdin must be a string"),
    ({"code": "", "args": "x"}, "args must be an array of strings"),
    ({"code": "", "run_timeout": "soon"}, "If specified, run_timeout must be a number"),
    ({"code": "", "run_timeout": 10**9}, "run_timeout cannot exceed the configured limit of 60000"),
    ({"files": [{"name": "../x", "content": ""}]}, "files[0].name: '../x' has the component '..'"),
]


@pytest.mark.parametrize(("body", "message"), EXECUTIONS, ids=[message for _, message in EXECUTIONS])
def test_an_invalid_job_is_explained(here: Packaged, v3: httpx.Client, body: dict[str, Any], message: str) -> None:
    install(v3, "greet")
    answer = v3.post("/packages/greet/1.0.0/execute", json=body)
    assert (answer.status_code, answer.json()["message"]) == (400, message)


def test_the_response_contains_the_cache_level(here: Packaged, v3: httpx.Client) -> None:
    install(v3, "greet")
    code = "echo $$; echo for the cache"
    plain, first, second = (run(v3, "greet", "1.0.0", code, cache=level).json() for level in ("none", "output", "output"))
    assert [each["cache"] for each in (plain, first, second)] == ["none", "none", "output"]
    assert second["run"]["stdout"] == first["run"]["stdout"]


def test_a_package_can_enable_output_caching(here: Packaged, v3: httpx.Client) -> None:
    add(here, v3, "keeping", cache="output")
    add(here, v3, "misspelt", cache="always")
    must_install(v3, "keeping")
    assert [run(v3, "keeping", "1.0.0", "echo $$").json()["cache"] for _ in range(2)] == ["none", "output"]
    refused = install(v3, "misspelt")
    assert (refused.status_code, refused.json()["code"]) == (422, "package.unusable")


def test_the_operator_can_override_cache_and_limits_of_a_package(here: Packaged, v3: httpx.Client) -> None:
    for version in ("1.0.0", "1.1.0"):
        add(here, v3, "settled", version)
        must_install(v3, "settled", version)
    much = "i=0; while [ $i -lt 200 ]; do echo 12345678; i=$((i+1)); done"
    for version, level, status in (("1.0.0", "output", "OL"), ("1.1.0", "none", None)):
        served = [run(v3, "settled", version, "echo $$").json()["cache"] for _ in range(2)]
        assert served == ["none", level]
        assert run(v3, "settled", version, "echo $$", cache="none").json()["cache"] == "none", "a request decides for itself"
        assert run(v3, "settled", version, much, cache="none").json()["run"]["status"] == status


def test_files_and_limits_are_those_of_version_2(here: Packaged, v3: httpx.Client) -> None:
    install(v3, "greet")
    files = [
        {"name": "main.sh", "content": ". ./lib/more.sh"},
        {"name": "lib/more.sh", "content": "6563686f206d6f72650a", "encoding": "hex"},
    ]
    ran = v3.post("/packages/greet/1.0.0/execute", json={"files": files}).json()
    assert ran["run"]["stdout"] == "greet says hello from greet 1.0.0\nmore\n"
    ran = run(v3, "greet", "1.0.0", "while :; do :; done", run_timeout=300).json()
    assert (ran["run"]["status"], ran["run"]["signal"]) == ("TO", "SIGKILL")


HOSTILE = [
    "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "a%00b", "%ff", "%ed%a0%80", "*", "x" * 300, "%0ag", "a%20b", "~root", "-rf",
    "greet;id", "$(id)", "%F0%9F%94%A5",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_everywhere(here: Packaged, v3: httpx.Client, name: str) -> None:
    before = v3.get("/packages").json()
    for method, path in (
        ("GET", f"/repos/{name}/packages"),
        ("GET", f"/repos/{name}/packages/greet/1.0.0"),
        ("GET", f"/repos/main/packages/{name}/1.0.0"),
        ("POST", f"/repos/all/packages/{name}/*/install"),
        ("POST", f"/repos/all/packages/greet/{name if name != '*' else '9.x'}/install"),
        ("GET", f"/packages/{name}/1.0.0"),
        ("GET", f"/packages/greet/{name}"),
        ("DELETE", f"/packages/{name}/1.0.0"),
        ("DELETE", f"/packages/greet/{name}"),
        ("POST", f"/packages/{name}/1.0.0/execute"),
    ):
        answer = v3.request(method, path, json={"code": ""} if method == "POST" else None)
        assert answer.status_code in (400, 404), (method, path, answer.text)
        assert answer.json()["message"]
    assert v3.get("/packages").json() == before


@pytest.mark.parametrize("value", ["yes", "1", "", "True"])
def test_sync_is_true_or_false(v3: httpx.Client, value: str) -> None:
    assert v3.get("/repos/main/packages", params={"sync": value}).status_code == 400


def test_the_cache_of_a_package_can_be_purged(here: Packaged, v3: httpx.Client) -> None:
    install(v3, "greet")
    code = "echo $$; echo to be purged"
    run(v3, "greet", "1.0.0", code, cache="output")
    assert run(v3, "greet", "1.0.0", code, cache="output").json()["cache"] == "output"
    purged = v3.delete("/packages/greet/1.0.0/cache")
    assert purged.status_code == 200
    assert purged.json()["entries"] >= 1
    assert v3.delete("/packages/greet/1.0.0/cache").json() == {"package": "greet", "version": "1.0.0", "entries": 0}
    assert run(v3, "greet", "1.0.0", code, cache="output").json()["cache"] == "none"
    assert v3.delete("/packages/nothing/1.0.0/cache").status_code == 404
