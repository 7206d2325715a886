"""The interface of this floor: what a sandbox consists of, the command it runs, and how that ended.

These are named tuples because dataclasses would double the import time of a command.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

StreamName = Literal["stdout", "stderr"]

INSIDE_UID = 1000
"""The uid of every program in its own user namespace."""

HOOKS_FOLDER = "/.ahead"
"""The read-only folder in every sandbox with the hooks of prestarted interpreters."""

RESUME_WORDS_BYTES = 32 << 10
"""Maximum total length of resume words: a pipe holds them all before the hook reads."""


class Prestart(NamedTuple):
    """A program that an idle sandbox starts before its command arrives; see native/prestart.h.

    env: its environment at the start; the hook removes some variables. main: a file that must exist before the start, relative
    to the working directory; "" for none. held: the program waits where it opens that file, otherwise at a hook. stack_bytes:
    for a program that must not start with a stack as large as its memory; 0 for any other. template: the owner of the template
    that it may be restored from, "" for a shared one; None: never restored. other_pid: as in `Command`. draws: a main file that
    prints random numbers, one a line. If two restores of a template print the same line, the template is rejected.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    main: str = ""
    held: bool = False
    stack_bytes: int = 0
    template: str | None = None
    other_pid: bool = False
    draws: str = ""


class SandboxSpec(NamedTuple):
    """Everything that is fixed when a sandbox is created. Sandboxes with equal specs are interchangeable, so a pool keeps them.

    trees: host folders shown read-only besides the standard ones. layers: further layers of the root, topmost first: squashfs
    images or folders of the host. host: whether the standard folders are shown at all. memory_bytes, processes: can still be
    changed until the program starts. prestart: the program to start early. captures: processes may trace each other, which only
    the creation of templates needs.
    """

    trees: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    host: bool = True
    writable_bytes: int = 256 << 20
    writable_inodes: int = 20_000
    memory_bytes: int = 512 << 20
    processes: int = 128
    prestart: Prestart | None = None
    captures: bool = False


class InputFile(NamedTuple):
    """A file to write before the program starts. name: relative to the working directory, as os.fsdecode returns it."""

    name: str
    content: bytes
    mode: int = 0o644


class Command(NamedTuple):
    """The one command of a sandbox. argv[0]: an absolute path, or a name looked up in PATH of `env`.

    resume_words: what a prestarted program needs to go on as this command; None: start a fresh one.
    Limits are in milliseconds and bytes; 0 means unlimited. terminal: (rows, columns), or None for pipes. keep_files: files are
    collected afterwards, even when a limit ends the program. capture: the file at whose opening the program is captured, "" for
    its hook; None: no capture. other_pid: until the capture getpid(2) returns a wrong number, so that libraries that reseed
    their random generators in a process with another pid do so after a restore.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    files: tuple[InputFile, ...] = ()
    packed: Pack | None = None
    stdin: bytes = b""
    interactive: bool = False
    terminal: tuple[int, int] | None = None
    wall_ms: int = 3_000
    cpu_ms: int = 3_000
    memory_bytes: int = 512 << 20
    stack_bytes: int = 512 << 20
    processes: int = 128
    open_files: int = 1024
    file_size_bytes: int = 64 << 20
    output_bytes: int = 1 << 20
    kill_on_output: bool = False
    keep_files: bool = False
    resume_words: tuple[str, ...] | None = None
    capture: str | None = None
    other_pid: bool = False


class PackedFile(NamedTuple):
    """The place of one file in a pack."""

    name: str
    offset: int
    size: int
    mode: int


class Pack(NamedTuple):
    """Files passed by descriptor: a memfd or file with their contents one after the other, and the place of each."""

    descriptor: int
    files: tuple[PackedFile, ...]


class Started(NamedTuple):
    """The program runs. prestarted: it was waiting already."""

    prestarted: bool = False


class Output(NamedTuple):
    """A piece of output, in the order of its stream."""

    stream: StreamName
    data: bytes


class Exit(NamedTuple):
    """How a command ended. status: the exit code, or None after `signal` (a number).

    killed_by: "wall_time", "cpu_time", "memory", "output", "cancelled", or "" when no limit ended it.
    """

    status: int | None
    signal: int | None
    killed_by: str
    wall_ms: float
    cpu_ms: float = 0.0
    memory_peak_bytes: int = 0
    memory_limit_hit: bool = False
    stdout_truncated: bool = False
    stderr_truncated: bool = False


Event = Started | Output | Exit
"""What happens to a command, in this order; output comes in any number of pieces."""


class SandboxFailure(Exception):
    """The sandbox itself failed, not the program in it. step: what failed. hint: what an operator can do, or ""."""

    def __init__(self, step: str, errno: int = 0, detail: str = "", hint: str = "") -> None:
        super().__init__(f"{step}: {detail or errno}")
        self.step = step
        self.errno = errno
        self.detail = detail
        self.hint = hint


class CommandRefused(Exception):
    """The request is at fault that the command cannot start: no such program, clashing file names, arguments too long."""

    def __init__(self, step: str, errno: int, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.errno = errno
        self.detail = detail
