"""The steps of plans. Each can be encoded for the launcher and described for people.

native/steps.c executes them. Paths are those of the launcher, which sees the host at `mounts.HOST`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Operation, Text

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2


class Step(NamedTuple):
    """One operation. Its fields are those of `messages.Step`; the functions below show which ones each operation uses."""

    operation: Operation
    description: str
    mode: int = 0
    flags: int = 0
    source: str = ""
    target: str = ""
    kind: str = ""
    options: str = ""


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> Step:
    """Call mount(2). kind "": a bind mount of `source`."""
    description = f"mount {kind or 'bind'} {source} on {target} {options}".rstrip()
    return Step(Operation.MOUNT, description, flags=flags, source=source, target=target, kind=kind, options=options)


def bind(source: str, target: str, flags: int = 0) -> Step:
    return mount(source, target, flags=MS_BIND | flags)


def restrict(target: str, attributes: int) -> Step:
    """Set attributes such as read-only on a mount and everything below it."""
    return Step(Operation.RESTRICT, f"restrict {target} to {attributes:#x}", flags=attributes, target=target)


def pivot(root: str) -> Step:
    """Make `root` the root and detach the old one."""
    return Step(Operation.PIVOT, f"pivot_root into {root}", target=root)


def own_folder(path: str, mode: int) -> Step:
    """Create a folder with exactly this mode, owned by the sandbox's user."""
    description = f"make folder {path} with mode {mode:o} for the sandbox's user"
    return Step(Operation.FOLDER, description, mode=mode, target=path)


def folders(path: str, mode: int = 0o755) -> Step:
    """Create a folder and its missing parents."""
    return Step(Operation.FOLDERS, f"make folder {path}", mode=mode, target=path)


def link(content: str, path: str) -> Step:
    """Create a symlink, replacing an existing file."""
    return Step(Operation.LINK, f"link {path} to {content}", source=content, target=path)


def node(path: str, major: int, minor: int) -> Step:
    """Create a character device with mode 666."""
    description = f"make device {path} ({major}, {minor})"
    return Step(Operation.NODE, description, mode=stat.S_IFCHR | 0o666, flags=os.makedev(major, minor), target=path)


def text_file(path: str, content: str, mode: int = 0o644) -> Step:
    """Write a file, replacing an existing one."""
    return Step(Operation.FILE, f"write {path}", mode=mode, source=content, target=path)


def copy(source: str, target: str) -> Step:
    """Copy the world-readable parts of a file, symlink or folder."""
    return Step(Operation.COPY, f"copy {source} to {target}", source=source, target=target)


def mount_image(image: str, folder: str, tree: str) -> Step:
    """Mount a squashfs image on a new folder. tree: the relative path of the folder in it that becomes a layer."""
    return Step(Operation.IMAGE, f"mount image {image} on {folder}", source=image, target=folder, kind=tree)


def unmount(folder: str) -> Step:
    """Unmount and remove a folder. Running sandboxes keep their view of it."""
    return Step(Operation.UNMOUNT, f"unmount {folder}", target=folder)


def cgroup_write(cgroup: int, name: str, value: str) -> Step:
    """Write to a file of a cgroup of the sandbox. cgroup: its index."""
    return Step(Operation.CGROUP_WRITE, f"write {value} to {name} of the cgroup", mode=cgroup, source=value, target=name)


def cgroup_open(cgroup: int, name: str, flags: int) -> Step:
    """Open a file of a cgroup for the server. flags: of open(2)."""
    return Step(Operation.CGROUP_OPEN, f"open {name} of the cgroup", mode=cgroup, flags=flags, target=name)


def cgroup_event(cgroup: int, meter: int) -> Step:
    """Open a descriptor that is readable once a cgroup of version 1 runs out of memory. meter: index of memory.oom_control."""
    return Step(Operation.CGROUP_EVENT, "ask for events of the cgroup", mode=cgroup, flags=meter)


def limit(resource: int, value: int) -> Step:
    """Lower a resource limit, soft and hard, to at most the current hard limit. Source: getrlimit(2)."""
    return Step(Operation.LIMIT, f"limit resource {resource} to {value}", mode=resource, flags=value)


def user_limit(name: str, value: int) -> Step:
    """Lower a per-user limit of the kernel, where /proc/sys is writable. Source: sysctl/user.rst."""
    return Step(Operation.USER_LIMIT, f"limit {name} to {value}", source=str(value), target=f"sys/user/{name}")


def encode(steps: Sequence[Step], text: Text) -> bytes:
    """Encode steps, with their strings in `text`. Raises: ValueError for a NUL in a string."""
    offset_of = text.offset_of
    return b"".join(
        messages.pack(messages.Step(operation, mode, flags, *map(offset_of, strings)))
        for operation, _description, mode, flags, *strings in steps
    )
