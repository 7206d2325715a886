"""The messages between the server, the launcher and PID 1 of a sandbox, declared once for both languages.

scripts/write_protocol.py generates native/protocol.h from this module, and a test compares them. A message is one structure,
followed by what it counts: more structures, then text, which is NUL-terminated strings. Structures refer to a string by its
offset in the text. Numbers are little-endian and naturally aligned.

    server -> launcher    Configure, Prepare, Make (+ the link of the sandbox), Kill, End
    launcher -> server    Configured, Prepared, Failed, Ended
    server -> PID 1       Start, Signal, Stop, Collect
    PID 1 -> server       Ready (+ streams and meters), Failed, Started (+ the terminal), Refused, Exited

Links are SOCK_SEQPACKET sockets, one message a packet. A message longer than `MESSAGE_BYTES` is sent as a `LongMessage`.

PID 1 is ours but shares its sandbox with hostile code, so the server treats its messages as untrusted input.
"""

import errno
import os
import socket
import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from functools import cache
from typing import Annotated, NamedTuple, TypeAlias, TypeVar

U32: TypeAlias = Annotated[int, "I"]
I32: TypeAlias = Annotated[int, "i"]
U64: TypeAlias = Annotated[int, "Q"]
"""Field types of structures, each with its format character of the module `struct`, which is read from the annotations."""

VERSION = 2
"""Version of this protocol. A launcher rejects any other."""

MESSAGE_BYTES = 128 << 10
"""Maximum length of a message in one packet."""

LONG_MESSAGE_BYTES = 16 << 20
"""Maximum length of any message: more arguments than the kernel accepts, and more file names than a job may have."""

NO_WORDS = 0xFFFFFFFF
"""Stands for a number of resume words: the command starts a fresh program."""

COLLECT_INDEX_BYTES = 8 << 20
"""Maximum length of the index of collected files, text included."""

MAX_ERRNO = 4095
"""The largest errno that a system call can return. Source: linux/err.h."""

GATE = 200
"""The file descriptor that a prestart hook reads. High, so that the interpreter's own ones keep their usual numbers."""

RESTORED = 201
"""The file descriptor that a restored interpreter confirms on."""

TEMPLATE = "template"
"""The file in the working directory that a capture leaves."""
RANDOM = ".firebox-random"
"""The file in which a program names memory to refill with random numbers at a restore: an address and a length."""

NETLINK_SOCKETS = 16
"""Maximum netlink sockets of a sandbox, plus one for each thread that opens one at the same moment."""

SYSTEM_V_QUEUES = 32
"""The same for message queues, each of at most about 1 MiB, and for semaphore sets."""

SEMAPHORES_A_SET = 64
"""The kernel allows 32,000, which take 2 MB."""


class Kind(IntEnum):
    """The first field of every message."""

    LONG = 1
    CONFIGURE = 2
    CONFIGURED = 3
    PREPARE = 4
    PREPARED = 5
    MAKE = 6
    KILL = 7
    END = 8
    ENDED = 9
    FAILED = 10
    READY = 11
    START = 12
    STARTED = 13
    REFUSED = 14
    SIGNAL = 15
    STOP = 16
    EXITED = 17
    COLLECT = 18


class Phase(IntEnum):
    """The phase that failed. FILES, TERMINAL and PROGRAM fail because of the command."""

    MESSAGE = 1
    IDENTITY = 2
    LEAN_ROOT = 3
    PREPARE = 4
    CLONE = 5
    CGROUP = 6
    NAMESPACES = 7
    TREE = 8
    OWN_USER = 9
    CAPABILITIES = 10
    LIMITS = 11
    FILTER = 12
    SERVE = 13
    FILES = 14
    TERMINAL = 15
    PROGRAM = 16


class Operation(IntEnum):
    """The operation of a step; `plan.steps` shows which fields each one uses."""

    FOLDER = 1
    FOLDERS = 2
    LINK = 3
    NODE = 4
    FILE = 5
    COPY = 6
    MOUNT = 7
    RESTRICT = 8
    PIVOT = 9
    IMAGE = 10
    UNMOUNT = 11
    CGROUP_WRITE = 12
    CGROUP_OPEN = 13
    CGROUP_EVENT = 14
    LIMIT = 15
    USER_LIMIT = 16


class ConfigureFlag(IntFlag):
    """INTO_CGROUP: processes are created directly in their cgroup, which needs version 2."""

    INTO_CGROUP = 1


class MakeFlag(IntFlag):
    """OWN_USER_NAMESPACE: unset where the host refuses one; the uid is the boundary then. SAMPLED: there is no cgroup.
    PRESTART: start a program before the command arrives. HELD: it waits where it opens its main file, otherwise at a hook.
    """

    OWN_USER_NAMESPACE = 1
    SAMPLED = 2
    PRESTART = 4
    HELD = 8


class StartFlag(IntFlag):
    """CAPTURE: turn the program into a template where it waits. OTHER_PID: until then getpid(2) returns a wrong number."""

    TERMINAL = 1
    CAPTURE = 2
    OTHER_PID = 4


class Exceeded(IntEnum):
    """A limit that PID 1 saw exceeded, where there is no cgroup."""

    NOTHING = 0
    MEMORY = 1
    CPU_TIME = 2


class LeftOut(IntEnum):
    """Why a file was not collected. ERROR: see the errno."""

    ERROR = 0
    TOO_LARGE = 1
    TOO_MANY = 2
    TOO_MANY_ENTRIES = 3
    OUT_OF_TIME = 4
    NO_MATCH = 5
    NOT_REGULAR = 6
    FOLDER = 7


class LongMessage(NamedTuple):
    """A message in a memfd, which is the last descriptor. bytes: its length."""

    kind: U32
    padding: U32
    bytes: U64


class Configure(NamedTuple):
    """The settings of a launcher, sent once. Descriptors: the launcher keeps them open as long as it lives.

    uid_first, uid_count: the uids for sandboxes. Text: the command lines of newuidmap and newgidmap (0 words for root and where
    they are missing), then the folders of its cgroups. filter_bytes, fallback_bytes: the seccomp programs after the text; the
    second is for hosts that allow no listener.
    """

    kind: U32
    version: U32
    flags: U32
    uid_first: U32
    uid_count: U32
    cgroups: U32
    padding: U32
    uid_map_words: U32
    gid_map_words: U32
    text_bytes: U32
    filter_bytes: U32
    fallback_bytes: U32


class Configured(NamedTuple):
    """uid_count: the uids that sandboxes really have; 1 means that all share one."""

    kind: U32
    uid_count: U32


class Step(NamedTuple):
    """One step of a plan. source, target, type, options: offsets of strings."""

    operation: U32
    mode: U32
    flags: U64
    source: U32
    target: U32
    type: U32
    options: U32


class Prepare(NamedTuple):
    """Steps for the launcher itself. It replies with Prepared, or Failed with the same number. Then: steps, text."""

    kind: U32
    number: U32
    steps: U32
    text_bytes: U32


class Prepared(NamedTuple):
    kind: U32
    number: U32


class Make(NamedTuple):
    """Create a sandbox, which replies on its own link. Descriptors: that link and, for a restored program, its template.
    Then: steps, text, seccomp program.

    cgroup_steps, tree_steps, limit_steps: numbers of steps, in this order. inside_uid: the uid in its user namespace. words,
    variables: command line and environment of the prestarted program, the first strings of the text. main: the file that it
    will open. stack_bytes: its stack. filter_bytes: of a seccomp program that replaces the launcher's, or 0.
    """

    kind: U32
    number: U32
    flags: U32
    inside_uid: U32
    cgroup_steps: U32
    tree_steps: U32
    limit_steps: U32
    words: U32
    variables: U32
    main: U32
    stack_bytes: U64
    text_bytes: U32
    filter_bytes: U32


class Kill(NamedTuple):
    kind: U32
    number: U32


class End(NamedTuple):
    """Kill the sandbox and remove all of it. The launcher replies with Ended once nothing is left."""

    kind: U32
    number: U32


class Ended(NamedTuple):
    kind: U32
    number: U32


class Failed(NamedTuple):
    """phase: a `Phase`. step: index of the failed step in its phase. error: an errno. Then: text, the name of the failed call."""

    kind: U32
    number: U32
    phase: U32
    step: U32
    error: U32
    text_bytes: U32


class Ready(NamedTuple):
    """Descriptors: the program's stdin, stdout and stderr, then the meters. pid: of PID 1, in the launcher's namespace."""

    kind: U32
    pid: U32


class PackedFile(NamedTuple):
    """An input file of a command. pack: index of the descriptor with its content. name: offset of a string."""

    offset: U64
    size: U64
    mode: U32
    pack: U32
    name: U32
    padding: U32


class Start(NamedTuple):
    """Run the command. Descriptors: packs. Then: files, text, which begins with words, variables and resume words.

    Limits as in `spec.Command`; 0 means unlimited. resume_words: what a prestarted program needs to go on as this command, or
    `NO_WORDS` to start a fresh one; with CAPTURE the file at whose opening the program is captured, or none for its hook.
    """

    kind: U32
    flags: U32
    rows: U32
    columns: U32
    cpu_ms: U64
    memory_bytes: U64
    stack_bytes: U64
    file_size_bytes: U64
    processes: U64
    open_files: U64
    words: U32
    variables: U32
    resume_words: U32
    packs: U32
    files: U32
    text_bytes: U32


class Started(NamedTuple):
    """The program runs. Descriptor: the terminal, if requested. prestarted: whether the program was waiting."""

    kind: U32
    prestarted: U32


class Refused(NamedTuple):
    """The command is at fault that it cannot start. Then: text, such as the file in question."""

    kind: U32
    phase: U32
    error: U32
    text_bytes: U32


class Signal(NamedTuple):
    kind: U32
    signal: U32


class Stop(NamedTuple):
    kind: U32
    padding: U32


class Exited(NamedTuple):
    """The program ended. status: the exit code, or minus the signal. exceeded: an `Exceeded`."""

    kind: U32
    status: I32
    exceeded: U32
    padding: U32
    cpu_us: U64
    memory_peak_bytes: U64


class Collect(NamedTuple):
    """Send the files that match. Descriptor: where to write them. Then: text, the patterns."""

    kind: U32
    patterns: U32
    max_bytes: U64
    max_files: U64
    budget_ms: U32
    text_bytes: U32


class CollectIndex(NamedTuple):
    """The first bytes of collected files. Then: files, left-out files, text; then the contents, one after the other."""

    files: U32
    left_out: U32
    text_bytes: U32
    padding: U32
    cpu_us: U64


class CollectedFile(NamedTuple):
    size: U64
    mode: U32
    name: U32


class CollectedLeftOut(NamedTuple):
    """reason: a `LeftOut`. error: an errno, for `LeftOut.ERROR`."""

    name: U32
    reason: U32
    error: U32
    padding: U32


CONSTANTS = (
    "VERSION", "MESSAGE_BYTES", "LONG_MESSAGE_BYTES", "NO_WORDS", "COLLECT_INDEX_BYTES", "GATE", "RESTORED", "TEMPLATE", "RANDOM",
    "NETLINK_SOCKETS", "SYSTEM_V_QUEUES", "SEMAPHORES_A_SET",
)  # fmt: skip
_SMALL_MESSAGE_BYTES = 4 << 10
_ANCILLARY_BYTES = socket.CMSG_SPACE(32 * 4)
"""Room for the most descriptors that a message carries."""

_Structure = TypeVar("_Structure", bound=tuple[int, ...])


class Text:
    """The NUL-terminated strings of a message."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        """words: the first strings. Raises: ValueError for a NUL in one."""
        self._parts: list[bytes] = []
        self._offsets: dict[str, int] = {}
        self.bytes = 0
        if words:
            data = os.fsencode("\0".join(words))
            if data.count(b"\0") != len(words) - 1:
                raise ValueError("embedded null character")
            self._parts.append(data)
            self.bytes = len(data) + 1

    def add(self, word: str) -> int:
        """Append a string and return its offset. Raises: ValueError for a NUL in it."""
        data = os.fsencode(word)
        if b"\0" in data:
            raise ValueError("embedded null character")
        offset = self.bytes
        self._parts.append(data)
        self.bytes += len(data) + 1
        return offset

    def offset_of(self, word: str) -> int:
        """Return the offset of a string; append it the first time. Raises: as `add`."""
        offset = self._offsets.get(word)
        if offset is None:
            offset = self._offsets[word] = self.add(word)
        return offset

    def encoded(self) -> bytes:
        self._parts.append(b"")
        return b"\0".join(self._parts)


@cache
def layout(structure: type[tuple[int, ...]]) -> struct.Struct:
    """Return the layout of a structure. Every field is naturally aligned, so all padding is declared."""
    return struct.Struct("<" + "".join(each.__metadata__[0] for each in structure.__annotations__.values()))


def pack(value: tuple[int, ...]) -> bytes:
    """Encode a structure."""
    return layout(type(value)).pack(*value)


def unpack(structure: type[_Structure], data: bytes) -> _Structure:
    """Decode a message that is one structure. Raises: ValueError for a wrong length."""
    if len(data) != layout(structure).size:
        raise ValueError(f"wrong length for {structure.__name__}")
    return unpack_from(structure, data)


def unpack_from(structure: type[_Structure], data: bytes, offset: int = 0) -> _Structure:
    """Decode a structure at an offset. Raises: ValueError when the data is too short."""
    try:
        return structure(*layout(structure).unpack_from(data, offset))
    except struct.error:
        raise ValueError(f"{structure.__name__} is cut short") from None


def unpack_with_text(structure: type[_Structure], data: bytes) -> tuple[_Structure, str]:
    """Decode a structure whose last field counts the text after it. Raises: ValueError for a wrong length."""
    value = unpack_from(structure, data)
    begin = layout(structure).size
    if len(data) != begin + value[-1]:
        raise ValueError(f"wrong text length for {structure.__name__}")
    return value, os.fsdecode(data[begin:].rstrip(b"\0"))


def error_text(number: int) -> str:
    """Return the text for an errno from a message."""
    return os.strerror(number) if number <= MAX_ERRNO else f"Unknown error {number}"


def kind_of(data: bytes) -> int:
    """Return the kind of a message. Raises: ValueError for one that is too short."""
    if len(data) < 4:
        raise ValueError("no kind")
    return int.from_bytes(data[:4], "little")


def receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one short message and its descriptors, close-on-exec. Returns b"" when the link is closed or broken.

    Raises: BlockingIOError when a non-blocking link has nothing to read.
    """
    try:
        data, ancillary, _flags, _address = link.recvmsg(_SMALL_MESSAGE_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        raise
    except OSError:
        return b"", []
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors += struct.unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
    return data, descriptors


def send(link: socket.socket, message: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message with duplicates of the descriptors. Raises: OSError; E2BIG for more than `LONG_MESSAGE_BYTES`."""
    if len(message) <= MESSAGE_BYTES:
        _send(link, message, descriptors)
        return
    if len(message) > LONG_MESSAGE_BYTES:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    memory = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        write_all(memory, message)
        _send(link, pack(LongMessage(Kind.LONG, 0, len(message))), [*descriptors, memory])
    finally:
        os.close(memory)


def write_all(descriptor: int, data: bytes) -> int:
    """Write everything. Returns the number of bytes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(data)


def _send(link: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    if not descriptors:
        link.send(data)
        return
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    link.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
