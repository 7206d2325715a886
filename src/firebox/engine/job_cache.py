"""Job cache: the output of compile stages and, where requested, whole outcomes.

An entry's key is a hash of everything it follows from, so only a client that has all of that can name it. Programs never see the
folder. There is a folder per runtime with a file per entry; writes are atomic.

Nothing waits for the disk. An entry that is lost in a crash of the machine is made again. A torn one fails its digest, which is
checked for entries that were written before the last boot, or on another machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from firebox.domain.model import Result, StageResult
from firebox.runtimes.runtime import Runtime
from firebox.sandbox.protocol.messages import write_all
from firebox.sandbox.spec import Pack, PackedFile

_FORMAT = b"firebox2"
_HEAD = struct.Struct("<8sQ16s16s")
"""Format, size of the header, digest of header and contents, and the boot since which they are known to agree."""
_BOOT_OFFSET = _HEAD.size - 16
_LARGEST_HEADER_BYTES = 256 << 20
_COPY_BYTES = 1 << 20
_QUICK_BYTES = 256 << 10
"""What is written at once: a thread for it would take longer."""
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_ROOM_AFTER_SWEEP = 0.9
"""A sweep makes some room, or the next entry would need one as well."""


class Compiled(Struct, frozen=True):
    """Entry of a compile stage: its result, and where each file that it made lies in the contents of the entry."""

    result: StageResult
    files: tuple[PackedFile, ...]
    kept_at_s: float


class Outcome(Struct, frozen=True):
    """Entry of a whole job."""

    result: Result
    kept_at_s: float


class JobCache:
    """A cache in a folder, which several servers may share. max_bytes: of all entries. max_age_s: since an entry was made."""

    def __init__(self, folder: Path, *, max_bytes: int, max_age_s: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._bytes: int | None = None
        self._boot = _boot()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unwritten: dict[str, Result] = {}
        self._writing: set[asyncio.Task[None]] = set()

    @staticmethod
    def key(runtime: Runtime, *parts: Any) -> str:
        """Return the key of an entry. parts: everything it follows from besides the runtime and the toolchain as it is now."""
        return hashlib.sha256(msgspec.msgpack.encode([runtime, *parts, _toolchain_state(runtime)])).hexdigest()

    async def take_turn(self, key: str) -> asyncio.Lock:
        """Take the single-flight lock of a key. The caller then looks again, and releases the lock."""
        lock = self._turns.setdefault(key, asyncio.Lock())
        await lock.acquire()
        return lock

    async def compiled(self, runtime: Runtime, key: str) -> tuple[StageResult, Pack] | None:
        """Look up what a compile stage made. The caller closes the pack's file descriptor."""
        opened = await self._open(runtime, key, Compiled)
        if opened is None:
            return None
        descriptor, entry, start = opened
        return entry.result, Pack(descriptor, tuple(each._replace(offset=start + each.offset) for each in entry.files))

    async def outcome(self, runtime: Runtime, key: str) -> Result | None:
        """Look up the outcome of a job."""
        if key in self._unwritten:
            return self._unwritten[key]
        opened = await self._open(runtime, key, Outcome)
        if opened is None:
            return None
        os.close(opened[0])
        result: Result = opened[1].result
        return result

    def keep_compiled(self, runtime: Runtime, key: str, result: StageResult, pack: Pack | None, turn: asyncio.Lock) -> None:
        """Cache what a compile stage made, best effort, and release the lock. Large entries are written in the background."""
        files = pack.files if pack is not None else ()
        self._keep(runtime, key, Compiled(result, files, time.time()), pack, turn.release)

    def keep_outcome(self, runtime: Runtime, key: str, result: Result) -> None:
        """Cache the outcome of a job, as `keep_compiled`."""
        self._unwritten[key] = result
        self._keep(runtime, key, Outcome(result, time.time()), None, lambda: self._unwritten.pop(key, None))

    async def written(self) -> None:
        """Wait until every entry is written."""
        await asyncio.gather(*self._writing)

    def _keep(
        self, runtime: Runtime, key: str, entry: Compiled | Outcome, pack: Pack | None, written: Callable[[], object]
    ) -> None:
        """Write an entry, and call `written` in any case."""
        header = msgspec.msgpack.encode(entry)
        size = _size_of(header, pack)
        if size <= _QUICK_BYTES and self._has_room(size):
            try:
                self._write(runtime, key, header, pack)
            finally:
                written()
            return
        copy = Pack(os.dup(pack.descriptor), pack.files) if pack is not None else None

        def write() -> None:
            try:
                self._write(runtime, key, header, copy)
            finally:
                if copy is not None:
                    os.close(copy.descriptor)

        task = asyncio.create_task(asyncio.to_thread(write))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        task.add_done_callback(lambda _task: written())

    async def purge(self, runtime: Runtime) -> int:
        """Delete every entry of a runtime. Returns how many there were. Raises: OSError."""
        await self.written()  # what is on its way would come back
        return await asyncio.to_thread(self._purge, runtime)

    def _purge(self, runtime: Runtime) -> int:
        folder = self._folder / _folder_of(runtime)
        try:
            count = sum(1 for _entry in folder.iterdir())
        except FileNotFoundError:
            return 0
        import tempfile  # rarely needed

        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".gone-") as gone:
            folder.rename(Path(gone, "entries"))
        self._bytes = None
        return count

    async def _open(self, runtime: Runtime, key: str, kind: type[Compiled | Outcome]) -> tuple[int, Any, int] | None:
        """Open an entry. Returns its descriptor, its header, and where the contents begin; None without a valid one."""
        path = f"{self._folder}/{_folder_of(runtime)}/{key}"  # for each run: to make a Path costs more than to open the file
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            magic, size, digest, boot = _HEAD.unpack(os.pread(descriptor, _HEAD.size, 0))
            if magic != _FORMAT or size > _LARGEST_HEADER_BYTES:
                raise ValueError(magic)
            header = os.pread(descriptor, size, _HEAD.size)
            entry: Any = msgspec.msgpack.decode(header, type=kind)
            if not 0 <= time.time() - entry.kept_at_s <= self._max_age_s:
                raise ValueError(entry.kept_at_s)
            end = _contents_bytes(getattr(entry, "files", ()))
            if os.fstat(descriptor).st_size < _HEAD.size + size + end:
                raise ValueError(end)  # cut off by a crash of the machine
            if boot != self._boot:
                check = partial(self._check_digest, path, digest, _pieces(descriptor, _HEAD.size, _HEAD.size + size + end))
                await asyncio.to_thread(check)
            os.utime(descriptor)  # the least recently used entry is evicted first
        except (struct.error, ValueError, msgspec.DecodeError, OSError):
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - as above
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, entry, _HEAD.size + size

    def _check_digest(self, path: str, digest: bytes, pieces: Iterator[bytes]) -> None:
        """Check an entry that a crash may have torn, and record that it is whole. Raises: ValueError, OSError."""
        found = _new_digest()
        for piece in pieces:
            found.update(piece)
        if found.digest() != digest:
            raise ValueError(digest)
        with contextlib.suppress(OSError):  # then it is checked again
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, self._boot, _BOOT_OFFSET)
            finally:
                os.close(descriptor)

    def _write(self, runtime: Runtime, key: str, header: bytes, pack: Pack | None) -> None:
        """Write an entry, if there is room for it; a full disk only means that nothing is kept."""
        size = _size_of(header, pack)
        if size > self._max_bytes:
            return
        with contextlib.suppress(OSError):
            if not self._has_room(size):
                self._make_room(size)
            place = f"{self._folder}/{_folder_of(runtime)}"
            unfinished = f"{place}/.unfinished-{os.urandom(8).hex()}"
            try:
                descriptor = os.open(unfinished, _NEW_FILE, 0o600)
            except FileNotFoundError:
                Path(place).mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(unfinished, _NEW_FILE, 0o600)
            try:
                digest = _new_digest()
                write_all(descriptor, bytes(_HEAD.size))
                pieces = _pieces(pack.descriptor, 0, _contents_bytes(pack.files)) if pack is not None else ()
                for piece in chain((header,), pieces):
                    write_all(descriptor, piece)
                    digest.update(piece)
                os.pwrite(descriptor, _HEAD.pack(_FORMAT, len(header), digest.digest(), self._boot), 0)
                os.link(unfinished, f"{place}/{key}")
                self._bytes = (self._bytes or 0) + size
            finally:
                os.unlink(unfinished)  # noqa: PTH108 - for each compiled program: paths cost more than the call
                os.close(descriptor)

    def _has_room(self, wanted_bytes: int) -> bool:
        """Check whether there is room, without reading the folder."""
        return self._bytes is not None and self._bytes + wanted_bytes <= self._max_bytes

    def _make_room(self, wanted_bytes: int) -> None:
        found: list[tuple[Path, float, int]] = []
        for path in self._folder.glob("*/*"):
            with contextlib.suppress(OSError):  # it is gone meanwhile
                status = path.lstat()
                found.append((path, status.st_mtime, status.st_size))
        found.sort(key=lambda entry: entry[1])
        total = sum(size for _path, _used, size in found)
        for path, used_at_s, size in found:
            is_old = time.time() - used_at_s > self._max_age_s
            if not is_old and total + wanted_bytes <= self._max_bytes * _ROOM_AFTER_SWEEP:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._bytes = total


def _folder_of(runtime: Runtime) -> str:
    package = f"-{runtime.package}" if runtime.package else ""
    return runtime.installed or f"host-{runtime.language}-{runtime.version}{package}"


def _toolchain_state(runtime: Runtime) -> list[tuple[str, int, int]]:
    """Return what an upgrade of a host's toolchain changes even where its version stays the same."""
    if runtime.installed:
        return []  # a package never changes
    words = {word for step in (*runtime.compile, runtime.run) for word in step if word.startswith("/")}
    state: list[tuple[str, int, int]] = []
    for word in sorted(words):
        with contextlib.suppress(OSError):
            status = os.stat(word)  # noqa: PTH116 - for each run: to make a path costs more than to ask
            state.append((word, status.st_mtime_ns, status.st_size))
    return state


def _size_of(header: bytes, pack: Pack | None) -> int:
    return _HEAD.size + len(header) + (_contents_bytes(pack.files) if pack is not None else 0)


def _contents_bytes(files: Iterable[PackedFile]) -> int:
    """Return how long the contents of files are, which lie one after the other."""
    return max((each.offset + each.size for each in files), default=0)


def _pieces(descriptor: int, position: int, end: int) -> Iterator[bytes]:
    """Yield a part of a file."""
    while position < end:
        piece = os.pread(descriptor, min(_COPY_BYTES, end - position), position)
        if not piece:
            return
        position += len(piece)
        yield piece


def _new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _boot() -> bytes:
    """Return the identity of this boot of the machine. Source: proc_sys_kernel(5), "random"."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return os.urandom(16)
