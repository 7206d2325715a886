"""What fuzzing begins with: inputs that are right, in the forms that the fuzzers of tests/sandbox/native/ take."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence

from firebox.sandbox.instance.link import start_message
from firebox.sandbox.plan import steps
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Kind, MakeFlag, Text
from firebox.sandbox.spec import Command, InputFile

_DESCRIPTORS = 3
_LONG = 4
_LONGER = 8
"""How a message is sent. Source: tests/sandbox/native/fuzz_messages.h."""

_GROUP = (
    steps.cgroup_write(0, "memory.max", "1000000"),
    steps.cgroup_open(0, "memory.current", os.O_RDONLY),
    steps.cgroup_event(0, 0),
    steps.limit(4, 1),
    steps.user_limit("max_inotify_watches", 8192),
)
_MANY_METERS = tuple(steps.cgroup_open(index % 3, "memory.current", os.O_RDONLY) for index in range(17))
_TREE = (
    steps.folders("/new/box/deep"),
    steps.own_folder("/new/box", 0o700),
    steps.mount("tmpfs", "/new", "tmpfs", 6, "mode=755,size=64m"),
    steps.bind("/host/usr", "/new/usr"),
    steps.restrict("/new/usr", 1),
    steps.link("usr/bin", "/new/bin"),
    steps.node("/new/dev/null", 1, 3),
    steps.text_file("/new/etc/hostname", "firebox\n"),
    steps.copy("/host/etc/ssl", "/new/etc/ssl"),
    steps.mount_image("/host/packages/python.squashfs", "/images/1", "root"),
    steps.unmount("/images/1"),
    steps.pivot("/new"),
)


def launcher_seeds() -> list[bytes]:
    """Return conversations of a server with a launcher."""
    prepare, make, many_meters = _prepare(_TREE), _make(3, _GROUP), _make(4, _MANY_METERS)
    end, kill = (messages.pack(of(kind, 3)) for of, kind in ((messages.End, Kind.END), (messages.Kill, Kind.KILL)))
    conversation = [(_configure(1), 1), (prepare, 0), (make, 1), (kill, 0), (end, 0)]
    # The first byte of a tape is a number of uids; clones return what comes later, 0 in the sandbox.
    tapes = [b"\x02", b"\x02" + bytes(8) + b"\x05" * 40, bytes(range(128)), bytes(60) + b"\x07" * 60]
    seeds = [_conversation(tape, conversation) for tape in tapes]
    seeds += [_conversation(b"\x03" + bytes(count) + b"\x09" * 12, [(make, 1), (make, 1), (end, 0)]) for count in range(0, 12, 2)]
    seeds += [_conversation(b"\x03", [(_configure(groups), 0), (many_meters, 1), (end, 0)]) for groups in range(6)]
    seeds.append(_conversation(b"\x01", [(make, 1 | _LONG), (prepare, _LONG), (end, _LONG | _LONGER), (prepare, _DESCRIPTORS)]))
    return seeds


def init_seeds() -> list[bytes]:
    """Return conversations of a server with PID 1."""
    files = (InputFile("main.py", b"print(1)\n"), InputFile("a/b/c.txt", b"", 0o755), InputFile("a/b/d", b"d" * 300))
    plain = start_message(Command(argv=("python3", "main.py"), env={"PATH": "/usr/bin", "HOME": "/box"}, files=files))
    told = start_message(Command(argv=("ruby",), env={}, files=files[:1], resume_words=("main.rb", "x")))
    terminal = start_message(Command(argv=("sh", "-c", "true"), env={"A": "é"}, terminal=(24, 80)))
    outside = start_message(Command(argv=("sh",), env={}, files=(InputFile("../x", b""), InputFile("/x", b""))))
    signal, stop = messages.pack(messages.Signal(Kind.SIGNAL, 15)), messages.pack(messages.Stop(Kind.STOP, 0))
    collect = _collect("*", "a/*.txt", "[!a-c]?é", "missing")
    folder = b"\x03" + b"\x05" + b"\0main" + b"\0" * 8 + b"\x01\x03abc" + bytes(6) + b"\x02\x04\0def"
    tapes = [b"", b"\x01" + bytes(30), bytes(16) + folder * 3, bytes(range(200)), bytes(12) + b"\x01" * 60]
    seeds = [
        _conversation(tape, [(start, 1), (signal, 0), (stop, 0), (collect, 1), (collect, 1)])
        for tape in tapes
        for start in (plain, told, terminal)
    ]
    seeds += [_conversation(b"", [(start, 1), (collect, 1)]) for start in (outside, _start_with_packs(36))]
    seeds.append(_conversation(b"", [(plain, 1 | _LONG), (collect, 1 | _LONG)]))
    return seeds


def pattern_seeds() -> list[bytes]:
    """Return patterns with names."""
    pairs = (("*.py", "main.py"), ("[!a-c]?é", "dxé"), ("a/**/b", "a/x/y/b"), ("[]-]*[a-]", "]x-"), ("[z-a]", "b"))
    return [f"{pattern}\0{name}".encode() for pattern, name in pairs] + [b"[\xff-\xc3\xa9]\0\xe2\x82"]


def sampling_seeds() -> list[bytes]:
    """Return what the files of /proc may hold."""
    files = (
        b"Name:\tx\nVmRSS:\t9 kB\nRssAnon:\t100 kB\nRssFile:\t8 kB\nRssShmem:\t20 kB\nVmPTE:\t3 kB\nVmSwap:\t4 kB\n",
        b"20 (a) b) S 1 1 1 1 1 1 1 1 1 1 5 6 7 8 20 0 1\n",
        b"7f00-7f01 rw-s 0000 00:01 7 /dev/zero (deleted)\n7f00-7f01 rw-p 0000 00:01 8 /lib/x\n",
        b"0-1 ---p 0 00:00 0 [rollup]\nPss: 1 kB\nPss_Anon: 50 kB\nPss_Shmem: 10 kB\n",
        b"protocol  size sockets\nPACKET 1600 9\nUNIX-STREAM 1100 3\nUNIX 1100 2\nNETLINK 1100 4\n",
        b"  sl  local_address\n   0: 0100007F:07E8 00000000:0000 0A 00000010:00000020 00:0 0\n",
        b"  sl  local_address\n   0: 00 00 07 -0000001:00000002 00\n",
        b"key msqid perms cbytes qnum\n 5 1 600 7 1 1\n",
        b"key semid perms nsems\n 5 1 600 64 0\n",
        b"key shmid perms size\n 5 1 600 4096 1 1 1 0 0 0 0 1 1 1 2048 1024\n",
    )
    pids = bytes([0, 1, 2, 3, 20, 21, 22, 253])
    settings = (bytes(8), b"\x01\x00\x00\x00\x01\x01\x10\x10" + bytes(range(1, 200)), b"\x02\x0c\x02", b"\x03\x08\x00\x01\x01")
    seeds = [b"\xff".join((setting, *files, pids)) for setting in settings]
    seeds.append(b"\xff".join((bytes(4), *(file + b"\x0d\xfe" for file in files), pids)))  # read in part
    seeds.append(b"\xff".join([b"", *[b"\xfe\x0d"] * len(files)]))  # not opened
    return seeds


def _conversation(tape: bytes, messages: Iterable[tuple[bytes, int]]) -> bytes:
    """Encode the input of a fuzzer of messages."""
    packets = (struct.pack("<HB", len(message), how) + message for message, how in messages)
    return b"".join((struct.pack("<H", len(tape)), tape, *packets))


def _configure(groups: int) -> bytes:
    folders = (f"/sys/fs/cgroup/{index}/firebox" for index in range(groups))
    text = Text(("newuidmap", "1", "0", "100000", "1", "newgidmap", "1", *folders))
    head = messages.Configure(Kind.CONFIGURE, messages.VERSION, 1, 100_000, 16, groups, 0, 5, 2, text.bytes, 24, 16)
    return messages.pack(head) + text.encoded() + bytes(40)


def _prepare(tree: Sequence[steps.Step]) -> bytes:
    text = Text()
    encoded = steps.encode(tree, text)
    return messages.pack(messages.Prepare(Kind.PREPARE, 1, len(tree), text.bytes)) + encoded + text.encoded()


def _make(number: int, group: Sequence[steps.Step]) -> bytes:
    text = Text(("python3", "-S", "PATH=/usr/bin"))
    encoded = steps.encode((*group, *_TREE, *_GROUP[3:]), text)
    flags = MakeFlag.OWN_USER_NAMESPACE | MakeFlag.PRESTART
    counts = (len(group), len(_TREE), 2, 2, 1)
    head = messages.Make(Kind.MAKE, number, flags, 1000, *counts, text.offset_of("main.py"), 8 << 20, text.bytes, 0)
    return messages.pack(head) + encoded + text.encoded()


def _start_with_packs(packs: int) -> bytes:
    """Return a command that says to bring more packs than it does, and uses the last one."""
    text = Text(("sh",))
    name = text.add("file")
    empty = messages.Start(Kind.START, *[0] * (len(messages.Start._fields) - 1))
    head = empty._replace(words=1, packs=packs, files=1, text_bytes=text.bytes)
    return messages.pack(head) + messages.pack(messages.PackedFile(0, 1, 0o644, packs - 1, name, 0)) + text.encoded()


def _collect(*patterns: str) -> bytes:
    text = Text(patterns)
    head = messages.Collect(Kind.COLLECT, len(patterns), 1 << 20, 100, 20, text.bytes)
    return messages.pack(head) + text.encoded()
