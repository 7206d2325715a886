"""Wheels, tarballs and supplied files: pinned by hash and confined to their folder."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import msgspec
import pytest

from firebox.domain.errors import BuildFailed
from firebox.packages.building.extras import write_extras
from firebox.packages.building.fetch import fetch_tarball, fetch_wheel
from firebox.packages.building.recipe import Recipe, Tarball, Wheel, find_recipe
from tests.conftest import require_tool
from tests.packages.building.conftest import write_recipe

FILE = "a-1-py3-none-any.whl"


def silent(_words: str) -> None:
    pass


def wheel_with(downloads: Path, *members: tuple[str, bytes, int]) -> Wheel:
    """Put a wheel into the download cache. members: name, content, mode."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data)
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    place = downloads / "pypi" / sha256 / FILE
    place.parent.mkdir(parents=True)
    place.write_bytes(content.getvalue())
    return Wheel(name="a", version="1", file=FILE, sha256=sha256)


def tarball_with(downloads: Path, *members: tarfile.TarInfo) -> Tarball:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    digest = hashlib.sha512(content.getvalue()).digest()
    place = downloads / "npm" / f"{digest.hex()[:64]}.tgz"
    place.parent.mkdir(parents=True)
    place.write_bytes(content.getvalue())
    return Tarball(name="@s/b", version="1", integrity="sha512-" + base64.b64encode(digest).decode())


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, 3 if kind == tarfile.REGTYPE else 0
    return made


def write(recipe: Recipe, tmp_path: Path, sources: dict[str, Path] | None = None) -> tuple[dict[str, tarfile.TarInfo], list[str]]:
    target = tmp_path / "extras.tar"
    inputs = write_extras(recipe, target, {"probe.sh": "x"}, sources or {}, tmp_path / "downloads", 77, silent)
    with tarfile.open(target) as tar:
        return {each.name: each for each in tar}, inputs


def test_wheels_and_tarballs_are_unpacked_reproducibly_and_recorded(tmp_path: Path) -> None:
    wheel = wheel_with(tmp_path / "downloads", ("a/tool", b"1", stat.S_IFREG | 0o755), ("a/data", b"22", 0))
    tarball = tarball_with(tmp_path / "downloads", member("package/index.js"), member("package/bin", tarfile.SYMTYPE, "index.js"))
    recipe = msgspec.structs.replace(write_recipe(tmp_path), pypi=[wheel], npm=[tarball])
    members, inputs = write(recipe, tmp_path)
    assert {name for name, each in members.items() if not each.isdir()} == {
        "opt/a/a/tool", "opt/a/a/data", "opt/b/index.js", "opt/b/bin", "firebox-building/probe.sh",
    }  # fmt: skip
    assert (members["opt/a/a/tool"].mode, members["opt/a/a/data"].mode) == (0o755, 0o644)
    assert {each.mtime for each in members.values()} == {77}
    assert "opt" not in members  # it exists, and may be a symlink in the root
    assert inputs == [f"pypi a 1 {wheel.sha256}", f"npm @s/b 1 {tarball.integrity}"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x"])
def test_a_wheel_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    wheel = wheel_with(tmp_path / "downloads", (name, b"", 0))
    with pytest.raises(BuildFailed, match="contains an invalid name"):
        write(msgspec.structs.replace(write_recipe(tmp_path), pypi=[wheel]), tmp_path)


def test_a_link_in_a_wheel_is_refused(tmp_path: Path) -> None:
    wheel = wheel_with(tmp_path / "downloads", ("a/link", b"/etc/passwd", stat.S_IFLNK | 0o777))
    with pytest.raises(BuildFailed, match="is not a regular file"):
        write(msgspec.structs.replace(write_recipe(tmp_path), pypi=[wheel]), tmp_path)


@pytest.mark.parametrize(
    ("each", "words"),
    [
        (member("package/../../x"), "contains an invalid name"),
        (member("/package/x"), "contains an invalid name"),
        (member("package/x", tarfile.SYMTYPE, "/etc/passwd"), "which is outside"),
        (member("package/x", tarfile.SYMTYPE, "a/../../x"), "which is outside"),
        (member("package/x", tarfile.LNKTYPE, "package/y"), "is not a file, folder or symlink"),
        (member("package/x", tarfile.CHRTYPE), "is not a file, folder or symlink"),
    ],
)
def test_a_tarball_cannot_leave_its_folder(each: tarfile.TarInfo, words: str, tmp_path: Path) -> None:
    tarball = tarball_with(tmp_path / "downloads", each)
    with pytest.raises(BuildFailed, match=words):
        write(msgspec.structs.replace(write_recipe(tmp_path), npm=[tarball]), tmp_path)


def test_supplied_files_are_requested_and_unpacked(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, '[[supplied]]\nname = "home.tar.gz"\ninto = "/opt/home"\nhint = "ask Ann"\n')
    with pytest.raises(BuildFailed, match=r"needs home\.tar\.gz") as refused:
        write(recipe, tmp_path)
    assert refused.value.hint == "--source home.tar.gz=FILE; ask Ann"
    with tarfile.open(tmp_path / "some.tar.gz", "w:gz") as tar:
        tar.addfile(member("x/y"), io.BytesIO(b"xyz"))
    members, inputs = write(recipe, tmp_path, {"home.tar.gz": tmp_path / "some.tar.gz"})
    assert members["opt/home/x/y"].size == 3
    assert inputs[0].startswith("supplied home.tar.gz - ")
    with pytest.raises(BuildFailed, match="does not use other"):
        write(recipe, tmp_path, {"other": tmp_path / "some.tar.gz"})


def test_npm_downloads_exactly_the_pinned_tarball(tmp_path: Path) -> None:
    require_tool("npm")
    tarball = find_recipe("befunge93").npm[0]
    file = fetch_tarball(tarball, tmp_path, silent)
    assert hashlib.sha512(file.read_bytes()).digest() == base64.b64decode(tarball.integrity.removeprefix("sha512-"))
    said: list[str] = []
    assert fetch_tarball(tarball, tmp_path, said.append) == file
    assert said == []  # it was cached
    other = msgspec.structs.replace(tarball, integrity=f"sha512-{'A' * 86}==")
    with pytest.raises(BuildFailed, match="does not match the hash in the recipe"):
        fetch_tarball(other, tmp_path, silent)


def test_pip_downloads_exactly_the_pinned_wheel(tmp_path: Path) -> None:
    wheel = min(find_recipe("samarium").pypi, key=lambda each: len(each.file))
    file = fetch_wheel(wheel, tmp_path, silent)
    assert (file.name, hashlib.sha256(file.read_bytes()).hexdigest()) == (wheel.file, wheel.sha256)
    with pytest.raises(BuildFailed, match="pip"):
        fetch_wheel(msgspec.structs.replace(wheel, sha256="0" * 64), tmp_path, silent)
