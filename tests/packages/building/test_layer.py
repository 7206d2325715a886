"""Layers: which files a package includes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from firebox.domain.errors import BuildFailed
from firebox.packages.building.layer import Layer, plan_layer
from firebox.packages.building.squash import read_beside, write_image, write_tree_as_tar
from tests.conftest import require_tool

BEGAN = 1_000_000
EPOCH = 5


Member = tuple[str, bytes | None, Mapping[str, object]]


def tree(path: Path, *members: Member) -> tarfile.TarFile:
    """Write a tar and open it. members: name, content (None: a folder), attributes of the member."""
    with tarfile.open(path, "w") as tar:
        for name, content, attributes in members:
            member = tarfile.TarInfo(f"./{name}")
            member.mtime, member.mode = 100, 0o755 if content is None else 0o644
            data = content or b""
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(data)
            for key, value in attributes.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(data))
    return tarfile.open(path)


def names(layer: Layer) -> list[str]:
    return [member.name for member, _ in layer.members]


def of(layer: Layer, name: str) -> tarfile.TarInfo:
    return next(member for member, _ in layer.members if member.name == name)


BASE: tuple[Member, ...] = (
    ("usr", None, {}),
    ("usr/bin", None, {}),
    ("usr/bin/same", b"same", {}),
    ("usr/bin/changed", b"one", {}),
    ("usr/bin/mode", b"mode", {}),
    ("usr/bin/link", b"", {"type": tarfile.SYMTYPE, "linkname": "same"}),
    ("usr/bin/gone", b"gone", {}),
)


def test_layer_contains_the_differences_to_the_base(tmp_path: Path) -> None:
    base = tree(tmp_path / "base.tar", *BASE)
    full = tree(
        tmp_path / "full.tar",
        ("usr", None, {}),
        ("usr/bin", None, {}),
        ("usr/lib", None, {}),
        ("usr/bin/same", b"same", {"mtime": 200}),
        ("usr/bin/changed", b"two", {}),
        ("usr/bin/mode", b"mode", {"mode": 0o755}),
        ("usr/bin/link", b"", {"type": tarfile.SYMTYPE, "linkname": "mode"}),
        ("usr/bin/new", b"new", {}),
    )
    layer = plan_layer(full, base, began=BEGAN, epoch=EPOCH)
    assert names(layer) == ["usr", "usr/bin", "usr/bin/changed", "usr/bin/link", "usr/bin/mode", "usr/bin/new"]
    assert layer.size_bytes == len("two") + len("mode") + len("new")
    base.close()
    full.close()


def test_layer_without_differences_is_empty(tmp_path: Path) -> None:
    with tree(tmp_path / "base.tar", *BASE) as base, tree(tmp_path / "full.tar", *BASE) as full:
        layer = plan_layer(full, base, began=BEGAN, epoch=EPOCH)
    assert (layer.members, layer.epoch, layer.size_bytes) == ([], EPOCH, 0)


def test_a_hard_link_to_a_base_file_includes_its_content(tmp_path: Path) -> None:
    again = {"type": tarfile.LNKTYPE, "linkname": "./usr/bin/same"}
    more = {"type": tarfile.LNKTYPE, "linkname": "./usr/bin/one"}
    full_members: tuple[Member, ...] = (
        *BASE,
        ("usr/bin/again", b"", again),
        ("usr/bin/one", b"content", {}),
        ("usr/bin/two", b"", more),
    )
    with tree(tmp_path / "base.tar", *BASE) as base, tree(tmp_path / "full.tar", *full_members) as full:
        layer = plan_layer(full, base, began=BEGAN, epoch=EPOCH)
        content = {member.name: source for member, source in layer.members}["usr/bin/again"]
        assert content is not None
        assert content.name == "./usr/bin/same"
    assert of(layer, "usr/bin/again").isreg()
    assert of(layer, "usr/bin/two").islnk()
    assert of(layer, "usr/bin/two").linkname == "usr/bin/one"
    assert layer.size_bytes == len("same") + len("content")


def test_modes_grant_read_access_only(tmp_path: Path) -> None:
    full_members: tuple[Member, ...] = (
        ("usr", None, {"mode": 0o700}),
        ("usr/setuid", b"x", {"mode": 0o4755, "uid": 7, "gid": 8, "uname": "someone"}),
        ("usr/secret", b"x", {"mode": 0o600}),
        ("usr/program", b"x", {"mode": 0o700}),
        ("usr/null", b"", {"type": tarfile.CHRTYPE}),
        ("usr/disk", b"", {"type": tarfile.BLKTYPE}),
        ("usr/pipe", b"", {"type": tarfile.FIFOTYPE}),
    )
    with tree(tmp_path / "full.tar", *full_members) as full:
        layer = plan_layer(full, None, began=BEGAN, epoch=EPOCH)
    modes = {member.name: member.mode for member, _ in layer.members}
    assert modes == {"usr": 0o755, "usr/setuid": 0o755, "usr/secret": 0o644, "usr/program": 0o755}
    assert {(member.uid, member.gid, member.uname) for member, _ in layer.members} == {(0, 0, "")}


def test_nondeterministic_files_are_omitted(tmp_path: Path) -> None:
    left = (
        "etc/machine-id",
        "etc/shadow",
        "etc/hostname",
        "var/cache/ldconfig/aux-cache",
        "var/log/dpkg.log",
        "tmp/x",
        "root/.cache",
    )
    full_members: tuple[Member, ...] = tuple((name, b"x", {}) for name in (*left, "etc/passwd", "var/lib/dpkg/status"))
    with tree(tmp_path / "full.tar", *full_members) as full, tree(tmp_path / "base.tar") as nothing:
        assert names(plan_layer(full, None, began=BEGAN, epoch=EPOCH)) == ["etc/passwd", "var/lib/dpkg/status"]
        assert names(plan_layer(full, nothing, began=BEGAN, epoch=EPOCH)) == ["etc/passwd"]


def test_files_created_by_the_build_get_a_reproducible_mtime(tmp_path: Path) -> None:
    full_members: tuple[Member, ...] = (
        ("old", b"", {"mtime": 50}),
        ("newest", b"", {"mtime": 700}),
        ("made", b"", {"mtime": BEGAN + 3}),
        ("folder", None, {"mtime": BEGAN + 3}),
    )
    with tree(tmp_path / "full.tar", *full_members) as full:
        layer = plan_layer(full, None, began=BEGAN, epoch=EPOCH)
    assert layer.epoch == 700
    assert {member.name: member.mtime for member, _ in layer.members} == {"old": 50, "newest": 700, "made": 700, "folder": 700}


def test_a_name_outside_the_root_is_rejected(tmp_path: Path) -> None:
    with tree(tmp_path / "full.tar", ("usr/../../etc/x", b"", {})) as full, pytest.raises(BuildFailed, match=r"\.\."):
        plan_layer(full, None, began=BEGAN, epoch=EPOCH)


def test_images_do_not_depend_on_file_order(tmp_path: Path) -> None:
    require_tool("mksquashfs")
    members: tuple[Member, ...] = (
        ("b", None, {}),
        ("b/x", b"x" * 300_000, {}),
        ("a", b"a", {}),
        ("c", b"", {"type": tarfile.SYMTYPE, "linkname": "a"}),
    )
    image, other = tmp_path / "image.squashfs", tmp_path / "other.squashfs"
    for file, each in [(image, members), (other, members[::-1])]:
        with tree(file.with_suffix(".tar"), *each) as full:
            write_image(file, {"pkg-info.json": {}}, full, plan_layer(full, None, began=BEGAN, epoch=EPOCH))
    assert image.read_bytes() == other.read_bytes()
    assert read_beside(image, "pkg-info.json") == b"{}\n"
    with pytest.raises(BuildFailed, match="unsquashfs"):
        read_beside(image, "runtimes.json")
    write_tree_as_tar(image, tmp_path / "back.tar")
    with tarfile.open(tmp_path / "back.tar") as back, tree(tmp_path / "again.tar", *members) as full:
        assert plan_layer(full, back, began=BEGAN, epoch=EPOCH).members == []
