"""Squashfs images as untrusted input: validated before anything else uses them.

The kernel mounts images with root privileges, so the superblock is validated here. Everything else is read by `unsquashfs`,
running unprivileged with time and memory limits; its output is validated as strictly as the image itself.

Source: Linux Documentation/filesystems/squashfs.rst; squashfs_fs.h.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from firebox.domain.errors import PackageError, UnusablePackage
from firebox.packages.installed.metadata import MAX_INODES
from firebox.packages.installed.tree import opened

MAGIC = b"hsqs"
MAX_DEPTH = 64

_UNPRIVILEGED_ID = 209_999
"""User id of unsquashfs: no account has it, so no other process can inspect it or modify its output."""
_NOBODY = 65534
"""Fallback where that id is not mapped, as in a container with a small user namespace."""
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_NO_TABLE = (1 << 64) - 1
_COMPRESSORS = range(1, 7)
"""gzip, lzma, lzo, xz, lz4 and zstd."""
_MEMORY_KB = 4 << 20
_LIST_TIMEOUT_S = 300
_UNPACK_TIMEOUT_S = 3600
_LIMITED = 'ulimit -c 0; ulimit -t "$1"; ulimit -v "$2"; shift 2; exec "$@"'
_LINE_BYTES = 64 << 10
_LINE = re.compile(
    rb"(?P<kind>.)(?P<mode>[-rwxsStT]{9}) \d+/\d+ +(?P<size>\d+|\d+, *\d+) \d{4}-\d\d-\d\d \d\d:\d\d squashfs-root(?P<name>/.*)?",
    re.DOTALL,
)
_KINDS = {b"b": "a device node", b"c": "a device node", b"p": "a pipe", b"s": "a socket"}


class Image(Struct):
    """A squashfs image that `check_image` has checked. Its methods raise UnusablePackage, PackageError and OSError."""

    path: Path
    name: str
    """Of the package, for messages."""
    max_bytes: int
    size_bytes: int = 0
    files: dict[str, int] = {}
    """Sizes of the files at the top level."""
    folders: set[str] = set()
    """Folders at the top level."""
    names: set[str] = set()
    """All names at the top level."""
    paths: set[bytes] = set()
    """Everything listed so far."""

    async def read_file(self, file: str, max_bytes: int) -> bytes:
        """Read a small file at the top level."""
        if file not in self.files:
            raise UnusablePackage(f"{self.name}: the image has no file {file}")
        too_large = UnusablePackage(f"{self.name}: {file} is larger than {max_bytes} bytes")
        if self.files[file] > max_bytes:
            raise too_large
        async with self._unsquashfs("-no-wildcards", "-cat", self.path, file, seconds=_LIST_TIMEOUT_S) as output:
            data = b""
            while piece := await output.read(_LINE_BYTES):
                data += piece
                if len(data) > max_bytes:
                    raise too_large
        return data

    async def unpack(self, folder: Path, on_output: Callable[[bytes], None]) -> None:
        """Unpack into an empty folder. The files belong to the unprivileged user. on_output: called with unsquashfs's output."""
        options = ("-no-xattrs", "-no-progress", "-quiet", "-force", "-dest", folder)
        if (user := unprivileged_id()) is not None:
            os.chown(folder, user, user)
        async with self._unsquashfs(*options, self.path, seconds=_UNPACK_TIMEOUT_S) as output:
            while piece := await output.read(_LINE_BYTES):
                on_output(piece)

    def check_superblock(self) -> None:
        with self.path.open("rb") as file:
            data = file.read(_SUPERBLOCK.size)
            file_bytes = os.fstat(file.fileno()).st_size
        if len(data) < _SUPERBLOCK.size or not data.startswith(MAGIC):
            raise UnusablePackage(f"{self.name}: not a squashfs image")
        fields = _SUPERBLOCK.unpack(data)
        _magic, inodes, _made, block_bytes, _fragments, compression, block_log, _flags, _ids, major, minor = fields[:11]
        root, used_bytes, ids_at, xattrs_at, inodes_at, folders_at, fragments_at, exports_at = fields[11:]
        if (major, minor) != (4, 0):
            raise UnusablePackage(f"{self.name}: the image has squashfs version {major}.{minor}; supported: 4.0")
        if compression not in _COMPRESSORS or not 12 <= block_log <= 20 or block_bytes != 1 << block_log:
            raise UnusablePackage(f"{self.name}: the superblock of the image is invalid")
        tables = [each for each in (ids_at, inodes_at, folders_at, fragments_at, exports_at) if each != _NO_TABLE]
        if not _SUPERBLOCK.size <= used_bytes <= file_bytes or max(root >> 16, *tables) >= used_bytes:
            raise UnusablePackage(f"{self.name}: the image is truncated or corrupt: its superblock declares {used_bytes} bytes")
        if not 1 <= inodes <= MAX_INODES:
            raise UnusablePackage(f"{self.name}: the image has {inodes} inodes; the maximum is {MAX_INODES}")
        if xattrs_at != _NO_TABLE:
            hint = "build it with mksquashfs -no-xattrs"
            raise UnusablePackage(f"{self.name}: the image has extended attributes, which can grant privileges", hint=hint)

    async def check_listing(self) -> None:
        async with self._unsquashfs("-lln", self.path, seconds=_LIST_TIMEOUT_S) as output:
            try:
                async for line in output:
                    self._add(line.removesuffix(b"\n"))
            except ValueError:
                raise UnusablePackage(f"{self.name}: the image contains a name of more than {_LINE_BYTES} bytes") from None
        if not self.paths:
            raise UnusablePackage(f"{self.name}: the image is empty")
        self.paths.clear()  # up to 500,000, which only this check needs

    def _add(self, line: bytes) -> None:
        """Check a line of `unsquashfs -lln` and add it.

        A newline in a name splits its line in two, but cannot hide an entry: every entry's own line starts with its type and
        mode, and any other line is rejected.
        """
        found = _LINE.fullmatch(line)
        if found is None:
            raise UnusablePackage(f"{self.name}: the image contains a name that cannot be listed: {_shown(line)}")
        kind, mode, path = found["kind"], found["mode"], found["name"] or b"/"
        if kind not in b"-dl":
            raise UnusablePackage(f"{self.name}: {_shown(path)} is {_KINDS.get(kind, 'not a file, folder or symlink')}")
        if b"s" in mode.lower():
            raise UnusablePackage(f"{self.name}: {_shown(path)} is setuid or setgid ({mode.decode()})")
        if kind == b"l":
            path = path.partition(b" -> ")[0]
        parts = path[1:].split(b"/") if path != b"/" else []
        if any(part in {b"", b".", b".."} for part in parts) or len(parts) > MAX_DEPTH:
            raise UnusablePackage(f"{self.name}: {_shown(path)} is outside the image, or nested deeper than {MAX_DEPTH}")
        if path in self.paths:
            raise UnusablePackage(f"{self.name}: {_shown(path)} is in the image twice")
        if len(self.paths) >= MAX_INODES:
            raise UnusablePackage(f"{self.name}: the image has more than {MAX_INODES} files")
        self.paths.add(path)
        size_bytes = int(found["size"])
        self.size_bytes += size_bytes if kind == b"-" else 0
        if self.size_bytes > self.max_bytes:
            raise UnusablePackage(
                f"{self.name}: the image contains more than {self.max_bytes} bytes", hint="raise max_package_bytes"
            )
        if len(parts) == 1:
            top = parts[0].decode(errors="replace")
            self.names.add(top)
            if kind == b"-":
                self.files[top] = size_bytes
            elif kind == b"d":
                self.folders.add(top)

    @asynccontextmanager
    async def _unsquashfs(self, *options: str | Path, seconds: int) -> AsyncGenerator[asyncio.StreamReader]:
        """Run unsquashfs unprivileged and yield its output stream; a regular exit of the context waits for the process.

        Each path in `options` is passed as a file descriptor, since its folder may be private.
        """
        program = _program("unsquashfs", "squashfs-tools", self.name)
        with ExitStack() as stack:
            handed = {path: stack.enter_context(opened(path)) for path in options if isinstance(path, Path)}
            process = await asyncio.create_subprocess_exec(
                *_setpriv(self.name), "/bin/sh", "-c", _LIMITED, "sh", str(seconds), str(_MEMORY_KB), program,
                *("-processors", "1", "-data-queue", "32", "-frag-queue", "32"),
                *(f"/proc/self/fd/{handed[each]}" if isinstance(each, Path) else each for each in options),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES, env=_ENVIRONMENT, cwd="/", pass_fds=list(handed.values()), start_new_session=True,
            )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - asked for above
        errors_task = asyncio.ensure_future(_read_tail(process.stderr))
        try:
            async with asyncio.timeout(seconds):
                yield process.stdout
                status = await process.wait()
            errors = await errors_task
        except TimeoutError:
            raise UnusablePackage(f"{self.name}: unsquashfs timed out after {seconds} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            errors_task.cancel()
        if status != 0:
            if b"No space left" in errors:
                raise OSError(28, "No space left on device")
            complaint = errors.decode(errors="replace").strip()[-400:] or f"unsquashfs exited with status {status}"
            raise UnusablePackage(f"{self.name}: the image cannot be read: {complaint}")


async def check_image(path: Path, *, name: str, max_bytes: int) -> Image:
    """Check the superblock and reject what no package needs: device nodes, setuid programs, ambiguous names.

    name: of the package, for messages. max_bytes: in total. Raises: UnusablePackage; PackageError without unsquashfs; OSError.
    """
    image = Image(path, name, max_bytes)
    await asyncio.to_thread(image.check_superblock)
    await image.check_listing()
    return image


@lru_cache(maxsize=1)
def unprivileged_id() -> int | None:
    """Return the unprivileged user and group id; None if this process has no privileges to drop."""
    if os.geteuid() != 0:
        return None
    return _UNPRIVILEGED_ID if _is_mapped("uid") and _is_mapped("gid") else _NOBODY


def _is_mapped(kind: str) -> bool:
    """Check whether this user namespace maps the id. Source: user_namespaces(7), "/proc/pid/uid_map"."""
    lines = Path(f"/proc/self/{kind}_map").read_text(encoding="ascii").splitlines()
    ranges = [(int(line.split()[0]), int(line.split()[2])) for line in lines]
    return any(first <= _UNPRIVILEGED_ID < first + count for first, count in ranges)


def _shown(text: bytes) -> str:
    return repr(text[:200].decode(errors="replace"))


def _setpriv(name: str) -> list[str]:
    """Return the command prefix that drops privileges: uvloop does not support these arguments of `create_subprocess_exec`."""
    user = unprivileged_id()
    if user is None:
        return []
    identity = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
    return [_program("setpriv", "util-linux", name), *identity, "--"]


def _program(program: str, package: str, name: str) -> str:
    found = shutil.which(program, path=_ENVIRONMENT["PATH"])
    if found is None:
        raise PackageError(f"{name}: {program} is not installed", hint=f"apt-get install {package}")
    return found


async def _read_tail(stream: asyncio.StreamReader) -> bytes:
    words = b""
    while piece := await stream.read(_LINE_BYTES):
        words = (words + piece)[-_LINE_BYTES:]
    return words
