"""Collecting files: native/collect.c and native/patterns.c under sanitizers, and the server against malformed packs."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

from firebox.sandbox.protocol.messages import COLLECT_INDEX_BYTES, CollectedFile, CollectedLeftOut, CollectIndex, LeftOut, pack
from firebox.sandbox.protocol.pack import NO_MATCH, NOT_REGULAR, OUT_OF_TIME, TOO_LARGE, TOO_MANY, TOO_MANY_ENTRIES, PackReader
from firebox.sandbox.spec import SandboxFailure
from tests.conftest import require_tool
from tests.sandbox.conftest import IS_ROOT, ORDINARY_USER

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = ("tests/sandbox/native/collect_harness.c", "native/collect.c", "native/patterns.c", "native/kernel.c")
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Inative")
SANITIZER = {"ASAN_OPTIONS": "detect_leaks=0"}
"""Leak detection needs ptrace, which a container may not allow."""

SIGNS = (
    b"a", b"b", b"z", b"*", b"?", b"[", b"]", b"!", b"-", b"/", b"^", b"\\", b"&", b"~", b"|", b"\n", b".", b"(",
    "é".encode(), "€".encode(), "😀".encode(), b"\xff", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80",
)  # fmt: skip
"""Building blocks of patterns and names: special characters of fnmatch and regular expressions, and valid and invalid UTF-8."""

ODD_PATTERNS = (
    b"[z-a!b]", b"[z-a!-~]", b"[z-a!-!]", b"[z-a!]", b"[!z-a]", b"[z-a]", b"[]a]", b"[!]a]", b"[]-a]", b"[!]-A]", b"[a", b"[!]",
    b"[]", b"[[]", b"[a-]", b"[-a]", b"[!-a]", b"[--a]", b"[a--]", b"[a---z]", b"[a-b-c]", b"[a-b-]", b"[a&&b]", b"[a~~b]",
    b"[a||b]", b"[\\]", b"[\\-a]", b"[^a]", b"[!^a]", b"[!!]", b"[\x80-\xff]", b"[a-\xc3\xa9]", b"[\xc3\xa9-\xff]", b"\\*",
    b"\\?", b"[*]", b"[?]",
)  # fmt: skip


class Harness:
    """native/collect.c and native/patterns.c in a separate program."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def match(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """Return for each pair of pattern and name whether they match."""
        strings = b"".join(pattern + b"\0" + name + b"\0" for pattern, name in pairs)
        return [answer == ord("1") for answer in self._run("match", given=strings)]

    def stream(
        self, folder: Path, *patterns: str | bytes, max_bytes: int = 1 << 30, max_files: int = 1 << 20, budget_ms: int = 60_000
    ) -> bytes:
        """Return the stream that PID 1 sends, as an unprivileged user."""
        folder.chmod(0o755)
        return self._run("collect", ".", str(max_bytes), str(max_files), str(budget_ms), *patterns, cwd=folder)

    def _run(self, *arguments: str | bytes, given: bytes = b"", cwd: Path | None = None) -> bytes:
        user, group = ORDINARY_USER if IS_ROOT else (None, None)
        done = subprocess.run(
            [self._program, *arguments],
            input=given,
            cwd=cwd,
            user=user,
            group=group,
            extra_groups=[] if IS_ROOT else None,
            env=SANITIZER,
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout


class Taken(NamedTuple):
    """The files collected from a folder."""

    contents: dict[str, bytes]
    modes: dict[str, int]
    left_out: list[tuple[str, str]]
    cpu_ms: float


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    compiler = require_tool("gcc")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        subprocess.run([compiler, *FLAGS, *SOURCES, "-o", folder / "harness"], cwd=REPOSITORY, check=True)
        yield Harness(folder / "harness")
    finally:
        shutil.rmtree(folder)


async def read(stream: bytes, max_bytes: int = 1 << 30, max_files: int = 1 << 20) -> Taken:
    """Read a stream like the server. Raises: SandboxFailure."""
    readable, writable = os.pipe()
    sending = threading.Thread(target=_send, args=(writable, stream))
    sending.start()
    try:
        files, skipped, cpu_ms = await PackReader(readable, max_bytes, max_files, 60_000).read()
    finally:
        sending.join()
    try:
        contents = {each.name: os.pread(files.descriptor, each.size, each.offset) for each in files.files}
    finally:
        os.close(files.descriptor)
    return Taken(contents, {each.name: each.mode for each in files.files}, skipped, cpu_ms)


def _send(writable: int, stream: bytes) -> None:
    """Send a stream to a reader that may hang up."""
    with open(writable, "wb", buffering=0) as sink, contextlib.suppress(BrokenPipeError):
        view = memoryview(stream)
        while view:
            view = view[sink.write(view) :]


# Patterns.


def test_patterns_match_like_fnmatch(harness: Harness) -> None:
    source = random.Random(9)
    pairs: list[tuple[bytes, bytes]] = []
    for _ in range(20_000):
        # Few different characters at a time, or hardly anything matches; brackets are closed.
        signs = [*source.sample(SIGNS, source.randrange(2, 9)), *[b"[", b"]", b"-", b"!"] * source.randrange(3)]
        pattern = b"".join(source.choices(signs, k=source.randrange(12)))
        pattern = b"[" + pattern + b"]" if source.random() < 0.4 else pattern
        pairs.append((pattern, b"".join(source.choices(signs, k=source.choice((0, 1, 1, 1, 2, 3, 5, 9))))))
    expected = [fnmatchcase(os.fsdecode(name), os.fsdecode(pattern)) for pattern, name in pairs]
    assert sum(expected) > 1000
    answers = harness.match(pairs)
    assert [pair for pair, *both in zip(pairs, answers, expected, strict=True) if both[0] != both[1]] == []


def test_unusual_patterns_match_like_fnmatch(harness: Harness) -> None:
    names = [
        *(bytes([byte]) for byte in range(1, 256)),
        "é".encode(),
        "ê".encode(),
        "\U0010ffff".encode(),
        b"",
        b"[a",
        b"[!]",
        b"[]",
        b"\\ab",
    ]
    pairs = [(pattern, name) for pattern in ODD_PATTERNS for name in names]
    for (pattern, name), answer in zip(pairs, harness.match(pairs), strict=True):
        assert answer == fnmatchcase(os.fsdecode(name), os.fsdecode(pattern)), (pattern, name)


def test_attack_no_pattern_makes_a_name_expensive(harness: Harness) -> None:
    """A backtracking matcher would not finish here."""
    name = b"a" * 4000
    patterns = (
        b"*a" * 2000 + b"*[b]?*",
        b"*" * 4000 + b"b",
        b"*a?" * 1300 + b"b",
        b"*" + b"a" * 2000 + b"b",
        b"*[ab]" * 2000 + b"c",
    )
    began = time.monotonic()
    assert harness.match([(pattern, name) for pattern in patterns]) == [False] * len(patterns)
    assert time.monotonic() - began < 10


# What is found.


async def test_files_come_in_order_with_their_contents(harness: Harness, tmp_path: Path) -> None:
    for name in ("b", "a/z", "a/b/c", "a.x/q", "B", "é", "a/a", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(f"in {name}")
    taken = await read(harness.stream(tmp_path, "*"))
    assert list(taken.contents) == ["B", "b", "c", "é", "a/a", "a/z", "a/b/c", "a.x/q"]
    assert taken.contents == {name: f"in {name}".encode() for name in taken.contents}
    assert taken.left_out == []
    assert 0 < taken.cpu_ms < 10_000


async def test_modes_lose_write_permission_for_others(harness: Harness, tmp_path: Path) -> None:
    for name, mode in (("plain", 0o644), ("tool", 0o4777), ("open", 0o666)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    assert (await read(harness.stream(tmp_path, "*"))).modes == {"plain": 0o644, "tool": 0o755, "open": 0o644}


async def test_left_out_files_are_reported_with_the_reason(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("large")
    (tmp_path / "to_folder").symlink_to("folder")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket"))
    (tmp_path / "locked").touch(0)
    (tmp_path / "large").write_bytes(bytes(5000))
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    (tmp_path / "small").write_bytes(b"x")
    (tmp_path / "two\nlines").write_bytes(b"y")
    (tmp_path / "z").write_bytes(b"z")
    (tmp_path / "folder").mkdir()
    patterns = ("*", "missing.png", "folder", "link", "missing.png", "x" * 100, "folder/*", b"\xff")
    taken = await read(harness.stream(tmp_path, *patterns, max_bytes=4000, max_files=2))
    assert taken.contents == {"small": b"x", "two\nlines": b"y"}
    assert taken.left_out == [
        ("large", TOO_LARGE),
        ("link", NOT_REGULAR),
        ("locked", "Permission denied"),
        ("pipe", NOT_REGULAR),
        ("socket", NOT_REGULAR),
        ("sparse", TOO_LARGE),
        ("to_folder", NOT_REGULAR),
        ("z", TOO_MANY),
        ("missing.png", NO_MATCH),
        ("folder", "a folder; folder/* means its files"),
        ("x" * 100, NO_MATCH),
        ("folder/*", NO_MATCH),
        ("\udcff", NO_MATCH),
    ]


async def test_a_long_folder_name_is_shown_in_part(harness: Harness, tmp_path: Path) -> None:
    name = "é" * 100
    (tmp_path / name).mkdir()
    assert (await read(harness.stream(tmp_path, name))).left_out == [(name, f"a folder; {'é' * 64}/* means its files")]


async def test_with_an_unreadable_folder_no_pattern_is_reported_as_unmatched(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(0)
    (tmp_path / "open").touch()
    try:
        taken = await read(harness.stream(tmp_path, "open", "missing", "closed"))
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert taken.contents == {"open": b""}
    assert taken.left_out == [("closed", "Permission denied")]


async def test_links_are_not_followed_out_of_the_folder(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    (tmp_path / "work").mkdir()
    (tmp_path / "work/out").symlink_to("../outside")
    (tmp_path / "work/loop").symlink_to(".")
    taken = await read(harness.stream(tmp_path / "work", "*"))
    assert (taken.contents, taken.left_out) == ({}, [("loop", NOT_REGULAR), ("out", NOT_REGULAR)])


async def test_attack_thousands_of_files(harness: Harness, tmp_path: Path) -> None:
    names = [f"{number * 7919 % 5000:05}{'x' * 240}" for number in range(5000)]
    for name in names:
        (tmp_path / name).touch()
    taken = await read(harness.stream(tmp_path, "*"))
    assert list(taken.contents) == sorted(names)
    few = await read(harness.stream(tmp_path, "*", max_files=10))
    assert list(few.contents) == sorted(names)[:10]
    assert few.left_out == [(name, TOO_MANY) for name in sorted(names)[10:110]]


async def test_attack_names_that_fill_the_index(harness: Harness, tmp_path: Path) -> None:
    """Long paths of short files: as many as fit are collected, the others are reported as too many."""
    folder = Path(*["d" * 250] * 15)
    (tmp_path / folder).mkdir(parents=True)
    for number in range(1300):
        (tmp_path / folder / f"{number:04}").touch()
    taken = await read(harness.stream(tmp_path, "*"))
    each_bytes = len(str(folder)) + 1 + 4 + 1
    assert len(taken.contents) == COLLECT_INDEX_BYTES // 2 // each_bytes
    assert taken.left_out[0] == (f"{folder}/{len(taken.contents):04}", TOO_MANY)
    assert len(taken.left_out) == 100


async def test_attack_deep_folders(harness: Harness, tmp_path: Path) -> None:
    """Deeper than the search goes, and then deeper than a path can be long."""
    depth = 70
    folder = Path(*["d"] * depth)
    (tmp_path / folder).mkdir(parents=True)
    for at in range(depth + 1):
        (tmp_path / Path(*["d"] * at) / "f").touch()
    taken = await read(harness.stream(tmp_path, "*"))
    assert list(taken.contents) == ["d/" * at + "f" for at in range(65)]
    assert taken.left_out == []


async def test_attack_paths_that_are_too_long(harness: Harness, tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_PATH)
    for _ in range(18):
        os.mkdir("d" * 250, dir_fd=at)
        os.close(os.open("f" * 250, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=at))
        deeper = os.open("d" * 250, os.O_PATH, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)
    taken = await read(harness.stream(tmp_path, "*", "missing"))
    prefix = f"{'d' * 250}/"
    assert list(taken.contents) == [prefix * level + "f" * 250 for level in range(16)]
    assert taken.left_out == [
        (prefix * 16 + "f" * 250, "File name too long"),
        (prefix * 16 + "d" * 250, "File name too long"),
    ]


async def test_attack_too_many_entries(harness: Harness, tmp_path: Path) -> None:
    """With hard links, because they are cheap."""
    try:
        for folder in "abcde":
            (tmp_path / folder).mkdir()
            first = f"{tmp_path}/{folder}/00000"
            Path(first).touch()
            for number in range(1, 40_001):
                os.link(first, f"{first[:-5]}{number:05}")
        taken = await read(harness.stream(tmp_path, "?/0000[12]", "missing"))
    finally:
        shutil.rmtree(tmp_path)
    assert list(taken.contents)[:8] == [f"{folder}/0000{number}" for folder in "abcd" for number in (1, 2)]
    assert taken.left_out == [("e", TOO_MANY_ENTRIES)]


async def test_the_search_time_is_bounded(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    taken = await read(harness.stream(tmp_path, "a", "missing", budget_ms=0))
    assert (taken.contents, taken.left_out) == ({}, [("", OUT_OF_TIME)])


async def test_attack_a_search_keeps_its_time_limit(harness: Harness, tmp_path: Path) -> None:
    """A single comparison exceeds the time limit, which must be noticed during it."""
    folder = tmp_path / Path(*["a" * 250] * 15)
    folder.mkdir(parents=True)
    (folder / ("a" * 250)).touch()
    some = "".join(chr(0x1000 + number) for number in range(3000))
    taken = await read(harness.stream(tmp_path, "*" + f"[!{some}]" * 12 + "b", budget_ms=20))
    assert (taken.contents, taken.left_out) == ({}, [(str(folder.relative_to(tmp_path)), OUT_OF_TIME)])
    assert taken.cpu_ms < 200


# What the server takes from a PID 1 that lies.


def lie(
    files: Sequence[tuple[int, int, int]], left_out: Sequence[tuple[int, int, int]], text: bytes, cpu_us: int = 1000
) -> bytes:
    """Write an index. files: size, mode, offset of the name. left_out: offset of the name, reason, error."""
    index = pack(CollectIndex(len(files), len(left_out), len(text), 0, cpu_us))
    index += b"".join(pack(CollectedFile(*each)) for each in files)
    return index + b"".join(pack(CollectedLeftOut(*each, 0)) for each in left_out) + text


GOOD = lie([(2, 0o644, 0), (1, 0o755, 2)], [(6, LeftOut.ERROR, 13), (8, LeftOut.FOLDER, 0)], b"a\0d/b\0l\0d\0") + b"123"


@pytest.fixture
def no_leak() -> Iterator[None]:
    """Check that no descriptor stays open."""
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


async def test_a_valid_stream_is_accepted(no_leak: None) -> None:
    assert await read(GOOD) == (
        {"a": b"12", "d/b": b"3"},
        {"a": 0o644, "d/b": 0o755},
        [("l", "Permission denied"), ("d", "a folder; d/* means its files")],
        1.0,
    )


async def test_every_reason_has_a_text(no_leak: None) -> None:
    text = b"".join(b"%d\0" % reason for reason in LeftOut)
    taken = await read(lie([], [(2 * reason, reason, 2) for reason in LeftOut], text))
    assert taken.left_out == [
        ("0", "No such file or directory"),
        ("1", "too large"),
        ("2", "too many"),
        ("3", "too many entries"),
        ("4", "out of time"),
        ("5", "no such file"),
        ("6", "not a regular file"),
        ("7", "a folder; 7/* means its files"),
    ]


LIES = {
    "nothing": b"",
    "half a count": b"\1",
    "more files than fit": pack(CollectIndex(0xFFFFFFFF, 0, 0, 0, 0)),
    "more files than allowed": lie([(0, 0o644, 2 * number) for number in range(11)], [], b"a\0b\0c\0d\0e\0f\0g\0h\0i\0j\0k\0"),
    "more left out than allowed": lie([], [(2 * number, 1, 0) for number in range(101)], b"a\0" * 101),
    "more left out than fit": pack(CollectIndex(0, 0xFFFFFFFF, 0, 0, 0)),
    "text that is too long": pack(CollectIndex(0, 0, COLLECT_INDEX_BYTES, 0, 0)) + bytes(COLLECT_INDEX_BYTES),
    "text that is too long, without it": pack(CollectIndex(0, 0, 0xFFFFFFFF, 0, 0)),
    "text that does not come": pack(CollectIndex(0, 0, 10, 0, 0)),
    "CPU time without end": lie([], [], b"", 1 << 63),
    "a name behind the text": lie([(0, 0o644, 2)], [], b"a\0"),
    "a name far behind the text": lie([(0, 0o644, 0xFFFFFFFF)], [], b"a\0"),
    "a name without an end": lie([(0, 0o644, 0)], [], b"a"),
    "a name for two files": lie([(0, 0o644, 0), (0, 0o644, 0)], [], b"a\0"),
    "two files of one name": lie([(0, 0o644, 0), (0, 0o644, 2)], [], b"a\0a\0"),
    "names that overlap": lie([(0, 0o644, 0), (0, 0o644, 1)], [], b"ab\0"),
    "a long name a hundred times": lie([], [(0, 1, 0)] * 100, b"a" * (4 << 20) + b"\0"),
    "no name": lie([(0, 0o644, 0)], [], b"\0"),
    "an absolute name": lie([(0, 0o644, 0)], [], b"/etc/passwd\0"),
    "a name that leads out": lie([(0, 0o644, 0)], [], b"a/../../b\0"),
    "a name that is here": lie([(0, 0o644, 0)], [], b"./a\0"),
    "a name of a folder": lie([(0, 0o644, 0)], [], b"a/\0"),
    "a name that is too long": lie([(0, 0o644, 0)], [], b"a" * 4096 + b"\0"),
    "a mode with more": lie([(0, 0o4755, 0)], [], b"a\0"),
    "a reason that does not exist": lie([], [(0, 8, 0)], b"a\0"),
    "an error that does not exist": lie([], [(0, LeftOut.ERROR, 0xFFFFFFFF)], b"a\0"),
    "contents that are short": lie([(3, 0o644, 0)], [], b"a\0") + b"12",
    "contents that are long": lie([(3, 0o644, 0)], [], b"a\0") + b"1234",
    "contents of nothing": lie([], [], b"") + b"1",
    "sizes without end": lie([((1 << 64) - 1, 0o644, 0), ((1 << 64) - 1, 0o644, 2)], [], b"a\0b\0"),
    "more contents than allowed": lie([(2000, 0o644, 0)], [], b"a\0") + bytes(2000),
}


@pytest.mark.parametrize("what", LIES)
async def test_attack_an_inconsistent_pack_is_rejected(what: str, no_leak: None) -> None:
    with pytest.raises(SandboxFailure) as failed:
        await read(LIES[what], max_bytes=1000, max_files=10)
    assert failed.value.step == "collect"


async def test_attack_every_shorter_pack_is_refused(no_leak: None) -> None:
    for length in range(len(GOOD)):
        with pytest.raises(SandboxFailure):
            await read(GOOD[:length])


async def test_attack_mutated_packs_are_refused_or_harmless(no_leak: None) -> None:
    source = random.Random(5)
    refused = 0
    for _ in range(1500):
        data = bytearray(GOOD)
        for _ in range(source.randrange(1, 4)):
            data[source.randrange(len(data))] = source.choice((0, 1, 2, 0x2E, 0x2F, 0x7F, 0x80, 0xFF, source.randrange(256)))
        try:
            taken = await read(bytes(data), max_bytes=1000, max_files=10)
        except SandboxFailure:
            refused += 1
        else:
            assert sum(map(len, taken.contents.values())) == 3
            assert all(not {"", ".", ".."} & set(name.split("/")) for name in taken.contents)
            assert all(not mode & ~0o777 for mode in taken.modes.values())
    assert refused > 500
