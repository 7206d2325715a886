"""The resources that a launcher holds: to compare before and after a test, and to search for once it is gone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from firebox.sandbox.plan.mounts import HOST

CGROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True)
class Holdings:
    """processes: all descendants. groups: cgroups below the launcher's own. mounts and descriptors: the launcher's."""

    processes: frozenset[int]
    groups: frozenset[str]
    mounts: int
    descriptors: int


def holdings_of(pid: int) -> Holdings:
    """Return the resources of the launcher with this pid."""
    try:
        mounts = own_mounts_of(pid)
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:  # a launcher with subordinate uids shows nothing to the ordinary user who started it
        mounts, descriptors = 0, 0
    groups = frozenset(path for top in groups_of(pid) for path in _folders(top) if path != top)
    return Holdings(descendants_of(pid), groups, mounts, descriptors)


def own_mounts_of(pid: int) -> int:
    """Count the mounts that a launcher made, without those of the host. Raises: PermissionError."""
    points = [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return sum(not point.startswith(HOST + "/") for point in points)


def descendants_of(pid: int) -> frozenset[int]:
    """Return every descendant of a process, zombies included."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_bytes().rsplit(b")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return frozenset(found)


def groups_of(pid: int) -> list[str]:
    """Return the folders of a launcher's own cgroups, one for each hierarchy."""
    own = re.compile(rf"firebox-\d+-{pid}-\d+")
    return [path for path in _folders(CGROUPS) if own.fullmatch(os.path.basename(path))]


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; zombies have."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def _folders(top: str) -> list[str]:
    return [folder for folder, _folders, _files in os.walk(top)]
