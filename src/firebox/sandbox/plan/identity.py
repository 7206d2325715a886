"""The identity of a launcher and the uids for its sandboxes: a block of root's, a subordinate range, or a single uid."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import struct
from typing import NamedTuple

from firebox.sandbox.spec import SandboxFailure

UIDS_A_LAUNCHER = 512
UID_LOCKS = "/run/firebox-uids.lock"

_F_OFD_SETLK = 37
_FLOCK = struct.Struct("hhqqi4x")
"""`struct flock`: type, whence, start, length, pid."""
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD
"""The inode of /proc/self/ns/user in the initial user namespace: PROC_USER_INIT_INO."""
_CAP_SYS_RESOURCE = 24


class Identity(NamedTuple):
    """uid_first, uid_count: the uids for sandboxes. is_root: whether the launcher is root.

    uid_map, gid_map: the command lines of newuidmap and newgidmap for an unprivileged launcher; empty without subordinate ids.
    lock: a descriptor that reserves the uids while the launcher holds it open, or -1.
    """

    uid_first: int
    uid_count: int
    is_root: bool
    uid_map: tuple[str, ...] = ()
    gid_map: tuple[str, ...] = ()
    lock: int = -1


def choose_identity(*, uid_base: int, pid: int, run_as: tuple[int, int] | None = None) -> Identity:
    """Choose the identity of the launcher with this pid. run_as: (uid, gid) of another user. Raises: SandboxFailure, OSError."""
    uid, gid = run_as or (os.geteuid(), os.getegid())
    if uid == 0:
        return _own_uids(uid_base)
    import shutil  # not needed for root

    ranges = _subordinate_range("/etc/subuid", uid), _subordinate_range("/etc/subgid", uid)
    maps: list[tuple[str, ...]] = []
    for tool, own, (first, count) in (("newuidmap", uid, ranges[0]), ("newgidmap", gid, ranges[1])):
        path = shutil.which(tool, path="/usr/local/bin:/usr/bin:/bin")
        if path is not None and count:
            maps.append((path, str(pid), "0", str(own), "1", "1", str(first), str(count)))
    if len(maps) < 2:
        return Identity(0, 1, is_root=False)
    return Identity(1, min(UIDS_A_LAUNCHER, ranges[0][1]), is_root=False, uid_map=maps[0], gid_map=maps[1])


def can_programs_lower_oom_score(*, run_as: tuple[int, int] | None) -> bool:
    """Check whether a program without capabilities may lower the oom_score_adj that PID 1 gave it.

    A value that was set with CAP_SYS_RESOURCE in the initial user namespace is the minimum. Returns True when that is unknown.
    Source: proc_pid_oom_score_adj(5).
    """
    if run_as is not None:
        return True
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
        is_initial = os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER_NAMESPACE
    except (OSError, StopIteration, ValueError):
        return True
    return not (is_initial and effective >> _CAP_SYS_RESOURCE & 1)


def _own_uids(uid_base: int) -> Identity:
    """Reserve a block of uids that no other launcher on this machine uses.

    The reservation is a lock on a file that only root can open. It belongs to the open file, so it is released with the launcher,
    however that ends. Source: fcntl(2), "Open file description locks".
    """
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        ranges = [(int(first), int(count)) for first, _outside, count in map(str.split, lines)]
    bases = [*range(uid_base, uid_base + 64 * UIDS_A_LAUNCHER, UIDS_A_LAUNCHER), 60_000, 59_000, 58_000, 57_000]
    try:
        lock = os.open(UID_LOCKS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SandboxFailure("own uids", error.errno or 0, detail=UID_LOCKS, hint="make /run writable for root") from None
    for base in bases:
        if any(first <= base and base + UIDS_A_LAUNCHER <= first + count for first, count in ranges) and _reserve(lock, base):
            return Identity(base, UIDS_A_LAUNCHER, is_root=True, lock=lock)
    os.close(lock)
    raise SandboxFailure("own uids", detail="every block of uids is taken", hint="set uid_base to another range")


def _reserve(lock: int, byte: int) -> bool:
    """Lock one byte of a file. Returns False when it is locked already."""
    try:
        fcntl.fcntl(lock, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True


def _subordinate_range(path: str, uid: int) -> tuple[int, int]:
    """Return the (first, count) that `path` grants to a user, (0, 0) for none."""
    names = {str(uid)}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                name, _, rest = line.strip().partition(":")
                first, _, count = rest.partition(":")
                if name in names and count.isdigit():
                    return int(first), int(count)
    except FileNotFoundError:
        pass
    return 0, 0
