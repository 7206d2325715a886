"""A server that installs from a repository of small packages; what the tests of both versions share."""

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
    """A server, the repository that it installs from, and whoever serves that."""

    server: RunningServer
    folder: PackageFolder
    files: FileServer

    def client(self, version: str = "v3", **headers: str) -> httpx.Client:
        return httpx.Client(base_url=f"{self.server.url}/api/{version}", timeout=60, trust_env=False, headers=headers)


@contextmanager
def packaged(folder: Path, *flags: str) -> Generator[Packaged]:
    """Start both, with a data folder of their own. The repository has one package, `greet` 1.0.0."""
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
    """Ask version 3 to install something."""
    return client.post(f"/repos/{repository}/packages/{package}/{version}/install", json={}, headers=headers)


def must_install(client: httpx.Client, package: str, version: str = "*") -> None:
    """Install something that can be installed."""
    answer = install(client, package, version)
    assert answer.status_code == 200, answer.text


def sync(client: httpx.Client) -> None:
    """Have the server read the index anew."""
    answer = client.get("/repos/main/packages", params={"sync": "true"})
    assert answer.status_code == 200, answer.text


def run(client: httpx.Client, package: str, version: str, code: str = "", **more: Any) -> httpx.Response:
    """Run a script with an installed package."""
    return client.post(f"/packages/{package}/{version}/execute", json={"code": code, **more})


def read_events(text: str) -> list[dict[str, Any]]:
    """Read server-sent events; each says its type twice."""
    found: list[dict[str, Any]] = []
    for block in text.strip().split("\n\n"):
        event, data = block.split("\n")
        document = json.loads(data.removeprefix("data: "))
        assert event == f"event: {document['type']}"
        found.append(document)
    return found
