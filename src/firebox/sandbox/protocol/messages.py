"""The messages between the server, the launcher and PID 1 of a sandbox, declared once for both languages.

scripts/write_protocol.py writes native/protocol.h from this module; a test compares them. A message is one structure, then
what it counts: further structures, then text, which is strings with a NUL after each. Structures refer to a string by its
offset in the text. Numbers are little-endian and at their natural alignment.

    server -> launcher    Configure, Prepare, Make (+ the link of the sandbox), Kill, End
    launcher -> server    Configured, Prepared, Failed, Ended
    server -> PID 1       Start, Signal, Stop, Collect
    PID 1 -> server       Ready (+ streams and meters), Failed, Started (+ the terminal), Refused, Exited

Links are SOCK_SEQPACKET sockets, one message a packet. A message that is longer than `MESSAGE_BYTES` travels as a `LongMessage`.

PID 1 is ours but shares its sandbox with hostile code: the server checks what it says like any other input.
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
"""Fields of structures, with their format as the module `struct` has it. This module evaluates its annotations for that."""

VERSION = 2
"""Of this protocol: a launcher refuses another one."""

MESSAGE_BYTES = 128 << 10
"""Longest message in one packet."""

LONG_MESSAGE_BYTES = 16 << 20
"""Longest of all: more than the kernel passes to a program, and the names of more files than a job may have."""

NO_WORDS = 0xFFFFFFFF
"""Instead of a number of words: none are resume_words, the command is started anew."""

COLLECT_INDEX_BYTES = 8 << 20
"""Longest index of collected files, text included."""

MAX_ERRNO = 4095
"""The largest error that a system call can return, by the kernel's linux/err.h."""

GATE = 200
"""The descriptor that the hook of a prestarted interpreter reads; so high that the interpreter's own have their usual numbers."""

RESTORED = 201
"""The descriptor to which something is written once an interpreter has been restored."""

TEMPLATE = "template"
"""The file that a program leaves which was captured, in the working directory."""
RANDOM = ".firebox-random"
"""The file in which it has said there what is filled with random numbers when it is restored: an address and how many bytes."""

NETLINK_SOCKETS = 16
"""At most so many at a time in one sandbox, and one more for each thread that asks at the same moment."""

SYSTEM_V_QUEUES = 32
"""The same for message queues, each of which holds about a mebibyte at most, and for sets of semaphores."""

SEMAPHORES_A_SET = 64
"""The kernel gives up to 32,000, which are 2 MB."""


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
    """What was being done when something failed. PROGRAM and what follows: because of what a command asks."""

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
    """What a step does; see `steps` for the fields that each uses."""

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
    """INTO_CGROUP: processes are created in their cgroup, which is one of version 2."""

    INTO_CGROUP = 1


class MakeFlag(IntFlag):
    """OWN_USER_NAMESPACE: False where the host refuses one; the uid is the boundary then. SAMPLED: no cgroup counts.
    PRESTART: a program is started before its command comes. HELD: it waits where it opens its main file, else at a hook.
    """

    OWN_USER_NAMESPACE = 1
    SAMPLED = 2
    PRESTART = 4
    HELD = 8


class StartFlag(IntFlag):
    """CAPTURE: the program becomes a template where it waits. OTHER_PID: until then getpid(2) returns a wrong number."""

    TERMINAL = 1
    CAPTURE = 2
    OTHER_PID = 4


class Exceeded(IntEnum):
    """A limit that PID 1 itself saw exceeded, where no cgroup counts."""

    NOTHING = 0
    MEMORY = 1
    CPU_TIME = 2


class LeftOut(IntEnum):
    """Why a file was not collected. ERROR: the kernel's words for `error`."""

    ERROR = 0
    TOO_LARGE = 1
    TOO_MANY = 2
    TOO_MANY_ENTRIES = 3
    OUT_OF_TIME = 4
    NO_MATCH = 5
    NOT_REGULAR = 6
    FOLDER = 7


class LongMessage(NamedTuple):
    """The message itself, `bytes` long, lies at the start of the memfd that is the last descriptor."""

    kind: U32
    padding: U32
    bytes: U64


class Configure(NamedTuple):
    """Settings of a launcher, once. Descriptors: what it keeps open as long as it lives.

    uid_first, uid_count: uids for sandboxes. Text: the command lines of newuidmap and newgidmap, of so many words, 0 for root and
    where there are none; then the folders of its cgroups. filter_bytes, fallback_bytes: the seccomp programs after the
    text, the second for where no listener is possible.
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
    """uid_count: how many uids sandboxes really have; 1 means that all share one."""

    kind: U32
    uid_count: U32


class Step(NamedTuple):
    """One step of a plan. source, target, type, options: strings."""

    operation: U32
    mode: U32
    flags: U64
    source: U32
    target: U32
    type: U32
    options: U32


class Prepare(NamedTuple):
    """Steps that the launcher takes itself. Answered with Prepared, or Failed with the number. Then: steps, text."""

    kind: U32
    number: U32
    steps: U32
    text_bytes: U32


class Prepared(NamedTuple):
    kind: U32
    number: U32


class Make(NamedTuple):
    """Make a sandbox, which answers on its own link. Descriptors: that and, where a program is restored ahead, its template.
    Then: steps, text, seccomp program.

    cgroup_steps, tree_steps, limit_steps: how many there are, in this order. inside_uid: in its user namespace. stack_bytes: of
    a program that is started before its command comes. words, variables: command line and environment of that, the first
    strings of the text; main: the file that it will open. filter_bytes: of a seccomp program instead of the launcher's, or 0.
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
    """Kill the sandbox and remove everything of it. Answered with Ended once nothing is left."""

    kind: U32
    number: U32


class Ended(NamedTuple):
    kind: U32
    number: U32


class Failed(NamedTuple):
    """phase: a `Phase`. step: index of the step that failed, among those of its phase. Then: the call that failed, text."""

    kind: U32
    number: U32
    phase: U32
    step: U32
    error: U32
    text_bytes: U32


class Ready(NamedTuple):
    """Descriptors: stdin, stdout and stderr of the program to come, then the meters. pid: as the launcher sees it."""

    kind: U32
    pid: U32


class PackedFile(NamedTuple):
    """A file that a command brings. pack: which descriptor it lies in. name: a string."""

    offset: U64
    size: U64
    mode: U32
    pack: U32
    name: U32
    padding: U32


class Start(NamedTuple):
    """The command. Descriptors: packs. Then: files, text, which begins with words, variables and resume words.

    Limits as in `spec.Command`, 0 means none. resume_words: what a prestarted program needs to go on as this command, or
    `NO_WORDS` to start a fresh one; with CAPTURE the file where the program waits, or none for its hook.
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
    """Descriptor: the terminal, where one was asked for. prestarted: whether the program was waiting."""

    kind: U32
    prestarted: U32


class Refused(NamedTuple):
    """The command could not be started because of what it asks. Then: what it is about, text."""

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
    """The end of the program. status: exit code, or minus the signal. exceeded: an `Exceeded`."""

    kind: U32
    status: I32
    exceeded: U32
    padding: U32
    cpu_us: U64
    memory_peak_bytes: U64


class Collect(NamedTuple):
    """Send the files that match. Descriptor: where to. Then: patterns, text."""

    kind: U32
    patterns: U32
    max_bytes: U64
    max_files: U64
    budget_ms: U32
    text_bytes: U32


class CollectIndex(NamedTuple):
    """First on the descriptor of a Collect. Then: files, what was left out, text; then the contents, one after the other."""

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


STRUCTURES: tuple[type[NamedTuple], ...] = (
    LongMessage, Configure, Configured, Step, Prepare, Prepared, Make, Kill, End, Ended, Failed, Ready, PackedFile, Start,
    Started, Refused, Signal, Stop, Exited, Collect, CollectIndex, CollectedFile, CollectedLeftOut,
)  # fmt: skip
ENUMERATIONS: tuple[type[IntEnum] | type[IntFlag], ...] = (
    Kind, Phase, Operation, ConfigureFlag, MakeFlag, StartFlag, Exceeded, LeftOut,
)  # fmt: skip
CONSTANTS = (
    "VERSION", "MESSAGE_BYTES", "LONG_MESSAGE_BYTES", "NO_WORDS", "COLLECT_INDEX_BYTES", "GATE", "RESTORED", "TEMPLATE", "RANDOM",
    "NETLINK_SOCKETS",
    "SYSTEM_V_QUEUES", "SEMAPHORES_A_SET",
)  # fmt: skip
_SMALL_MESSAGE_BYTES = 4 << 10
_ANCILLARY_BYTES = socket.CMSG_SPACE(32 * 4)
"""Room for the most descriptors that a message carries."""

_Structure = TypeVar("_Structure", bound=tuple[int, ...])


class Text:
    """The strings of a message, each with a NUL after it."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        """words: to begin with. Raises: ValueError for a NUL inside."""
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
        """Append a string. Returns its offset. Raises: ValueError for a NUL inside."""
        data = os.fsencode(word)
        if b"\0" in data:
            raise ValueError("embedded null character")
        offset = self.bytes
        self._parts.append(data)
        self.bytes += len(data) + 1
        return offset

    def offset_of(self, word: str) -> int:
        """Return the offset of a string, which is appended unless this has been asked before. Raises: as `add`."""
        offset = self._offsets.get(word)
        if offset is None:
            offset = self._offsets[word] = self.add(word)
        return offset

    def encoded(self) -> bytes:
        self._parts.append(b"")
        return b"\0".join(self._parts)


@cache
def layout(structure: type[tuple[int, ...]]) -> struct.Struct:
    """Return the layout of a structure. Every field is naturally aligned, so there is no padding that is not declared."""
    return struct.Struct("<" + "".join(each.__metadata__[0] for each in structure.__annotations__.values()))


def pack(value: tuple[int, ...]) -> bytes:
    """Encode a structure."""
    return layout(type(value)).pack(*value)


def unpack(structure: type[_Structure], data: bytes) -> _Structure:
    """Decode a message that is one structure. Raises: ValueError for another length."""
    try:
        return structure(*layout(structure).unpack(data))
    except struct.error:
        raise ValueError(f"a {structure.__name__} has another length") from None


def unpack_from(structure: type[_Structure], data: bytes, offset: int = 0) -> _Structure:
    """Decode a structure at an offset. Raises: ValueError when the data is too short."""
    try:
        return structure(*layout(structure).unpack_from(data, offset))
    except struct.error:
        raise ValueError(f"a {structure.__name__} is longer") from None


def unpack_with_text(structure: type[_Structure], data: bytes) -> tuple[_Structure, str]:
    """Decode a structure whose last field counts the text after it. Raises: ValueError for another length."""
    value = unpack_from(structure, data)
    begin = layout(structure).size
    if len(data) != begin + value[-1]:
        raise ValueError(f"a {structure.__name__} with text of another length")
    return value, os.fsdecode(data[begin:].rstrip(b"\0"))


def error_text(number: int) -> str:
    """Return the words for an errno that somebody sent."""
    return os.strerror(number) if number <= MAX_ERRNO else f"Unknown error {number}"


def kind_of(data: bytes) -> int:
    """Return the kind of a message. Raises: ValueError when there is none."""
    if len(data) < 4:
        raise ValueError("no kind")
    return int.from_bytes(data[:4], "little")


def receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one short message and its descriptors, close-on-exec. b"" means the other side is gone, or the link is broken.

    Raises: BlockingIOError on a non-blocking link with nothing to read.
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
    """Send one message; the other side gets its own copies of the descriptors.

    Raises: OSError; with E2BIG when the message is longer than `LONG_MESSAGE_BYTES`.
    """
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
