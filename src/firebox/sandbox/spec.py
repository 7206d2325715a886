"""The contract of this floor: what a sandbox is made of, what is run in it, what comes back.

Named tuples, here and in what a command loads before it runs: dataclasses would double the time that it takes to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

INSIDE_UID = 1000
"""Who every program is, in its own user namespace."""

HOOKS_FOLDER = "/.ahead"
"""Where the hooks of prestarted interpreters lie, in every sandbox, read-only."""

RESUME_WORDS_BYTES = 32 << 10
"""Words that a hook can be told: they fit into a pipe without anybody reading, together."""


class Prestart(NamedTuple):
    """A program that a ready sandbox has started already; see native/prestart.h. `Command.resume_words` is what it is told.

    env: what it is started with, more than it will have once its hook is done. main: a file that must be there before it
    starts, relative to the working directory; "" for none. held: it waits where it opens that file, else at a hook.
    stack_bytes: of a program that must not be started with a stack as large as its memory; 0 for any other. template: whose
    template it may be restored from, "" for everybody's; None: it is started each time. other_pid: as of `Command`. draws: a
    main file that prints random numbers, a line each. Restored twice from one template it must print no line again, else there
    is none.
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
    """What must be known when a sandbox is made. Sandboxes of one spec are interchangeable, so they can be kept ready.

    trees: host folders shown read-only besides the standard ones. layers: what else the root is stacked from, topmost first:
    squashfs images, or folders, of the host. host: whether the standard folders are shown at all. memory_bytes and processes
    can be changed until the start of the program; the size of what can be written cannot. prestart: what is started already.
    captures: its program may be captured, by another one there; for the making of templates only.
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
    """A file to be written before the program starts. name: relative to the working directory, as bytes would decode it."""

    name: str
    content: bytes
    mode: int = 0o644


class Command(NamedTuple):
    """What is run, once, in a sandbox. argv[0]: absolute path or a name looked up in PATH of `env`.

    resume_words: what a prestarted program needs to go on as this command; None: start a fresh one.
    Numbers as in the model's limits: milliseconds and bytes, 0 means no cap. terminal: (rows, columns), or None for pipes.
    keep_files: files are collected afterwards, even when a limit ends the program. capture: the file where the program waits to
    be captured, "" for its hook; None: it just runs. other_pid: until then getpid(2) returns a number that is not its, so that
    what draws new random numbers in a process with another pid does so when it is restored.
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
    """Where one file of a pack lies."""

    name: str
    offset: int
    size: int
    mode: int


class Pack(NamedTuple):
    """Files that travel by descriptor: a memfd or file with the contents one after the other, and where each lies."""

    descriptor: int
    files: tuple[PackedFile, ...]


class Exit(NamedTuple):
    """What the run of a command left. status: exit code, or None when killed by `signal` (a number) or by us.

    killed_by: "wall_time", "cpu_time", "memory", "output", "cancelled", or "" when no limit of ours ended it.
    """

    status: int | None
    signal: int | None
    killed_by: str
    wall_ms: float
    cpu_ms: float
    memory_peak_bytes: int
    memory_limit_hit: bool
    stdout_truncated: bool
    stderr_truncated: bool


class SandboxFailure(Exception):
    """Our own sandbox failed, not the program in it. step: what was being done; hint: what a person can do, or ""."""

    def __init__(self, step: str, errno: int = 0, detail: str = "", hint: str = "") -> None:
        super().__init__(f"{step}: {detail or errno}")
        self.step = step
        self.errno = errno
        self.detail = detail
        self.hint = hint


class CommandRefused(Exception):
    """The command could not be started because of what it asks: no such program, a name that clashes, arguments too long."""

    def __init__(self, step: str, errno: int, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.errno = errno
        self.detail = detail
