"""Packages for tests: real archives and squashfs images, an index, and an installer."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firebox.packages.installed.install import Installer
from firebox.packages.installed.store import PackageStore
from firebox.packages.repository.repositories import Repositories
from firebox.settings.settings import Settings, load_settings
from tests.conftest import require_tool

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes | str = b"", mode: int = 0o644) -> Member:
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def special(name: str, kind: bytes) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor = kind, 1, 3
    return info, b""


def pack(path: Path, *members: Member) -> Path:
    """Write a .tar.gz of exactly these members."""
    with gzip.open(path, "wb", compresslevel=1) as compressed, tarfile.open(fileobj=compressed, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def info_of(language: str, version: str, **more: Any) -> str:
    return json.dumps({"language": language, "version": version, "dependencies": {}, **more})


def piston(folder: Path, language: str, version: str, *members: Member, run: str = "cat $1\n", **more: Any) -> Path:
    """Write a package in Piston's format. more: fields of its pkg-info.json."""
    own = (file("./pkg-info.json", info_of(language, version, **more)), file("./run", run, 0o755))
    return pack(folder / f"{language}-{version}.pkg.tar.gz", *own, *members)


def squash(path: Path, tree: Mapping[str, str | bytes], *pseudo: str, options: tuple[str, ...] = ()) -> Path:
    """Write a squashfs image. tree: contents by name; a trailing "/" means a folder. pseudo: definitions for mksquashfs -p."""
    source = path.with_suffix(".tree")
    source.mkdir()
    source.chmod(0o755)
    for name, content in tree.items():
        place = source / name
        (place if name.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            place.write_bytes(content.encode() if isinstance(content, str) else content)
    words = [word for each in pseudo for word in ("-p", each)]
    command = [
        require_tool("mksquashfs"),
        str(source),
        str(path),
        "-quiet",
        "-no-progress",
        "-all-root",
        "-no-xattrs",
        *options,
        *words,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return path


def image(
    folder: Path, language: str, version: str, runtimes: list[dict[str, Any]] | None = None, *pseudo: str, **more: Any
) -> Path:
    """Write a package in Firebox's format, with a small tree. more: fields of its pkg-info.json."""
    tree = {"pkg-info.json": info_of(language, version, **more), f"root/usr/share/{language}": version}
    if runtimes is not None:
        tree["runtimes.json"] = json.dumps(runtimes)
    return squash(folder / f"{language}-{version}.squashfs", tree, *pseudo)


def runtime(language: str, version: str, **more: Any) -> dict[str, Any]:
    return {"language": language, "version": version, "main_name": f"main.{language}", "run": ["/bin/cat", "{main}"], **more}


def announce(folder: Path, *packages: tuple[Path, str, str, Mapping[str, Any]]) -> Path:
    """Write an index of package files: (file, language, version, other fields). JSON is valid YAML."""
    entries = [
        {
            "language": language,
            "version": version,
            "checksums": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
            "download": path.name,
            **more,
        }
        for path, language, version, more in packages
    ]
    index = folder / "index.yaml"
    index.write_text(json.dumps({"schema": "ppman-repo-1", "packages": entries}))
    return index


class Bench:
    """A data folder and its installer."""

    def __init__(self, folder: Path, **flags: object) -> None:
        self.data = folder / "data"
        self.settings: Settings = load_settings({"data_dir": self.data, **flags}, environ={})
        self.store = PackageStore(self.settings.data_dir / "packages")
        self.repositories = Repositories(self.settings)
        self.installer = Installer(self.settings, self.store, self.repositories)

    async def install(self, language: str, version: str = "*") -> list[str]:
        """Install from the repositories. Return the ids of the installed packages."""
        entry = await self.repositories.find(language, version)
        return [each.id for each in await self.installer.install(entry)]

    async def install_file(self, path: Path) -> list[str]:
        return [each.id for each in await self.installer.install_file(path)]

    @property
    def ids(self) -> list[str]:
        """A fresh view of the store, without cached state."""
        return [each.id for each in PackageStore(self.store.folder).all()]

    @property
    def leftovers(self) -> list[str]:
        """Leftover files and folders."""
        return sorted(each.name for each in (self.store.folder / "installing").glob("*"))
