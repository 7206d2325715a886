"""The kernel as this floor uses it: constants by their kernel names and one wrapper a system call.

Every wrapper raises `OSError` whose text names the call; two causes that users really meet carry a hint. The wrappers exist
because CPython's `os` lacks the calls (or has them only in later versions than 3.11).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
SIGCHLD = 17

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
AT_FDCWD = -100
AT_RECURSIVE = 0x8000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECBITS_ALL_LOCKED = 0b11101111
"""NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE on, KEEP_CAPS off, each with its lock."""

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 0x8

_machine = os.uname().machine
IS_X86_64 = _machine == "x86_64"
SYS_clone = 56 if IS_X86_64 else 220
SYS_pivot_root = 155 if IS_X86_64 else 41
SYS_seccomp = 317 if IS_X86_64 else 277
SYS_mount_setattr = 442
_CAPABILITY_VERSION_3 = 0x20080522

# PyDLL keeps the interpreter lock: the raw clone() below must return in a child whose lock state equals the parent's.
_libc = ctypes.PyDLL(None, use_errno=True)

_NO_USER_NAMESPACE = (
    "start Firebox as root, or allow unprivileged user namespaces: `firebox doctor` names the switch where it finds one; in a "
    "chroot the kernel gives none"
)
_HINTS = {
    ("clone", errno.EPERM): _NO_USER_NAMESPACE,
    ("unshare", errno.EPERM): _NO_USER_NAMESPACE,
    ("mount proc", errno.EPERM): "parts of /proc are hidden (a container?); see `firebox doctor`",
}


class KernelError(OSError):
    """A failed system call. step: the call in words; hint: what a person can do, or ""."""

    def __init__(self, number: int, step: str) -> None:
        super().__init__(number, os.strerror(number), step)
        self.step = step
        self.hint = _HINTS.get((step.split(":", maxsplit=1)[0], number), "")


def _check(returned: int, step: str) -> int:
    if returned < 0:
        raise KernelError(ctypes.get_errno(), step)
    return returned


def clone(flags: int) -> int:
    """Fork into new namespaces. Returns the child's pid, and 0 in the child.

    Only for a single-threaded process: none of CPython's at-fork hooks run, which is what makes it cheap.
    Source: clone(2); a null stack means fork semantics.
    """
    return _check(_libc.syscall(SYS_clone, ctypes.c_ulong(flags | SIGCHLD), 0, 0, 0, 0), "clone")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Attach a file system, or do what the flags say (kind None). Source: the mount man page, section 2."""
    returned = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(options) if options else None,
    )
    _check(returned, f"mount {kind or 'bind'}: {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    _check(_libc.umount2(os.fsencode(target), flags), f"umount: {target}")


def mount_setattr(target: str, attributes: int) -> None:
    """Set MOUNT_ATTR_* on a mount and everything mounted below it.

    Source: mount_setattr(2), Linux 5.12.
    """
    attr = struct.pack("QQQQ", attributes, 0, 0, 0)
    returned = _libc.syscall(SYS_mount_setattr, AT_FDCWD, os.fsencode(target), AT_RECURSIVE, attr, len(attr))
    _check(returned, f"mount_setattr: {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    _check(_libc.syscall(SYS_pivot_root, os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def prctl(option: int, argument: int = 0, argument3: int = 0) -> int:
    zero = ctypes.c_ulong(0)
    return _check(_libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(argument3), zero, zero), f"prctl: {option}")


def set_title(title: str) -> None:
    """Show `title` in ps(1) instead of the command line, for this process and its forks.

    Source: proc_pid_stat(5), "arg_start" and "arg_end"; prctl(2), PR_SET_NAME.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rsplit(b")", 1)[1].split()
    start, length = int(fields[45]), int(fields[46]) - int(fields[45])
    if length > 0:
        ctypes.memmove(start, title.encode().ljust(length, b"\0"), length)
    name = ctypes.create_string_buffer(title.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(name))


def drop_capabilities() -> None:
    """Empty every capability set and lock the securebits, for good.

    Needs CAP_SETPCAP in the present user namespace. Source: capabilities(7), "securebits".
    """
    prctl(PR_SET_SECUREBITS, SECBITS_ALL_LOCKED)
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except KernelError as error:
            if error.errno == errno.EINVAL:  # past the last capability this kernel knows
                break
            raise
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    clear_capabilities()


def clear_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets. Needs no privilege."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def load_seccomp(program: bytes, flags: int = 0) -> int:
    """Load a compiled BPF program as a seccomp filter; needs no_new_privs.

    Returns the descriptor of its listener where the flags ask for one. Source: seccomp(2), `struct sock_fprog`.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    return _check(_libc.syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, fprog), "seccomp")


def raise_loopback() -> None:
    """Bring `lo` up in the present network namespace.

    Source: netdevice(7), SIOCSIFFLAGS with IFF_UP.
    """
    siocsifflags, iff_up = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, siocsifflags, struct.pack("16sh22x", b"lo", iff_up))
