"""The plan of a sandbox's file tree.

The launcher has pivoted into a tmpfs and sees the host at `HOST`. The root of a sandbox is built in that tmpfs. Each sandbox sees
host folders through its own overlay: the page cache is shared, the inodes are not, so that file locks, leases and watches do not
connect two sandboxes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from firebox.sandbox.plan import steps
from firebox.sandbox.plan.steps import Step

HOST = "/host"
"""The host's root, as the launcher sees it."""

ROOT = "/new"
"""The folder where the launcher's children build the root of a sandbox."""

EMPTY = "/empty"
"""An empty folder in the launcher's root: an overlay without an upper layer needs two lower ones."""

WORK = "/box"
"""The working directory of every program, with the job's files."""

HOME = "/home/firebox"

STANDARD_TREES = ("/usr",)

COVERED = ("/box", "/dev", "/etc", HOME, "/proc", "/run", "/sys", "/tmp", "/var/tmp")
"""Paths that a sandbox has of its own: they hide what the host has there."""

MOVED = "/.host"
"""The folder in a sandbox that shows host trees below one of these paths."""

USRMERGE_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

DEVICE_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}

PROC_READ_ONLY = ("sys", "bus", "fs", "irq")
PROC_MASKED_FILES = (
    "kcore", "keys", "key-users", "kmsg", "kallsyms", "timer_list", "latency_stats", "sched_debug", "sysrq-trigger",
    "kpagecount", "kpageflags", "kpagecgroup", "slabinfo", "vmallocinfo", "mtrr", "partitions", "diskstats", "swaps",
    "locks",  # the OFD locks of the whole machine: two programs could communicate through it
    "cmdline",  # the kernel's command line, which may contain credentials
)  # fmt: skip
PROC_MASKED_FOLDERS = ("acpi", "scsi", "asound", "driver", "tty", "dynamic_debug", "pressure")

_PTY_OPTIONS = "newinstance,ptmxmode=0666,mode=0620,max=64"
"""Terminals have one limit for the whole machine (kernel.pty.max): one sandbox must not use them up."""


def shown_at(path: str) -> str:
    """Return the path in a sandbox of a path in a host tree: the same, unless it is covered there."""
    return MOVED + path if any(f"{path}/".startswith(f"{covered}/") for covered in COVERED) else path


def shown_trees(trees: Iterable[str]) -> tuple[str, ...]:
    """Return the host folders to show: those that exist, and the mounts below them: an overlay shows a single file system."""
    existing = dict.fromkeys(tree for tree in trees if os.path.isdir(tree))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        mounted = {re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines}
    shown: list[str] = []
    for tree in existing:
        if not any(tree.startswith(other + "/") for other in existing):
            shown += [tree, *sorted(path for path in mounted if path.startswith(tree + "/") and os.path.isdir(path))]
    return tuple(shown)


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
    """Yield the steps that build a sandbox's tree in the empty folder `ROOT` and pivot into it.

    skeleton: its folder. trees: host folders to mount over it. layers: folders below the skeleton, topmost first, as paths of the
    launcher. nodes_are_real: the skeleton has device nodes; otherwise they are bound from the host's /dev. overlay: False where
    the kernel refuses overlays: trees share the host's inodes, still read-only, and layers are impossible. writable_proc: False
    makes all of /proc read-only, including /proc/self. counted: False without a memory cgroup. A shared mapping of /dev/zero is
    then uncounted memory, so /dev/full takes its place, which reads the same and cannot be mapped.
    """
    shown = steps.MS_RDONLY | steps.MS_NOSUID
    if overlay:
        # Device nodes in layers must not work; ours are in a mount of their own.
        yield steps.mount("firebox", ROOT, "overlay", shown | steps.MS_NODEV, _stacked(skeleton, *layers, EMPTY))
        yield steps.mount("firebox", ROOT + "/dev", "overlay", shown, _stacked(skeleton + "/dev", EMPTY))
        for tree in trees:
            yield steps.mount("firebox", ROOT + shown_at(tree), "overlay", shown | steps.MS_NODEV, _stacked(HOST + tree, EMPTY))
    else:
        yield steps.bind(skeleton, ROOT)
        for tree in trees:
            yield steps.bind(HOST + tree, ROOT + shown_at(tree), steps.MS_REC)
        yield steps.restrict(ROOT, steps.MOUNT_ATTR_RDONLY | steps.MOUNT_ATTR_NOSUID)
    if not nodes_are_real:
        for name in DEVICE_NODES:
            yield steps.bind(f"{HOST}/dev/{name}", f"{ROOT}/dev/{name}")
    if not counted:
        yield steps.bind(f"{HOST}/dev/full", f"{ROOT}/dev/zero")

    yield steps.mount("proc", ROOT + "/proc", "proc", steps.MS_NOSUID | steps.MS_NODEV | steps.MS_NOEXEC)
    yield from _mask_proc(PROC_READ_ONLY if writable_proc else ())
    if not writable_proc:
        yield steps.restrict(ROOT + "/proc", steps.MOUNT_ATTR_RDONLY)

    yield steps.mount("devpts", ROOT + "/dev/pts", "devpts", steps.MS_NOSUID | steps.MS_NOEXEC, _PTY_OPTIONS)
    options = f"mode=755,size={writable_bytes},nr_inodes={writable_inodes}"
    box = ROOT + WORK
    yield steps.mount("firebox", box, "tmpfs", steps.MS_NOSUID | steps.MS_NODEV, options)
    for name, place, mode in (
        ("tmp", "/tmp", 0o1777),
        ("shm", "/dev/shm", 0o1777),
        ("run", "/run", 0o1777),
        ("home", HOME, 0o700),
        ("work", WORK, 0o755),  # last: it covers the tmpfs it comes from
    ):
        yield steps.own_folder(f"{box}/{name}", mode)
        if name == "run":
            yield steps.own_folder(f"{box}/run/lock", 0o1777)
        yield steps.bind(f"{box}/{name}", ROOT + place)
    yield steps.pivot(ROOT)


def _stacked(*folders: str) -> str:
    """Return the mount option of an overlay of folders, topmost first."""
    return "lowerdir=" + ":".join(folder.replace("\\", "\\\\").replace(":", "\\:") for folder in folders)


def _mask_proc(read_only: Iterable[str]) -> Iterator[Step]:
    """Yield the steps that make parts of /proc read-only and hide others.

    Files that only root can read need no mask: no program is that root, whatever it becomes in its own user namespace. A mount
    for each would add a tenth to the cost of a sandbox.
    """
    proc, mask = ROOT + "/proc", ROOT + "/.mask"
    for name in filter(_is_in_proc, read_only):
        yield steps.bind(f"{proc}/{name}", f"{proc}/{name}")
        yield steps.restrict(f"{proc}/{name}", steps.MOUNT_ATTR_RDONLY)
    for names, cover in ((PROC_MASKED_FILES, "file"), (PROC_MASKED_FOLDERS, "folder")):
        for name in filter(_is_in_proc, names):
            if os.stat(f"/proc/{name}").st_mode & 0o077:
                yield steps.bind(f"{mask}/{cover}", f"{proc}/{name}")


def _is_in_proc(name: str) -> bool:
    return os.path.exists(f"/proc/{name}")
