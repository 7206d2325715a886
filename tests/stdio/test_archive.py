"""`bootstrap.tar.gz`: extraction, and hostile archives."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from firebox.domain.errors import InvalidRequest
from firebox.files import archive
from tests.stdio.conftest import NO_SANDBOX, ask, names_below, request

Add = Callable[[tarfile.TarFile], None]


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> Add:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), mode
        tar.addfile(member, io.BytesIO(content))

    return add


def special(name: str, kind: bytes, target: str = "") -> Add:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        member.devmajor, member.devminor = 1, 3
        tar.addfile(member)

    return add


def pack(path: Path, *members: Add) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for add in members:
            add(tar)
    return path


@pytest.mark.parametrize("way", [(), NO_SANDBOX], ids=["sandbox", "no-sandbox"])
@pytest.mark.parametrize("keeps", [True, False], ids=["path", "own-folder"])
def test_is_unpacked_before_the_files(way: tuple[str, ...], keeps: bool, tmp_path: Path) -> None:
    bootstrap = pack(tmp_path / "b.tar.gz", file("data/words", b"from the archive\n"), file("main.sh", b"exit 9"))
    where = ("--path", str(tmp_path / "kept")) if keeps else ()
    asked = request("bash", ("main.sh", "ls -A; cat data/words"))
    answer = ask(asked, "--bootstrap", str(bootstrap), *where, *way).answer
    assert answer == {"stdout": "data\nmain.sh\nfrom the archive\n", "stderr": "", "error": ""}
    if keeps:
        assert names_below(tmp_path / "kept") == ["data/words", "main.sh"]


def test_only_the_executable_bit_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    archive.unpack(pack(tmp_path / "b.tar.gz", file("tool", b"", 0o6777), file("words", b"", 0o666)), folder)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    umask = os.umask(0)
    os.umask(umask)
    assert modes == {"tool": 0o755 & ~umask, "words": 0o644 & ~umask}


def test_links_become_copies(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    members = (
        file("a/real", b"content"),
        special("hard", tarfile.LNKTYPE, "a/real"),
        special("b/soft", tarfile.SYMTYPE, "../a/real"),
        special("empty", tarfile.DIRTYPE),
    )
    archive.unpack(pack(tmp_path / "b.tar.gz", *members), folder)
    assert {name: (folder / name).read_bytes() for name in names_below(folder)} == dict.fromkeys(
        ["a/real", "b/soft", "hard"], b"content"
    )
    assert not (folder / "b/soft").is_symlink()
    assert (folder / "empty").is_dir()


HOSTILE: dict[str, tuple[Add, ...]] = {
    "absolute": (file("/tmp/firebox-owned"),),
    "above": (file("../owned"),),
    "above, later": (file("a/../../owned"),),
    "backslash": (file("..\\owned"),),
    "link outside": (special("link", tarfile.SYMTYPE, "/etc/passwd"),),
    "link above": (special("link", tarfile.SYMTYPE, "../../etc/passwd"),),
    "hard link outside": (special("link", tarfile.LNKTYPE, "/etc/passwd"),),
    "link, then a file in it": (special("link", tarfile.SYMTYPE, "/tmp"), file("link/owned")),
    "file, then a file in it": (file("a"), file("a/b")),
    "link to itself": (special("link", tarfile.SYMTYPE, "link"),),
    "links in a ring": (special("a", tarfile.SYMTYPE, "b"), special("b", tarfile.SYMTYPE, "a")),
    "link to a folder": (special("folder", tarfile.DIRTYPE), special("link", tarfile.SYMTYPE, "folder")),
    "character device": (special("null", tarfile.CHRTYPE),),
    "block device": (special("disk", tarfile.BLKTYPE),),
    "pipe": (special("pipe", tarfile.FIFOTYPE),),
    "very deep": (file("/".join("a" * 40)[:79] + "/b"),),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_members_are_refused(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "folder"
    folder.mkdir(parents=True)
    with pytest.raises((InvalidRequest, OSError)):
        archive.unpack(pack(tmp_path / "b.tar.gz", *HOSTILE[what]), folder)
    everything = [path for path in tmp_path.rglob("*") if path.is_symlink() or not (path.is_dir() or path.is_file())]
    assert everything == []
    assert list(tmp_path.rglob("*owned*")) == []
    assert not Path("/tmp/firebox-owned").exists()


def test_a_hostile_archive_exits_with_1_and_a_message(tmp_path: Path) -> None:
    bootstrap = pack(tmp_path / "b.tar.gz", file("../owned"))
    reply = ask(request("bash", ("main.sh", "ls")), "--bootstrap", str(bootstrap))
    assert (reply.status, reply.stdout) == (1, b"")
    assert "is outside the folder" in reply.stderr


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive", gzip.compress(b"no tar" * 1000), gzip.compress(b"x" * 4096)[:-9]],
    ids=["empty", "not compressed", "no tar", "cut short"],
)
def test_invalid_archives_are_rejected(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(data)
    with pytest.raises(InvalidRequest):
        archive.unpack(tmp_path / "b.tar.gz", tmp_path)


def test_decompression_bombs_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    folder = tmp_path / "folder"
    folder.mkdir()
    large = pack(tmp_path / "large.tar.gz", file("zeros", b"\0" * (2 << 20)))
    many = pack(tmp_path / "many.tar.gz", *(file(f"f{number}", b"") for number in range(101)))
    copies = (special(f"l{number}", tarfile.LNKTYPE, "real") for number in range(50))
    repeated = pack(tmp_path / "repeated.tar.gz", file("real", b"x" * (100 << 10)), *copies)
    for bomb in (large, many, repeated):
        with pytest.raises(InvalidRequest, match="more than"):
            archive.unpack(bomb, folder)
    total = sum(path.stat().st_size for path in folder.rglob("*"))
    assert total <= 1 << 20


def test_decompression_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(archive, "_HEADERS_BYTES", 0)
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(b"\0" * (64 << 20)))
    with pytest.raises(InvalidRequest, match="more than"):
        archive.unpack(tmp_path / "b.tar.gz", tmp_path)
