"""Who the launcher is and which uids it may give away: root's own block, a subordinate range, or just one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import socket

from firebox.sandbox import kernel, mounts, spec

UIDS_A_LAUNCHER = 512
UID_LOCKS = "/run/firebox-uids.lock"


def enter_namespaces(uid_base: int) -> list[int]:
    """Get a mount namespace with a lean root, and a user namespace when we are not root. Returns uids for sandboxes.

    More than one uid: every concurrent sandbox gets its own. Exactly one: there is no other here.
    """
    uids: list[int]
    if os.geteuid() == 0:
        uids = _own_uids(uid_base)
        kernel.unshare(kernel.CLONE_NEWNS)
    else:
        uids = _become_root_of_user_namespace()
    mounts.lean_root()
    return uids


def _own_uids(uid_base: int) -> list[int]:
    """Reserve a block of uids that no other launcher on this machine uses, as long as this process lives.

    The reservation is a record lock on a file that only root can open: gone with us, however we end, and not ours to lose
    to another user of the machine. Forks do not inherit it. Source: fcntl_locking(2).
    """
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        ranges = [(int(first), int(count)) for first, _outside, count in map(str.split, lines)]
    bases = [*range(uid_base, uid_base + 64 * UIDS_A_LAUNCHER, UIDS_A_LAUNCHER), 60_000, 59_000, 58_000, 57_000]
    try:
        locks = os.open(UID_LOCKS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)  # stays open until we end
    except OSError as error:
        raise spec.SandboxFailure("own uids", error.errno or 0, detail=UID_LOCKS, hint="make /run writable for root") from None
    for base in bases:
        if not any(first <= base and base + UIDS_A_LAUNCHER <= first + count for first, count in ranges):
            continue
        try:
            fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, base)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            continue
        return list(range(base, base + UIDS_A_LAUNCHER))
    raise spec.SandboxFailure("own uids", detail="every block of uids is taken", hint="set uid_base to another range")


def _become_root_of_user_namespace() -> list[int]:
    """Enter a user namespace as its root, with subordinate uids where newuidmap grants them. Returns uids for sandboxes."""
    uid, gid, pid = os.geteuid(), os.getegid(), os.getpid()
    ranges = _subordinate_range("/etc/subuid", uid), _subordinate_range("/etc/subgid", uid)
    parent, child = socket.socketpair()
    helper = os.fork() if all(ranges) else -1
    if helper == 0:
        parent.close()
        child.recv(1)
        os._exit(_map_with_helpers(pid, uid, gid, ranges))
    child.close()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    if helper > 0:
        parent.send(b"g")
        _pid, status = os.waitpid(helper, 0)
        if status == 0:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            return list(range(1, min(UIDS_A_LAUNCHER, ranges[0][1])))
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(line)
    return [0]


def _map_with_helpers(pid: int, uid: int, gid: int, ranges: tuple[tuple[int, int], tuple[int, int]]) -> int:
    """Run newuidmap and newgidmap on `pid`. Returns an exit status. Source: newuidmap(1)."""
    import subprocess  # root's launcher, which needs no helper, starts sooner without

    for tool, own, (first, count) in (("newuidmap", uid, ranges[0]), ("newgidmap", gid, ranges[1])):
        arguments = [tool, str(pid), "0", str(own), "1", "1", str(first), str(count)]
        try:
            if subprocess.run(arguments, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
                return 1
        except FileNotFoundError:
            return 1
    return 0


def _subordinate_range(path: str, uid: int) -> tuple[int, int]:
    """Return (first, count) that `path` grants to this user, (0, 0) when none."""
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
