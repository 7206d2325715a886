"""Hostile package files cannot escape the package's folder, and leave nothing behind."""

from __future__ import annotations

import gzip
import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firebox.domain.errors import InvalidRequest, UnusablePackage
from firebox.files.large_archive import Bounds, unpack_large
from tests.packages.making import Bench, Member, file, image, info_of, link, pack, piston, special, squash

BOUNDS = Bounds(max_bytes=1 << 20, max_members=100, home="/piston/packages/toy/1.0.0")
LINK_THEN_WRITE = (link("inside", "/tmp"), file("inside/file", b"written"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def outside(tmp_path: Path) -> Iterator[Path]:
    """The target of every attack, which must stay unchanged."""
    path = tmp_path / "outside"
    path.write_text("untouched")
    yield path
    assert path.read_text() == "untouched"


def test_keeps_folders_files_programs_and_links(tmp_path: Path, folder: Path) -> None:
    folders = tarfile.TarInfo("empty")
    folders.type = tarfile.DIRTYPE
    archive = pack(
        tmp_path / "a.tar.gz",
        (folders, b""),
        link("bin/tool", "../lib/tool-1"),
        file("lib/tool-1", b"tool", 0o6777),
        file("lib/data", b"data", 0o666),
        link("current", "."),
        link("lib/same", "lib/data", tarfile.LNKTYPE),
        link("share", "/piston/packages/toy/1.0.0/lib"),
        link("bin/far", "/piston/packages/toy/1.0.0/lib/data"),
        link("gone", "lib/nothing"),
    )
    result = unpack_large(archive, folder, BOUNDS)
    assert result.size_bytes == 8
    assert result.members == 9
    assert (folder / "bin/tool").read_bytes() == b"tool"
    assert os.readlink(folder / "bin/tool") == "../lib/tool-1"
    assert stat.S_IMODE((folder / "lib/tool-1").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "lib/data").stat().st_mode) == 0o644
    assert os.path.samefile(folder / "lib/same", folder / "lib/data")
    assert os.readlink(folder / "share") == "lib"
    assert (folder / "bin/far").read_bytes() == b"data"
    assert os.readlink(folder / "gone") == "lib/nothing"


def test_modes_do_not_depend_on_the_umask(tmp_path: Path, folder: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", file("deep/er/file", b"x"), file("deep/run", b"x", 0o700))
    before = os.umask(0o077)
    try:
        unpack_large(archive, folder, BOUNDS)
    finally:
        os.umask(before)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.rglob("*")}
    assert modes == {"deep": 0o755, "er": 0o755, "file": 0o644, "run": 0o755}


HOSTILE: dict[str, tuple[Member, ...]] = {
    "a name with ..": (file("../outside", b"x"),),
    "a name with .. in the middle": (file("a/../../outside", b"x"),),
    "an absolute name": (file("/outside", b"x"),),
    "a link that leaves": (link("out", "../outside"),),
    "a link that leaves by a detour": (file("a/b", b""), link("out", "a/../../outside")),
    "a link that leaves by another link": (link("here", "."), link("out", "here/../outside")),
    "a chain of links that leaves": (link("a/up", ".."), link("out", "a/up/../outside")),
    "a link to the host": (link("passwd", "/etc/passwd"),),
    "a link into another package": (link("other", "/piston/packages/other/1.0.0/run"),),
    "a link into a package whose name begins the same": (link("other", "/piston/packages/toy/1.0.0-evil/run"),),
    "a file written through a link": LINK_THEN_WRITE,
    "a file written through a link, link last": LINK_THEN_WRITE[::-1],
    "a folder made through a link": (link("dir", ".."), file("dir/outside", b"x")),
    "a hard link to the host": (link("passwd", "/etc/passwd", tarfile.LNKTYPE),),
    "a hard link with ..": (link("stolen", "../outside", tarfile.LNKTYPE),),
    "a hard link to what is not there": (link("stolen", "nothing", tarfile.LNKTYPE),),
    "a hard link to a folder": (file("dir/file", b""), link("stolen", "dir", tarfile.LNKTYPE)),
    "a hard link to itself": (link("self", "self", tarfile.LNKTYPE),),
    "a character device": (special("null", tarfile.CHRTYPE),),
    "a block device": (special("disk", tarfile.BLKTYPE),),
    "a pipe": (special("pipe", tarfile.FIFOTYPE),),
    "a member twice": (file("twice", b"1"), file("twice", b"2")),
    "a link twice": (link("twice", "a"), link("twice", "b")),
    "a file that is a folder too": (file("both", b""), file("both/file", b"")),
    "a folder that is a file too": (file("both/file", b""), file("both", b"")),
    "the folder itself as a file": (file("./", b""), file(".", b"x")),
    "too many members": tuple(file(f"f{number}") for number in range(101)),
    "too many bytes": (file("large", bytes((1 << 20) + 1)),),
    "too deep": (file("/".join(["d"] * 100), b""),),
    "a name that is too long": (file("n" * 300, b""),),
    "a link that is too long": (link("long", "n/" * 4000),),
    "an endless name": (file("n" * (5 << 20), b""),),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_refuses(what: str, tmp_path: Path, folder: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", *HOSTILE[what])
    with pytest.raises(InvalidRequest, match=r"a\.tar\.gz"):
        unpack_large(archive, folder, BOUNDS)
    assert not (tmp_path / "file").exists()
    assert not Path("/outside").exists()
    assert not Path("/tmp/file").exists()


@pytest.mark.parametrize(
    ("content", "packed"),
    [
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"no archive", False, id="no gzip"),
        pytest.param(b"no tar" * 1000, True, id="no tar"),
        pytest.param(4 << 20, True, id="bomb of zeros"),
        pytest.param(80 << 20, True, id="larger bomb of zeros"),
    ],
)
def test_rejects_invalid_archives_and_decompression_bombs(
    content: bytes | int, packed: bool, tmp_path: Path, folder: Path
) -> None:
    data = bytes(content)  # an int means that many zero bytes
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data, 9) if packed else data)
    with pytest.raises(InvalidRequest):
        unpack_large(tmp_path / "a.tar.gz", folder, BOUNDS)


@pytest.mark.parametrize("cut", [-1, -9, 200])
def test_rejects_a_truncated_archive(cut: int, tmp_path: Path, folder: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", file("noise", os.urandom(5000)))
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(InvalidRequest):
        unpack_large(archive, folder, BOUNDS)


def test_rejects_an_archive_with_a_wrong_checksum(tmp_path: Path, folder: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", file("noise", b"words"))
    data = bytearray(archive.read_bytes())
    data[-6] ^= 1
    archive.write_bytes(data)
    with pytest.raises(InvalidRequest, match="CRC"):
        unpack_large(archive, folder, BOUNDS)


def test_rejects_sparse_members(tmp_path: Path, folder: Path) -> None:
    old, _ = file("old")
    old.type = tarfile.GNUTYPE_SPARSE
    new, data = file("new", b"1\n0\n1\n".ljust(512, b"\0") + b"x")
    new.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1000000"}
    for number, members in enumerate([[(old, b"")], [(new, data)]]):
        with pytest.raises(InvalidRequest, match="sparse"):
            unpack_large(pack(tmp_path / f"{number}.tar.gz", *members), folder, BOUNDS)


def test_a_header_cannot_exhaust_memory(tmp_path: Path, folder: Path) -> None:
    """An extended header declares 6 GB, which must not be read at once."""
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 6 << 30
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as packed:
        packed.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(32):
            packed.write(bytes(1 << 20))
    with pytest.raises(InvalidRequest, match="header"):
        unpack_large(tmp_path / "a.tar.gz", folder, Bounds(8 << 30, 1000))


async def test_a_hostile_archive_leaves_nothing_behind(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number, members in enumerate(HOSTILE.values()):
        if len(members) > 100 or members[0][0].size > 1 << 20:
            continue  # the test checks these limits itself
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(UnusablePackage):
            await bench.install_file(piston(place, "toy", "1.0.0", *members))
        assert bench.ids == bench.leftovers == []


async def test_a_decompression_bomb_is_stopped_at_the_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_package_bytes=1 << 20)
    with pytest.raises(UnusablePackage, match="more than 1048576 bytes"):
        await bench.install_file(piston(tmp_path, "toy", "1.0.0", file("bomb", bytes(64 << 20))))
    with pytest.raises(UnusablePackage, match="more than 1048576 bytes"):
        await bench.install_file(
            squash(tmp_path / "i.squashfs", {"pkg-info.json": info_of("toy", "1.0.0"), "root/b": bytes(2 << 20)})
        )
    assert bench.ids == bench.leftovers == []


HOSTILE_IMAGES = {
    "a device node": ("root/null c 666 0 0 1 3", "a device node"),
    "a block device": ("root/disk b 666 0 0 8 0", "a device node"),
    "a pipe": ("root/pipe i 644 0 0 f", "a pipe"),
    "a socket": ("root/socket i 644 0 0 s", "a socket"),
    "a setuid program": ("root/su f 4755 0 0 echo", "setuid"),
    "a setgid program": ("root/su f 2755 0 0 echo", "setuid or setgid"),
    "a setgid folder": ("root/mail d 2775 0 0", "setuid or setgid"),
    "a setuid file without execute permission": ("root/su f 4600 0 0 echo", "setuid"),
}


@pytest.mark.parametrize("what", HOSTILE_IMAGES)
async def test_rejects_an_image_with(what: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    pseudo, words = HOSTILE_IMAGES[what]
    with pytest.raises(UnusablePackage, match=words):
        await bench.install_file(image(tmp_path, "toy", "1.0.0", None, pseudo))
    assert bench.ids == bench.leftovers == []


async def test_links_inside_an_image_may_be_absolute(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = image(
        tmp_path, "toy", "1.0.0", None, "root/link s 777 0 0 /etc/alternatives/x", "root/up s 777 0 0 ../../../etc/shadow"
    )
    assert await bench.install_file(path) == ["toy-1.0.0"]


@pytest.mark.parametrize("name", ["new\nline", "root/new\n-rw-r--r-- 0/0 1 2026-01-01 00:00 squashfs-root/x", "root/a\nb"])
async def test_rejects_an_image_with_a_newline_in_a_name(name: str, tmp_path: Path) -> None:
    """Such a name can add lines to the listing, but never hide one."""
    bench = Bench(tmp_path)
    tree = {"pkg-info.json": info_of("toy", "1.0.0"), "root/": "", name: "x"}
    path = squash(tmp_path / "i.squashfs", tree, "root/su f 4755 0 0 echo")
    with pytest.raises(UnusablePackage):
        await bench.install_file(path)
    assert bench.ids == []


async def test_names_that_look_like_symlinks_are_accepted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    tree = {"pkg-info.json": info_of("toy", "1.0.0"), "root/a -> b": "x", "root/ü 🌍": "x", "root/..foo": "x", "root/ ": ""}
    assert await bench.install_file(squash(tmp_path / "i.squashfs", tree)) == ["toy-1.0.0"]


async def test_rejects_extended_attributes(tmp_path: Path) -> None:
    """They can grant capabilities."""
    path = tmp_path / "i.squashfs"
    source = {"pkg-info.json": info_of("toy", "1.0.0"), "root/file": "x"}
    squash(tmp_path / "first.squashfs", source)
    os.setxattr(tmp_path / "first.tree/root/file", "user.note", b"x")
    (tmp_path / "first.tree").rename(tmp_path / "i.source")

    subprocess.run(
        ["mksquashfs", tmp_path / "i.source", path, "-quiet", "-no-progress", "-xattrs"], check=True, capture_output=True
    )
    with pytest.raises(UnusablePackage, match="extended attributes"):
        await Bench(tmp_path).install_file(path)


def _with(data: bytes, offset: int, kind: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(kind, changed, offset, value)
    return bytes(changed)


DAMAGED = {
    "version 3": (28, "<H", 3),
    "unknown compression": (20, "<H", 99),
    "block size that is no power of two": (12, "<I", 100_000),
    "blocks of 1 GiB": (12, "<I", 1 << 30),
    "more bytes than the file": (40, "<Q", 1 << 40),
    "fewer bytes than the first block": (40, "<Q", 1),
    "no files": (4, "<I", 0),
    "too many files": (4, "<I", 600_000),
    "a table behind the end": (64, "<Q", 1 << 40),
    "a root behind the end": (32, "<Q", 1 << 62),
}


@pytest.mark.parametrize("what", DAMAGED)
async def test_rejects_a_superblock_with(what: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = image(tmp_path, "toy", "1.0.0")
    offset, kind, value = DAMAGED[what]
    path.write_bytes(_with(path.read_bytes(), offset, kind, value))
    with pytest.raises(UnusablePackage):
        await bench.install_file(path)
    assert bench.ids == bench.leftovers == []


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8, 0.95])
async def test_a_corrupted_image_is_rejected_or_intact(place: float, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = image(tmp_path, "toy", "1.0.0", None, *(f"root/f{number} f 644 0 0 seq {number} 999" for number in range(50)))
    data = bytearray(path.read_bytes())
    used = struct.unpack_from("<Q", data, 40)[0]
    start = 96 + int((used - 96) * place)
    data[start : start + 16] = bytes(range(100, 116))
    path.write_bytes(data)
    try:
        await bench.install_file(path)
    except UnusablePackage:
        assert bench.ids == []
    assert bench.leftovers == []


async def test_rejects_a_truncated_image(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = image(tmp_path, "toy", "1.0.0", None, "root/noise f 644 0 0 head -c 100000 /dev/urandom")
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(UnusablePackage, match="truncated or corrupt"):
        await bench.install_file(path)


@pytest.mark.parametrize("data", [b"", b"x", b"\x7fELF" * 100, b"hsqs", b"\x1f\x8b", b"PK\x03\x04" * 10])
async def test_rejects_files_that_are_not_packages(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    bench = Bench(tmp_path)
    with pytest.raises(UnusablePackage):
        await bench.install_file(tmp_path / "file")
    assert bench.ids == []


INFOS = {
    "no JSON": b"{",
    "no object": b"[]",
    "no version": b'{"language": "toy"}',
    "a version that is none": b'{"language": "toy", "version": "../../1.0.0"}',
    "a name that is a path": b'{"language": "../toy", "version": "1.0.0"}',
    "a name that is empty": b'{"language": "", "version": "1.0.0"}',
    "a number for a name": b'{"language": 1, "version": "1.0.0"}',
    "too deep": b'{"language": "toy", "version": "1.0.0", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not UTF-8": b'{"language": "t\xff", "version": "1.0.0"}',
    "a dependency that is a path": b'{"language": "toy", "version": "1.0.0", "dependencies": {"../x": "*"}}',
    "an alias with a newline": b'{"language": "toy", "version": "1.0.0", "aliases": ["a\\nb"]}',
    "another machine's": b'{"language": "toy", "version": "1.0.0", "architecture": "sparc"}',
    "limits that are none": b'{"language": "toy", "version": "1.0.0", "limit_overrides": {"run_timeout": -5}}',
    "limits of unknown names": b'{"language": "toy", "version": "1.0.0", "limit_overrides": {"speed": 5}}',
    "too large": b'{"language": "toy", "version": "1.0.0", "x": "' + b"x" * (5 << 20) + b'"}',
}


@pytest.mark.parametrize("what", INFOS)
async def test_rejects_metadata_with(what: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(UnusablePackage):
        await bench.install_file(pack(tmp_path / "a.tar.gz", file("pkg-info.json", INFOS[what]), file("run", "exit\n")))
    if "limits" not in what:  # only in Piston packages
        with pytest.raises(UnusablePackage):
            await bench.install_file(squash(tmp_path / "i.squashfs", {"pkg-info.json": INFOS[what], "root/": ""}))
    assert bench.ids == bench.leftovers == []


@pytest.mark.parametrize("missing", ["pkg-info.json", "run"])
async def test_rejects_an_archive_without(missing: str, tmp_path: Path) -> None:
    members = [each for each in (file("pkg-info.json", info_of("toy", "1.0.0")), file("run", "")) if each[0].name != missing]
    with pytest.raises(UnusablePackage, match=missing):
        await Bench(tmp_path).install_file(pack(tmp_path / "a.tar.gz", *members))


@pytest.mark.parametrize(
    "members",
    [
        pytest.param((link("pkg-info.json", "other"), file("other", info_of("toy", "1.0.0")), file("run", "")), id="description"),
        pytest.param((file("pkg-info.json", info_of("toy", "1.0.0")), link("run", "other"), file("other", "")), id="run"),
    ],
)
async def test_rejects_symlinks_in_place_of_package_files(members: tuple[Member, ...], tmp_path: Path) -> None:
    with pytest.raises(UnusablePackage):
        await Bench(tmp_path).install_file(pack(tmp_path / "a.tar.gz", *members))


async def test_rejects_symlinks_in_place_of_image_metadata(tmp_path: Path) -> None:
    for number, name in enumerate(("pkg-info.json", "runtimes.json", "root")):
        tree = {"pkg-info.json": info_of("toy", "1.0.0"), "runtimes.json": "[]", "root/file": ""}
        kept = {key: value for key, value in tree.items() if not key.startswith(name)}
        path = squash(tmp_path / f"{number}.squashfs", kept, f"{name} s 777 0 0 /etc/passwd")
        with pytest.raises(UnusablePackage):
            await Bench(tmp_path).install_file(path)
