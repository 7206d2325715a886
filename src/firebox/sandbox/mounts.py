"""The file tree of a sandbox as a plan: steps with `execute()` and `describe()`, collected first, run in one loop.

The host shows through `HOST` (the launcher pivots its own root away), the sandbox's new root is built at a path of the
launcher's lean tmpfs. Trees of the host are shown through an overlay of their own for each sandbox: same page cache, but
inodes of its own, so that locks, leases and watches do not connect two sandboxes.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from firebox.sandbox import ahead, kernel, spec

HOST = "/host"
"""Where the launcher, after its own pivot_root, sees the host."""

WORK = "/box"
"""Working directory of every program: the folder with the files."""

HOME = "/home/firebox"

STANDARD_TREES = ("/usr",)

COVERED = ("/box", "/dev", "/etc", HOME, "/proc", "/run", "/sys", "/tmp", "/var/tmp")
"""A sandbox has its own of these: nothing of the host's can be seen at its place there."""

MOVED = "/.host"
"""Where in a sandbox a tree of the host is shown that lies below one of them."""

EMPTY = "/empty"
"""An empty folder of the launcher's lean root: an overlay without an upper layer needs two lower ones."""

USRMERGE_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

ETC_PATHS = (
    "alternatives", "ca-certificates", "fonts", "gai.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "mime.types", "protocols", "rpc", "services", "shells", "ssl/certs", "ssl/openssl.cnf", "terminfo", "magic", "magic.mime",
    "debian_version", "os-release", "lsb-release", "inputrc", "profile", "bash.bashrc", "xattr.conf",
)  # fmt: skip
"""Copied from the host's /etc when they exist: what toolchains read, nothing that tells secrets."""

ETC_PREFIXES = ("java-", "python", "perl", "php", "mono", "ghc", "R", "fpc", "emacs", "octave", "guile", "openmpi")
"""Names in /etc that begin so are copied too: several toolchains keep half of themselves there."""

DEVICE_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}

PROC_READ_ONLY = ("sys", "bus", "fs", "irq")
PROC_MASKED_FILES = (
    "kcore", "keys", "key-users", "kmsg", "kallsyms", "timer_list", "latency_stats", "sched_debug", "sysrq-trigger",
    "kpagecount", "kpageflags", "kpagecgroup", "slabinfo", "vmallocinfo", "mtrr", "partitions", "diskstats", "swaps",
    "locks",  # OFD locks of the whole machine, whoever holds them: two programs could talk through it
    "cmdline",  # of the kernel: people put credentials there
)  # fmt: skip
PROC_MASKED_FOLDERS = ("acpi", "scsi", "asound", "driver", "tty", "dynamic_debug", "pressure")

_COPY_LIMIT_BYTES = 16 << 20
_COPY_PIECE_BYTES = 1 << 20
_PTY_OPTIONS = "newinstance,ptmxmode=0666,mode=0620,max=64"
"""The number of terminals is bounded for the whole machine (kernel.pty.max); one sandbox must not take them all."""


class Mount(NamedTuple):
    """One mount(2). kind None: a bind of `source`."""

    source: str
    target: str
    kind: str | None
    flags: int = 0
    options: str = ""

    def execute(self) -> None:
        kernel.mount(self.source, self.target, self.kind, self.flags, self.options)

    def describe(self) -> str:
        return f"mount {self.kind or 'bind'} {self.source} on {self.target} {self.options}".rstrip()


class Restrict(NamedTuple):
    """Give a mount and all below it attributes such as read-only."""

    target: str
    attributes: int

    def execute(self) -> None:
        kernel.mount_setattr(self.target, self.attributes)

    def describe(self) -> str:
        return f"restrict {self.target} to {self.attributes:#x}"


class Folder(NamedTuple):
    """Make a folder with exactly this mode and owner."""

    path: str
    mode: int
    uid: int
    gid: int

    def execute(self) -> None:
        os.mkdir(self.path)
        os.chmod(self.path, self.mode)
        os.chown(self.path, self.uid, self.gid)

    def describe(self) -> str:
        return f"make folder {self.path} with mode {self.mode:o} for {self.uid}"


class Pivot(NamedTuple):
    """Make `root` the root and let go of everything else."""

    root: str

    def execute(self) -> None:
        os.chdir(self.root)
        kernel.pivot_root(".", ".")
        kernel.umount(".")  # the old root lies on top of the new one at the same place
        os.chdir("/")

    def describe(self) -> str:
        return f"pivot_root into {self.root}"


Step = Mount | Restrict | Folder | Pivot


def lean_root(old_root: str = HOST) -> None:
    """Replace the launcher's root by a tmpfs that shows the host at `HOST`; nothing is written to the host's disk.

    Must be called in a mount namespace of its own. /tmp serves as the mount point because it always exists; the host's
    own /tmp is visible again below `HOST` afterwards. Modules that are not loaded by now cannot be imported any more.
    What the host unmounts goes here too, else its disk would stay busy as long as we live; nothing goes the other way.
    """
    try:
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_SLAVE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        hint = "before you enter it: `mount --bind DIR DIR`, and `mount -t proc proc DIR/proc`; or `systemd-nspawn -D DIR`"
        raise spec.SandboxFailure("the root", errno.EINVAL, "this is a chroot whose root is no mount point", hint) from None
    kernel.mount("firebox", "/tmp", "tmpfs", kernel.MS_NOSUID, "mode=755,size=64m")
    os.mkdir("/tmp" + old_root)
    os.mkdir("/tmp" + EMPTY)
    kernel.pivot_root("/tmp", "/tmp" + old_root)
    os.chdir("/")


def shown_at(path: str) -> str:
    """Return where in a sandbox a path of a shown tree is: the same as on the host, unless it is covered there."""
    return MOVED + path if any(f"{path}/".startswith(f"{covered}/") for covered in COVERED) else path


def submounts(trees: Iterable[str]) -> Iterator[str]:
    """Yield the trees and every folder mounted on the host below one of them: an overlay shows a single file system."""
    with open(HOST + "/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        mounted = [re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines]
    mounted = [path[len(HOST) :] for path in mounted if path.startswith(HOST + "/")]
    for tree in trees:
        yield tree
        yield from sorted({path for path in mounted if path.startswith(tree + "/") and os.path.isdir(HOST + path)})


class Skeleton:
    """The read-only bottom of a root: folders, links, a synthetic /etc, device nodes, and the mount points of the trees.

    host: whether what the host's toolchains keep outside of the trees is shown too; without it everything comes from the layers
    below. hooks: name -> text, see `ahead`. Built once by the launcher, shared by every sandbox with that root. `show` comes
    once, before the first of them.
    """

    trees: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        *,
        passwd_uid: int,
        make_nodes: bool,
        host: bool = True,
        hooks: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.nodes_are_real = make_nodes
        os.mkdir(path, 0o755)
        for folder in ("box", "dev/pts", "dev/shm", "etc", "home/firebox", "proc", "run", "sys", "tmp", "usr", "var", ".mask"):
            os.makedirs(f"{path}/{folder}", 0o755, exist_ok=True)
        for link in USRMERGE_LINKS if host else ():
            if os.path.islink(HOST + link):
                os.symlink(os.readlink(HOST + link), path + link)
        os.symlink("/tmp", f"{path}/var/tmp")
        os.symlink("/run/lock", f"{path}/var/lock")
        self._make_devices(make_nodes)
        if host:
            self._copy_etc()
        self._write_etc(passwd_uid)
        with open(f"{path}/.mask/file", "w"):
            pass
        os.chmod(f"{path}/.mask/file", 0o444)
        os.mkdir(f"{path}/.mask/folder", 0o555)
        os.mkdir(path + ahead.FOLDER)
        for name, text in (hooks or {}).items():
            with open(f"{path}{ahead.FOLDER}/{name}", "w", encoding="utf-8") as file:
                file.write(text)

    def show(self, trees: Sequence[str]) -> None:
        """Make the mount points of folders of the host. trees: without trailing slash; those that are not there are left out."""
        self.trees = tuple(submounts(_without_nested([tree for tree in trees if os.path.isdir(HOST + tree)])))
        for tree in self.trees:
            os.makedirs(self.path + shown_at(tree), 0o755, exist_ok=True)

    def _make_devices(self, make_nodes: bool) -> None:
        for name, (major, minor) in DEVICE_NODES.items():
            node = f"{self.path}/dev/{name}"
            if make_nodes:
                os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(major, minor))
                os.chmod(node, 0o666)  # noqa: S103 - as on every Unix
            else:
                with open(node, "w"):
                    pass
        links = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1"}
        for name, target in {**links, "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}.items():
            os.symlink(target, f"{self.path}/dev/{name}")

    def _copy_etc(self) -> None:
        for name in os.listdir(HOST + "/etc"):
            if name.startswith(ETC_PREFIXES):
                _copy(f"{HOST}/etc/{name}", f"{self.path}/etc/{name}")
        for name in ETC_PATHS:
            if os.path.lexists(f"{HOST}/etc/{name}") and not os.path.lexists(f"{self.path}/etc/{name}"):
                os.makedirs(os.path.dirname(f"{self.path}/etc/{name}"), 0o755, exist_ok=True)
                _copy(f"{HOST}/etc/{name}", f"{self.path}/etc/{name}")

    def _write_etc(self, uid: int) -> None:
        texts = {
            "passwd": f"root:x:0:0:root:/:/bin/sh\nfirebox:x:{uid}:{uid}:firebox:{HOME}:/bin/sh\n"
            "nobody:x:65534:65534:nobody:/:/bin/false\n",
            "group": f"root:x:0:\nfirebox:x:{uid}:\nnogroup:x:65534:\n",
            "hosts": "127.0.0.1 localhost firebox\n::1 localhost firebox\n",
            "hostname": "firebox\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
            "resolv.conf": "",
            "timezone": "Etc/UTC\n",
            "machine-id": "00000000000000000000000000000000\n",
        }
        for name, text in texts.items():
            target = f"{self.path}/etc/{name}"
            if os.path.lexists(target):
                os.unlink(target)
            with open(target, "w", encoding="utf-8") as file:
                file.write(text)
        localtime = f"{self.path}/etc/localtime"
        if os.path.lexists(localtime):
            os.unlink(localtime)
        os.symlink("/usr/share/zoneinfo/Etc/UTC", localtime)


def _without_nested(trees: Sequence[str]) -> tuple[str, ...]:
    """Drop trees that another one already shows."""
    return tuple(
        tree for tree in dict.fromkeys(trees) if not any(tree.startswith(other + "/") for other in trees if other != tree)
    )


def _copy(source: str, target: str) -> None:
    """Copy a file, link or folder of the host's /etc as far as anybody may read it; the rest is left out."""
    try:
        status = os.lstat(source)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISDIR(status.st_mode) and status.st_mode & 0o005 == 0o005:
            os.mkdir(target, 0o755)
            for name in os.listdir(source):
                _copy(f"{source}/{name}", f"{target}/{name}")
        elif stat.S_ISREG(status.st_mode) and status.st_mode & 0o004 and status.st_size <= _COPY_LIMIT_BYTES:
            _copy_file(source, target, status)
    except (FileNotFoundError, PermissionError):
        return  # unreadable for this user, or gone meanwhile: the sandbox does without


def _copy_file(source: str, target: str, status: os.stat_result) -> None:
    """Copy a regular file. There are hundreds: what open() makes around a descriptor takes longer than the kernel."""
    readable = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writable = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        try:
            left = _COPY_LIMIT_BYTES
            while left > 0 and (data := os.read(readable, min(left, _COPY_PIECE_BYTES))):
                left -= os.write(writable, data)
            os.fchmod(writable, status.st_mode & 0o755 | 0o444)
        finally:
            os.close(writable)
    finally:
        os.close(readable)


def plan(
    skeleton: Skeleton,
    layers: Sequence[str],
    root: str,
    *,
    uid: int,
    writable_bytes: int,
    writable_inodes: int,
    overlay: bool,
    writable_proc: bool = True,
    counted: bool = True,
) -> Iterator[Step]:
    """Yield the steps that build a sandbox's tree at the empty folder `root` and pivot into it.

    layers: folders below the skeleton, topmost first. uid: owner of everything writable, in the launcher's user namespace.
    overlay: False where the kernel refuses overlays here; trees are then shared inodes, read-only all the same, and there
    can be no layers. writable_proc: False makes all of /proc read-only, /proc/self included.
    counted: False where no control group counts memory: a shared mapping of /dev/zero would be memory that nobody sees, so
    /dev/full is there, which reads the same and cannot be mapped.
    """
    shown = kernel.MS_RDONLY | kernel.MS_NOSUID
    if overlay:
        # What a layer calls a device is none; ours lie in a mount of their own.
        yield Mount("firebox", root, "overlay", shown | kernel.MS_NODEV, _stacked(skeleton.path, *layers, EMPTY))
        yield Mount("firebox", root + "/dev", "overlay", shown, _stacked(skeleton.path + "/dev", EMPTY))
        for tree in skeleton.trees:
            yield Mount("firebox", root + shown_at(tree), "overlay", shown | kernel.MS_NODEV, _stacked(HOST + tree, EMPTY))
    else:
        yield Mount(skeleton.path, root, None, kernel.MS_BIND)
        for tree in skeleton.trees:
            yield Mount(HOST + tree, root + shown_at(tree), None, kernel.MS_BIND | kernel.MS_REC)
        yield Restrict(root, kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID)
    if not skeleton.nodes_are_real:
        for name in DEVICE_NODES:
            yield Mount(f"{HOST}/dev/{name}", f"{root}/dev/{name}", None, kernel.MS_BIND)
    if not counted:
        yield Mount(f"{HOST}/dev/full", f"{root}/dev/zero", None, kernel.MS_BIND)

    yield Mount("proc", root + "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    yield from _mask_proc(root)
    if not writable_proc:
        yield Restrict(root + "/proc", kernel.MOUNT_ATTR_RDONLY)

    yield Mount("devpts", root + "/dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, _PTY_OPTIONS)
    options = f"mode=755,size={writable_bytes},nr_inodes={writable_inodes}"
    box = root + WORK
    yield Mount("firebox", box, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    for name, place, mode in (
        ("tmp", "/tmp", 0o1777),
        ("shm", "/dev/shm", 0o1777),
        ("run", "/run", 0o1777),
        ("home", HOME, 0o700),
        ("work", WORK, 0o755),  # last: it covers the tmpfs it comes from
    ):
        yield Folder(f"{box}/{name}", mode, uid, uid)
        if name == "run":
            yield Folder(f"{box}/run/lock", 0o1777, uid, uid)
        yield Mount(f"{box}/{name}", root + place, None, kernel.MS_BIND)
    yield Pivot(root)


def _stacked(*folders: str) -> str:
    """Give the option of an overlay that shows folders above each other, topmost first."""
    return "lowerdir=" + ":".join(folder.replace("\\", "\\\\").replace(":", "\\:") for folder in folders)


def _mask_proc(root: str) -> Iterator[Step]:
    proc, mask = root + "/proc", root + "/.mask"
    exists: Callable[[str], bool] = lambda name: os.path.exists(f"{HOST}/proc/{name}")  # noqa: E731 - local and short
    for name in filter(exists, PROC_READ_ONLY):
        yield Mount(f"{proc}/{name}", f"{proc}/{name}", None, kernel.MS_BIND)
        yield Restrict(f"{proc}/{name}", kernel.MOUNT_ATTR_RDONLY)
    for names, cover in ((PROC_MASKED_FILES, "file"), (PROC_MASKED_FOLDERS, "folder")):
        for name in filter(exists, names):
            yield Mount(f"{mask}/{cover}", f"{proc}/{name}", None, kernel.MS_BIND)
