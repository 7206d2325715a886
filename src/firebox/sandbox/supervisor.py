"""System calls that PID 1 decides, because what they take must be counted and nobody else counts it.

The kernel stops the caller and sends its arguments here; the answer is an error, or to go on. Only arguments in registers are
looked at: nobody can change them while the caller waits. Source: seccomp_unotify(2).

* `socket(AF_NETLINK, ..., NETLINK_ROUTE)`: the kernel charges what such a socket has received to nobody, so a sandbox gets few.
* Only where no control group counts: what could be filled faster than PID 1 looks.
  * `mmap(MAP_SHARED | MAP_ANONYMOUS)`: pages that are in no page table and in no file system are visible nowhere, so the
    length of the mapping counts from the start.
  * `shmget`, `msgget` and `semget` that make something new: the sizes of all segments stay within the memory limit, and
    queues and sets of semaphores, of which the kernel gives 32,000 each, are few.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct

from firebox.sandbox import kernel, system_v

NETLINK_SOCKETS = 16
"""At most so many at a time in one sandbox, and one more for each thread that asks at the same moment."""

SYSTEM_V_QUEUES = 32
"""The same for message queues, each of which holds about a mebibyte at most, and for sets of semaphores."""
SEMAPHORES_A_SET = 64
"""The kernel gives up to 32,000, which are 2 MB."""

_SHARED_BYTES_BEFORE_START = 64 << 20
_RECEIVE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_GO_ON = 1
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_SYS_socket = 41 if kernel.IS_X86_64 else 198
_SYS_mmap = 9 if kernel.IS_X86_64 else 222
_SYS_shmget = 29 if kernel.IS_X86_64 else 194
_SYS_msgget = 68 if kernel.IS_X86_64 else 186
_SYS_semget = 64 if kernel.IS_X86_64 else 190


class Supervisor:
    """Answers on one listener. shared_limit_bytes: for shared anonymous memory; 0 means none."""

    def __init__(self, listener: int) -> None:
        self.descriptor = listener
        self.shared_limit_bytes = _SHARED_BYTES_BEFORE_START
        self._latest_bytes: dict[int, int] = {}
        """thread -> length of its last mapping, which it may not have made yet."""
        self._older_bytes: list[int] = []
        self._older_sum_bytes = 0

    def shared_bytes(self) -> int:
        """Return the most that shared anonymous mappings can hold."""
        return self._older_sum_bytes + sum(self._latest_bytes.values())

    def forget_unmapped(self) -> None:
        """Keep what can still be there: which mapping has gone is not known, so the largest ones are taken to have stayed."""
        ended = [thread for thread in self._latest_bytes if not os.path.exists(f"/proc/{thread}")]
        self._older_bytes += [self._latest_bytes.pop(thread) for thread in ended]
        alive = _shared_mappings()
        if alive is not None:
            self._older_bytes = sorted(self._older_bytes, reverse=True)[:alive]
        self._older_sum_bytes = sum(self._older_bytes)

    def answer(self) -> None:
        """Answer one call. Raises nothing for a caller that has gone meanwhile."""
        received = bytearray(_RECEIVE.size)
        try:
            fcntl.ioctl(self.descriptor, _NOTIF_RECV, received)
        except (FileNotFoundError, InterruptedError):
            return
        identifier, thread, _flags, number, _architecture, _pointer, *arguments = _RECEIVE.unpack(received)
        if number == _SYS_socket:
            self._reply(identifier, 0 if _netlink_sockets() < NETLINK_SOCKETS else errno.ENOBUFS)
        elif number == _SYS_mmap:
            length = -(-arguments[1] // mmap.PAGESIZE) * mmap.PAGESIZE  # what the kernel maps for it; nothing for 0
            refused = self._refuse_shared(length)
            if self._reply(identifier, refused) and not refused and length:
                if thread in self._latest_bytes:
                    self._older_bytes.append(self._latest_bytes[thread])
                    self._older_sum_bytes += self._latest_bytes[thread]
                self._latest_bytes[thread] = length
        elif number == _SYS_shmget:
            over = 0 < self.shared_limit_bytes < system_v.segments_bytes() + arguments[1]
            self._reply(identifier, errno.ENOMEM if over else 0)
        elif number == _SYS_semget and arguments[1] & 0xFFFFFFFF > SEMAPHORES_A_SET:
            self._reply(identifier, errno.EINVAL)
        elif number in (_SYS_msgget, _SYS_semget):
            made = system_v.queues() if number == _SYS_msgget else system_v.semaphore_sets()
            self._reply(identifier, 0 if made < SYSTEM_V_QUEUES else errno.ENOSPC)
        else:
            self._reply(identifier, errno.ENOSYS)

    def _reply(self, identifier: int, number: int) -> bool:
        """Send an error, or 0 to go on; False when a signal took the caller away, who may ask again."""
        try:
            fcntl.ioctl(self.descriptor, _NOTIF_SEND, _ANSWER.pack(identifier, 0, -number, 0 if number else _GO_ON))
        except (FileNotFoundError, InterruptedError):
            return False
        return True

    def _refuse_shared(self, length: int) -> int:
        """Return ENOMEM when a mapping would pass the limit, else 0."""
        if not self.shared_limit_bytes:
            return 0
        if self.shared_bytes() + length > self.shared_limit_bytes:
            self.forget_unmapped()
        return errno.ENOMEM if self.shared_bytes() + length > self.shared_limit_bytes else 0


def _netlink_sockets() -> int:
    """Count the netlink sockets of programs in our network namespace, whoever holds them; too many where nothing tells."""
    try:
        with open("/proc/net/protocols", "rb") as lines:
            return next(int(line.split()[2]) for line in lines if line.startswith(b"NETLINK "))
    except (OSError, StopIteration):
        return NETLINK_SOCKETS


def _shared_mappings() -> int | None:
    """Count the shared anonymous mappings of all processes but ours, each once; None where one hides its own."""
    inodes: set[bytes] = set()
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or pid == "1":
            continue
        try:
            with open(f"/proc/{pid}/maps", "rb") as lines:
                inodes.update(line.split(maxsplit=5)[4] for line in lines if line.endswith(b"/dev/zero (deleted)\n"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            return None
    return len(inodes)
