"""Fixtures for both versions: a server with a repository of small packages."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.package_folder import FileServer, PackageFolder, serving
from tests.support.server import RunningServer, running_server


@dataclass
class Packaged:
    """A server, its repository folder, and the web server of the repository."""

    server: RunningServer
    folder: PackageFolder
    files: FileServer

    def client(self, version: str = "v3", **headers: str) -> httpx.Client:
        return httpx.Client(base_url=f"{self.server.url}/api/{version}", timeout=60, trust_env=False, headers=headers)


@contextmanager
def packaged(folder: Path, *flags: str) -> Generator[Packaged]:
    """Start both with a separate data folder. The repository has one package, `greet` 1.0.0."""
    repository = PackageFolder(folder / "repository")
    repository.path.mkdir()
    repository.add_archive("greet", "1.0.0")
    with (
        serving(repository.path) as files,
        running_server(
            "--data-dir", str(folder / "data"),
            "--repositories", f"main={files.url}/index.yaml",
            "--allow-unsigned-packages",
            *flags,
        ) as server,
    ):  # fmt: skip
        yield Packaged(server, repository, files)


def install(client: httpx.Client, package: str, version: str = "*", repository: str = "all", **headers: str) -> httpx.Response:
    """Request an installation from v3."""
    return client.post(f"/repos/{repository}/packages/{package}/{version}/install", json={}, headers=headers)


def must_install(client: httpx.Client, package: str, version: str = "*") -> None:
    """Install a package, which must succeed."""
    answer = install(client, package, version)
    assert answer.status_code == 200, answer.text


def sync(client: httpx.Client) -> None:
    """Make the server fetch the index again."""
    answer = client.get("/repos/main/packages", params={"sync": "true"})
    assert answer.status_code == 200, answer.text


def run(client: httpx.Client, package: str, version: str, code: str = "", **more: Any) -> httpx.Response:
    """Run a script with an installed package."""
    return client.post(f"/packages/{package}/{version}/execute", json={"code": code, **more})


def read_events(text: str) -> list[dict[str, Any]]:
    """Parse server-sent events, and check that both type fields agree."""
    found: list[dict[str, Any]] = []
    for block in text.strip().split("\n\n"):
        event, data = block.split("\n")
        document = json.loads(data.removeprefix("data: "))
        assert event == f"event: {document['type']}"
        found.append(document)
    return found
