"""Additional files for a root, besides Debian packages: wheels, tarballs, supplied files and our scripts, in one tar."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from firebox.domain.errors import BuildFailed
from firebox.files.checksum import file_checksum
from firebox.packages.building.fetch import fetch_tarball, fetch_wheel
from firebox.packages.building.layer import BUILDING
from firebox.packages.building.recipe import Recipe, Supplied

MAX_UNPACKED_BYTES = 8 << 30
MAX_FILES = 500_000


def write_extras(
    recipe: Recipe,
    target: Path,
    scripts: Mapping[str, str],
    sources: Mapping[str, Path],
    downloads: Path,
    epoch: int,
    progress: Callable[[str], None],
) -> list[str]:
    """Write the tar and return a line per added input. epoch: mtime of every file. Raises: BuildFailed."""
    inputs: list[str] = []
    for name in sources.keys() - {each.name for each in recipe.supplied}:
        raise BuildFailed(f"recipe {recipe.name} does not use {name}")
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        writer = _Writer(tar, epoch)
        writer.folder(f"{BUILDING}/home")
        for name, text in scripts.items():
            writer.file(f"{BUILDING}/{name}", io.BytesIO(text.encode()), len(text.encode()), 0o644)
        for wheel in recipe.pypi:
            writer.zip_file(fetch_wheel(wheel, downloads, progress), wheel.place)
            inputs.append(f"pypi {wheel.name} {wheel.version} {wheel.sha256}")
        for tarball in recipe.npm:
            writer.tar_file(fetch_tarball(tarball, downloads, progress), tarball.place, strip=1)
            inputs.append(f"npm {tarball.name} {tarball.version} {tarball.integrity}")
        for supplied in recipe.supplied:
            file = sources.get(supplied.name)
            if file is None or not file.is_file():
                hint = f"--source {supplied.name}=FILE" + (f"; {supplied.hint}" if supplied.hint else "")
                raise BuildFailed(f"recipe {recipe.name} needs {supplied.name}, which no registry provides", hint=hint)
            writer.supplied(supplied, file)
            inputs.append(f"supplied {supplied.name} - {file_checksum(file)}")
    return inputs


class _Writer:
    """Copies files from untrusted archives to fixed folders of a tar, and nowhere else."""

    def __init__(self, tar: tarfile.TarFile, epoch: int) -> None:
        self._tar = tar
        self._epoch = epoch
        self._folders: set[str] = set()
        self._files = 0
        self._bytes = 0

    def supplied(self, supplied: Supplied, file: Path) -> None:
        if zipfile.is_zipfile(file):
            self.zip_file(file, supplied.into)
        elif tarfile.is_tarfile(file):
            self.tar_file(file, supplied.into, strip=0)
        else:
            with file.open("rb") as opened:
                self.file(f"{supplied.into}/{supplied.name}", opened, file.stat().st_size, 0o755)

    def zip_file(self, file: Path, place: str) -> None:
        try:
            with zipfile.ZipFile(file) as archive:
                for each in archive.infolist():
                    mode = each.external_attr >> 16
                    if each.is_dir():
                        continue
                    if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
                        raise BuildFailed(f"{file.name}: {each.filename!r} is not a regular file")
                    with archive.open(each) as opened:
                        self.file(f"{place}/{_safe(each.filename, file)}", opened, each.file_size, mode)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            raise BuildFailed(f"{file.name} cannot be unpacked: {error}") from None

    def tar_file(self, file: Path, place: str, *, strip: int) -> None:
        try:
            with tarfile.open(file) as archive:
                for member in archive:
                    name = "/".join(_safe(member.name, file).split("/")[strip:])
                    if not name or name == "." or member.isdir():
                        continue
                    if member.issym():
                        self.link(f"{place}/{name}", _inside(name, member.linkname, file))
                    elif member.isreg():
                        opened = archive.extractfile(member)
                        assert opened is not None  # noqa: S101 - a regular file has content
                        self.file(f"{place}/{name}", opened, member.size, member.mode)
                    else:
                        raise BuildFailed(f"{file.name}: {member.name!r} is not a file, folder or symlink")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise BuildFailed(f"{file.name} cannot be unpacked: {error}") from None

    def file(self, name: str, content: IO[bytes], size: int, mode: int) -> None:
        self._count(size)
        member = self._member(name)
        member.size, member.mode = size, 0o755 if mode & 0o111 else 0o644
        self._tar.addfile(member, content)

    def link(self, name: str, target: str) -> None:
        self._count(0)
        member = self._member(name)
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
        self._tar.addfile(member)

    def folder(self, name: str) -> None:
        for folder in [*reversed(PurePosixPath(name.lstrip("/")).parents), PurePosixPath(name.lstrip("/"))]:
            if str(folder) == "." or str(folder) in self._folders or str(folder) in _DEBIANS:
                continue
            self._folders.add(str(folder))
            member = tarfile.TarInfo(str(folder))
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, self._epoch
            self._tar.addfile(member)

    def _member(self, name: str) -> tarfile.TarInfo:
        self.folder(str(PurePosixPath(name).parent))
        member = tarfile.TarInfo(name.lstrip("/"))
        member.mtime = self._epoch
        return member

    def _count(self, size: int) -> None:
        self._files += 1
        self._bytes += size
        if self._files > MAX_FILES or self._bytes > MAX_UNPACKED_BYTES:
            raise BuildFailed(f"the archives contain more than {MAX_FILES} files or {MAX_UNPACKED_BYTES >> 30} GiB")


_DEBIANS = {
    "bin", "etc", "lib", "lib64", "opt", "sbin", "usr", "usr/bin", "usr/lib", "usr/local", "usr/local/bin", "usr/share", "var",
}  # fmt: skip
"""Existing folders of the root. Some are symlinks, which a folder in the tar would replace."""


def _safe(name: str, file: Path) -> str:
    """Reject a name that escapes its folder."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise BuildFailed(f"{file.name} contains an invalid name, {name!r}")
    return "/".join(parts)


def _inside(name: str, target: str, file: Path) -> str:
    """Reject a symlink that escapes its folder."""
    depth = name.count("/")
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in {"", "."} else 1
        if depth < 0:
            break
    if target.startswith("/") or depth < 0:
        raise BuildFailed(f"{file.name} contains a symlink {name!r} to {target!r}, which is outside")
    return target
