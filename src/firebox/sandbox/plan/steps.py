"""The steps of plans. Each can be encoded for the launcher and described for people.

native/steps.c executes them. Paths are those of the launcher, which sees the host at `mounts.HOST`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple, Protocol

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


class Step(Protocol):
    """One operation. `encoded` raises ValueError for a NUL in a string."""

    def encoded(self, text: Text) -> messages.Step: ...

    def describe(self) -> str: ...


class Mount(NamedTuple):
    """Call mount(2). kind None: a bind mount of `source`."""

    source: str
    target: str
    kind: str | None
    flags: int = 0
    options: str = ""

    def encoded(self, text: Text) -> messages.Step:
        return _step(
            text, Operation.MOUNT, flags=self.flags, source=self.source, target=self.target, kind=self.kind, options=self.options
        )

    def describe(self) -> str:
        return f"mount {self.kind or 'bind'} {self.source} on {self.target} {self.options}".rstrip()


class Restrict(NamedTuple):
    """Set attributes such as read-only on a mount and everything below it."""

    target: str
    attributes: int

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.RESTRICT, flags=self.attributes, target=self.target)

    def describe(self) -> str:
        return f"restrict {self.target} to {self.attributes:#x}"


class Pivot(NamedTuple):
    """Make `root` the root and detach the old one."""

    root: str

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.PIVOT, target=self.root)

    def describe(self) -> str:
        return f"pivot_root into {self.root}"


class OwnFolder(NamedTuple):
    """Create a folder with exactly this mode, owned by the sandbox's user."""

    path: str
    mode: int

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.FOLDER, mode=self.mode, target=self.path)

    def describe(self) -> str:
        return f"make folder {self.path} with mode {self.mode:o} for the sandbox's user"


class Folders(NamedTuple):
    """Create a folder and its missing parents."""

    path: str
    mode: int = 0o755

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.FOLDERS, mode=self.mode, target=self.path)

    def describe(self) -> str:
        return f"make folder {self.path}"


class Link(NamedTuple):
    """Create a symlink, replacing an existing file."""

    content: str
    path: str

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.LINK, source=self.content, target=self.path)

    def describe(self) -> str:
        return f"link {self.path} to {self.content}"


class Node(NamedTuple):
    """Create a character device with mode 666."""

    path: str
    major: int
    minor: int

    def encoded(self, text: Text) -> messages.Step:
        device = os.makedev(self.major, self.minor)
        return _step(text, Operation.NODE, mode=stat.S_IFCHR | 0o666, flags=device, target=self.path)

    def describe(self) -> str:
        return f"make device {self.path} ({self.major}, {self.minor})"


class TextFile(NamedTuple):
    """Write a file, replacing an existing one."""

    path: str
    content: str
    mode: int = 0o644

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.FILE, mode=self.mode, source=self.content, target=self.path)

    def describe(self) -> str:
        return f"write {self.path}"


class Copy(NamedTuple):
    """Copy the world-readable parts of a file, symlink or folder."""

    source: str
    target: str

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.COPY, source=self.source, target=self.target)

    def describe(self) -> str:
        return f"copy {self.source} to {self.target}"


class MountImage(NamedTuple):
    """Mount a squashfs image on a new folder. tree: the relative path of the folder in it that becomes a layer."""

    image: str
    folder: str
    tree: str

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.IMAGE, source=self.image, target=self.folder, kind=self.tree)

    def describe(self) -> str:
        return f"mount image {self.image} on {self.folder}"


class Unmount(NamedTuple):
    """Unmount and remove a folder. Running sandboxes keep their view of it."""

    folder: str

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.UNMOUNT, target=self.folder)

    def describe(self) -> str:
        return f"unmount {self.folder}"


class CgroupWrite(NamedTuple):
    """Write to a file of a cgroup of the sandbox. cgroup: its index."""

    cgroup: int
    name: str
    value: str

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.CGROUP_WRITE, mode=self.cgroup, source=self.value, target=self.name)

    def describe(self) -> str:
        return f"write {self.value} to {self.name} of the cgroup"


class CgroupOpen(NamedTuple):
    """Open a file of a cgroup for the server. flags: of open(2)."""

    cgroup: int
    name: str
    flags: int

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.CGROUP_OPEN, mode=self.cgroup, flags=self.flags, target=self.name)

    def describe(self) -> str:
        return f"open {self.name} of the cgroup"


class CgroupEvent(NamedTuple):
    """Open a descriptor that becomes readable when a cgroup of version 1 runs out of memory.

    meter: index of memory.oom_control among those that were opened.
    """

    cgroup: int
    meter: int

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.CGROUP_EVENT, mode=self.cgroup, flags=self.meter)

    def describe(self) -> str:
        return "ask for events of the cgroup"


class Limit(NamedTuple):
    """Lower a resource limit, soft and hard, to at most the current hard limit. Source: getrlimit(2)."""

    resource: int
    value: int

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.LIMIT, mode=self.resource, flags=self.value)

    def describe(self) -> str:
        return f"limit resource {self.resource} to {self.value}"


class UserLimit(NamedTuple):
    """Lower a per-user limit of the kernel, where /proc/sys is writable. Source: sysctl/user.rst."""

    name: str
    value: int

    def encoded(self, text: Text) -> messages.Step:
        return _step(text, Operation.USER_LIMIT, source=str(self.value), target=f"sys/user/{self.name}")

    def describe(self) -> str:
        return f"limit {self.name} to {self.value}"


def encode(steps: Sequence[Step], text: Text) -> bytes:
    """Encode steps, with their strings in `text`. Raises: ValueError for a NUL in a string."""
    return b"".join(messages.pack(step.encoded(text)) for step in steps)


def _step(
    text: Text,
    operation: Operation,
    *,
    mode: int = 0,
    flags: int = 0,
    source: str = "",
    target: str = "",
    kind: str | None = None,
    options: str = "",
) -> messages.Step:
    strings = (source, target, kind or "", options)
    return messages.Step(operation, mode, flags, *(text.offset_of(each) for each in strings))
