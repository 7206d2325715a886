"""The file tree of a sandbox as a plan.

The host shows through `HOST` (the launcher pivots its own root away), the sandbox's new root is built at a path of the
launcher's lean tmpfs. Trees of the host are shown through an overlay of their own for each sandbox: same page cache, but
inodes of its own, so that locks, leases and watches do not connect two sandboxes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from firebox.sandbox.plan import steps
from firebox.sandbox.plan.steps import Mount, OwnFolder, Pivot, Restrict, Step

HOST = "/host"
"""Where the launcher, in its own root, sees the host."""

ROOT = "/new"
"""Where the launcher's children build the root of a sandbox."""

EMPTY = "/empty"
"""An empty folder of the launcher's lean root: an overlay without an upper layer needs two lower ones."""

WORK = "/box"
"""Working directory of every program: the folder with the files."""

HOME = "/home/firebox"

STANDARD_TREES = ("/usr",)

COVERED = ("/box", "/dev", "/etc", HOME, "/proc", "/run", "/sys", "/tmp", "/var/tmp")
"""A sandbox has its own of these: nothing of the host's can be seen at its place there."""

MOVED = "/.host"
"""Where in a sandbox a tree of the host is shown that lies below one of them."""

USRMERGE_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

DEVICE_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}

PROC_READ_ONLY = ("sys", "bus", "fs", "irq")
PROC_MASKED_FILES = (
    "kcore", "keys", "key-users", "kmsg", "kallsyms", "timer_list", "latency_stats", "sched_debug", "sysrq-trigger",
    "kpagecount", "kpageflags", "kpagecgroup", "slabinfo", "vmallocinfo", "mtrr", "partitions", "diskstats", "swaps",
    "locks",  # OFD locks of the whole machine, whoever holds them: two programs could talk through it
    "cmdline",  # of the kernel: people put credentials there
)  # fmt: skip
PROC_MASKED_FOLDERS = ("acpi", "scsi", "asound", "driver", "tty", "dynamic_debug", "pressure")

_PTY_OPTIONS = "newinstance,ptmxmode=0666,mode=0620,max=64"
"""The number of terminals is bounded for the whole machine (kernel.pty.max); one sandbox must not take them all."""


def shown_at(path: str) -> str:
    """Return where in a sandbox a path of a shown tree is: the same as on the host, unless it is covered there."""
    return MOVED + path if any(f"{path}/".startswith(f"{covered}/") for covered in COVERED) else path


def shown_trees(trees: Iterable[str]) -> tuple[str, ...]:
    """Return the folders of the host to be shown: those that exist, and what is mounted below them."""
    return tuple(_submounts(_without_nested([tree for tree in trees if os.path.isdir(tree)])))


def _submounts(trees: Iterable[str]) -> Iterator[str]:
    """Yield the trees and every folder mounted on the host below one of them: an overlay shows a single file system."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        mounted = {re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines}
    for tree in trees:
        yield tree
        yield from sorted(path for path in mounted if path.startswith(tree + "/") and os.path.isdir(path))


def _without_nested(trees: Sequence[str]) -> tuple[str, ...]:
    """Drop trees that another one already shows."""
    return tuple(
        tree for tree in dict.fromkeys(trees) if not any(tree.startswith(other + "/") for other in trees if other != tree)
    )


def plan(
    skeleton: str,
    trees: Sequence[str],
    layers: Sequence[str],
    *,
    nodes_are_real: bool,
    writable_bytes: int,
    writable_inodes: int,
    overlay: bool,
    writable_proc: bool = True,
    counted: bool = True,
) -> Iterator[Step]:
    """Yield the steps that build a sandbox's tree at the empty folder `ROOT` and pivot into it.

    skeleton: its folder. trees: of the host, shown above it. layers: folders below the skeleton, topmost first, as the launcher
    sees them. nodes_are_real: devices are in the skeleton, else they are shown from the host's /dev. overlay: False where the
    kernel refuses overlays here; trees are then shared inodes, read-only all the same, and there can be no layers.
    writable_proc: False makes all of /proc read-only, /proc/self included. counted: False where no cgroup counts memory:
    a shared mapping of /dev/zero would be memory that nobody sees, so /dev/full is there, which reads the same and cannot be
    mapped.
    """
    shown = steps.MS_RDONLY | steps.MS_NOSUID
    if overlay:
        # What a layer calls a device is none; ours lie in a mount of their own.
        yield Mount("firebox", ROOT, "overlay", shown | steps.MS_NODEV, _stacked(skeleton, *layers, EMPTY))
        yield Mount("firebox", ROOT + "/dev", "overlay", shown, _stacked(skeleton + "/dev", EMPTY))
        for tree in trees:
            yield Mount("firebox", ROOT + shown_at(tree), "overlay", shown | steps.MS_NODEV, _stacked(HOST + tree, EMPTY))
    else:
        yield Mount(skeleton, ROOT, None, steps.MS_BIND)
        for tree in trees:
            yield Mount(HOST + tree, ROOT + shown_at(tree), None, steps.MS_BIND | steps.MS_REC)
        yield Restrict(ROOT, steps.MOUNT_ATTR_RDONLY | steps.MOUNT_ATTR_NOSUID)
    if not nodes_are_real:
        for name in DEVICE_NODES:
            yield Mount(f"{HOST}/dev/{name}", f"{ROOT}/dev/{name}", None, steps.MS_BIND)
    if not counted:
        yield Mount(f"{HOST}/dev/full", f"{ROOT}/dev/zero", None, steps.MS_BIND)

    yield Mount("proc", ROOT + "/proc", "proc", steps.MS_NOSUID | steps.MS_NODEV | steps.MS_NOEXEC)
    yield from _mask_proc(PROC_READ_ONLY if writable_proc else ())
    if not writable_proc:
        yield Restrict(ROOT + "/proc", steps.MOUNT_ATTR_RDONLY)

    yield Mount("devpts", ROOT + "/dev/pts", "devpts", steps.MS_NOSUID | steps.MS_NOEXEC, _PTY_OPTIONS)
    options = f"mode=755,size={writable_bytes},nr_inodes={writable_inodes}"
    box = ROOT + WORK
    yield Mount("firebox", box, "tmpfs", steps.MS_NOSUID | steps.MS_NODEV, options)
    for name, place, mode in (
        ("tmp", "/tmp", 0o1777),
        ("shm", "/dev/shm", 0o1777),
        ("run", "/run", 0o1777),
        ("home", HOME, 0o700),
        ("work", WORK, 0o755),  # last: it covers the tmpfs it comes from
    ):
        yield OwnFolder(f"{box}/{name}", mode)
        if name == "run":
            yield OwnFolder(f"{box}/run/lock", 0o1777)
        yield Mount(f"{box}/{name}", ROOT + place, None, steps.MS_BIND)
    yield Pivot(ROOT)


def _stacked(*folders: str) -> str:
    """Return the option of an overlay that shows folders above each other, topmost first."""
    return "lowerdir=" + ":".join(folder.replace("\\", "\\\\").replace(":", "\\:") for folder in folders)


def _mask_proc(read_only: Iterable[str]) -> Iterator[Step]:
    """Yield the steps that make parts of /proc read-only and hide others.

    What only root may read needs no mask: a mount for each would be a tenth of what a sandbox costs, and no program is that root,
    whatever it becomes in its own user namespace.
    """
    proc, mask = ROOT + "/proc", ROOT + "/.mask"
    for name in filter(_is_in_proc, read_only):
        yield Mount(f"{proc}/{name}", f"{proc}/{name}", None, steps.MS_BIND)
        yield Restrict(f"{proc}/{name}", steps.MOUNT_ATTR_RDONLY)
    for names, cover in ((PROC_MASKED_FILES, "file"), (PROC_MASKED_FOLDERS, "folder")):
        for name in filter(_is_in_proc, names):
            if os.stat(f"/proc/{name}").st_mode & 0o077:
                yield Mount(f"{mask}/{cover}", f"{proc}/{name}", None, steps.MS_BIND)


def _is_in_proc(name: str) -> bool:
    return os.path.exists(f"/proc/{name}")
