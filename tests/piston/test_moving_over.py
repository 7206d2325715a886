"""Someone who moves over with nothing but Piston's names, and goes on with Piston's command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx
import pytest
import semantic_version

from tests.support.package_commands import PackageCommands
from tests.support.package_folder import PackageFolder, serving
from tests.support.server import running_server

ALLOW = "FIREBOX_ALLOW_UNSIGNED_PACKAGES=true"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve packages of Piston's with an index in Piston's form, on the network; return its URL."""
    folder = PackageFolder(tmp_path_factory.mktemp("repository"))
    for name, version in (("greet", "1.0.0"), ("greet", "1.1.0"), ("polite", "2.0.0")):
        folder.add_archive(name, version)
    with serving(folder.path) as files:
        lines = [
            f"{each['language']},{each['version']},{each['checksums']['sha256']},{files.url}/{each['download']}"
            for each in folder.entries
        ]
        (folder.path / "index").write_text("\n".join(lines) + "\n")
        yield f"{files.url}/index"


def test_who_may_not_install_is_told_what_to_do(repository: str, tmp_path: Path) -> None:
    body = {"language": "greet", "version": "*"}
    with (
        running_server("--data-dir", str(tmp_path), env={"PISTON_REPO_URL": repository}) as server,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
    ):
        at_start = server.log.read_text()
        assert ALLOW in at_start
        assert "firebox packages trust default" in at_start
        refused = client.post("/api/v2/packages", json=body)
        assert refused.status_code == 500
        assert ALLOW in refused.json()["message"]
        refused = client.post("/api/v3/repos/all/packages/greet/*/install", json={})
        assert refused.status_code == 502
        assert ALLOW in refused.json()["hint"]
        assert ALLOW not in refused.json()["message"]
        assert ALLOW in server.log.read_text().removeprefix(at_start)
    commands = PackageCommands(tmp_path)
    asked = commands("install", "greet", env={"FIREBOX_REPOSITORIES": "", "PISTON_REPO_URL": repository})
    assert asked.returncode == 125
    assert ALLOW in asked.stderr
    name, value = ALLOW.split("=")
    done = commands("install", "greet", env={"FIREBOX_REPOSITORIES": "", "PISTON_REPO_URL": repository, name: value})
    assert done.returncode == 0, done.stderr
    assert commands.installed() == ["greet-1.1.0"]


@dataclass(frozen=True)
class Operation:
    """A request of Piston's command line, and the answer."""

    method: str
    language: str
    version: str
    answer: dict[str, Any]


def ppman_spec(client: httpx.Client, rules: list[tuple[str, str]]) -> list[Operation]:
    """Do what `ppman spec` does: install what the rules choose, the newest of each name, and uninstall everything else.

    Source: Piston, "cli/commands/ppman_commands/spec.js".
    """
    listed: list[dict[str, Any]] = client.get("/packages").raise_for_status().json()
    chosen: set[tuple[str, str]] = set()
    for glob, allowed in rules:
        newest: dict[str, semantic_version.Version] = {}
        for each in listed:
            version = semantic_version.Version(each["language_version"])
            if fnmatchcase(each["language"], glob) and version in semantic_version.NpmSpec(allowed):
                newest[each["language"]] = max(version, newest.get(each["language"], version))
        chosen |= {(language, str(version)) for language, version in newest.items()}
    installed = {(each["language"], each["language_version"]) for each in listed if each["installed"]}
    done: list[Operation] = []
    for method, names in (("POST", chosen - installed), ("DELETE", installed - chosen)):
        for language, version in sorted(names):
            answer = client.request(method, "/packages", json={"language": language, "version": version})
            done.append(Operation(method, language, version, answer.json()))
    return done


def test_a_spec_file_is_applied_without_a_failure_and_then_leaves_nothing_to_do(repository: str, tmp_path: Path) -> None:
    name, value = ALLOW.split("=")
    environ = {"PISTON_REPO_URL": repository, name: value}
    with (
        running_server("--data-dir", str(tmp_path), env=environ) as server,
        httpx.Client(base_url=f"{server.url}/api/v2", timeout=60, trust_env=False) as client,
    ):
        assert client.get("/runtimes").json(), "this host has languages, and they are no packages"
        for rules, expected in (
            ([("greet", "1.0.x"), ("pol*", "*")], [("POST", "greet", "1.0.0"), ("POST", "polite", "2.0.0")]),
            ([("greet", "1.0.x"), ("pol*", "*")], []),
            ([("greet", "*")], [("POST", "greet", "1.1.0"), ("DELETE", "greet", "1.0.0"), ("DELETE", "polite", "2.0.0")]),
            ([("*", "*")], [("POST", "polite", "2.0.0")]),
            ([], [("DELETE", "greet", "1.1.0"), ("DELETE", "polite", "2.0.0")]),
        ):
            done = ppman_spec(client, rules)
            assert [(each.method, each.language, each.version) for each in done] == expected
            assert [each.answer for each in done] == [{"language": each.language, "version": each.version} for each in done]
