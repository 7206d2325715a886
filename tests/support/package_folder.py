"""Small real packages, an index of them, and a server that hands them out: at once, or by half until it is told to go on."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import require_tool
from tests.support.repository import RepositoryServer

RUN = '#!/bin/sh\necho "$PISTON_LANGUAGE says $GREETING"\n. "./$@"\n'
"""Runs the main file as a shell script."""
AUTHOR = "Ann Author <ann@example.com>"
WAIT_S = 60


def info_of(name: str, version: str, **more: Any) -> dict[str, Any]:
    """What a package says of itself."""
    return {
        "language": name, "version": version, "author": AUTHOR, "dependencies": {}, "aliases": [],
        "build_platform": "x86_64-debian", **more,
    }  # fmt: skip


@dataclass
class PackageFolder:
    """A folder with packages and its index, `index.yaml`."""

    path: Path
    entries: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add_archive(
        self, name: str, version: str, *, announced: dict[str, Any] | None = None, runs: bool = True, **info: Any
    ) -> Path:
        """Add a package in Piston's own format. announced: what the index says otherwise. runs: it brings a language."""
        file = self.path / f"{name}-{version}.pkg.tar.gz"
        files = {
            "pkg-info.json": json.dumps(info_of(name, version, **info)),
            "environment": f"export GREETING='hello from {name} {version}'\n",
            **({"run": RUN} if runs else {}),
        }
        with tarfile.open(file, "w:gz") as archive:
            for member, content in files.items():
                header = tarfile.TarInfo(member)
                header.size, header.mode = len(content.encode()), 0o755
                archive.addfile(header, io.BytesIO(content.encode()))
        return self._announce(file, name, version, info.get("dependencies", {}), announced or {})

    def add_image(self, name: str, version: str, **info: Any) -> Path:
        """Add the same as a squashfs image."""
        tree = self.path / f"{name}-{version}"
        tree.mkdir()
        (tree / "pkg-info.json").write_text(json.dumps(info_of(name, version, **info)))
        (tree / "environment").write_text(f"export GREETING='hello from {name} {version}'\n")
        (tree / "run").write_text(RUN)
        (tree / "run").chmod(0o755)
        file = self.path / f"{name}-{version}.squashfs"
        command = [require_tool("mksquashfs"), str(tree), str(file), "-all-root", "-no-progress", "-quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return self._announce(file, name, version, info.get("dependencies", {}), {})

    def _announce(self, file: Path, name: str, version: str, dependencies: dict[str, str], announced: dict[str, Any]) -> Path:
        entry = {
            "author": AUTHOR, "language": name, "version": version, "dependencies": dependencies, "size": 4096,
            "checksums": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}, "buildfile": f"https://example.com/{name}",
            "download": file.name, **announced,
        }  # fmt: skip
        self.entries.append(entry)
        index = {"schema": "ppman-repo-1", "baseurl": "./", "keys": [], "packages": self.entries}
        (self.path / "index.yaml").write_text(yaml.safe_dump(index))
        return file


class FileServer(RepositoryServer):
    """Serves a folder. A file that is held is sent by half; the rest follows once it is let go."""

    @contextmanager
    def holding(self, name: str) -> Generator[threading.Event]:
        """Hold a file back until the event is set, or the context left."""
        event = threading.Event()
        self.on(f"/{name}").half_way = lambda: event.wait(WAIT_S)
        try:
            yield event
        finally:
            self.on(f"/{name}").half_way = None
            event.set()


@contextmanager
def serving(folder: Path) -> Generator[FileServer]:
    """Serve a folder while the context lasts."""
    server = FileServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
