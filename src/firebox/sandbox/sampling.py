"""What a sandbox uses, where no control group counts it: its PID 1 looks every few milliseconds.

Between two looks a program can go over. What the kernel does not show is counted as the most that it can be: a pipe or a socket
as full, a shared anonymous mapping as touched (see `supervisor`). Calls that would make more of it invisible are refused by the
filter for the case.
"""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import time
from collections.abc import Callable, Iterable

from firebox.sandbox import mounts, system_v
from firebox.sandbox.supervisor import Supervisor

_PIPE_BYTES = 64 << 10
"""What a pipe holds; the filter keeps programs from making one larger."""
_LOCAL_SOCKET_BYTES = 256 << 10
"""What waits in a Unix socket, about: net.core.wmem_default and what the kernel adds."""
_INTERNET_SOCKET_BYTES = 4 << 10
"""An internet socket itself; the kernel tells what waits in it, without its own share, which is about as much."""
_LOOKING_SHARE = 0.2
"""How much of the time goes into looking at descriptors: at a few in every sample, at thousands as often as that allows."""


class Sampler:
    """Holds all processes but this one, which is PID 1, against limits; 0 means none.

    used_before_ms: processor time that does not count. supervisor: who knows of shared anonymous mappings; None where there are
    none. exceeded: "memory" or "cpu_time" once a limit is passed.
    """

    def __init__(
        self,
        memory_bytes: int,
        cpu_ms: int,
        used_before_ms: float,
        supervisor: Supervisor | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._cpu_ms = cpu_ms
        self._used_before_ms = used_before_ms
        self.memory_peak_bytes = 0
        self.exceeded = ""
        self._supervisor = supervisor
        self._now = now
        self._look_again_at = 0.0
        self._waiting_bytes = 0

    def sample(self) -> None:
        """Add up memory and processor time of every process here."""
        anonymous_bytes, mapped_bytes, hidden_bytes, cpu_ticks = 0, 0, 0, 0
        ticks_a_second = os.sysconf("SC_CLK_TCK")
        pids = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
        for pid in pids:
            try:
                anonymous, shared, hidden = _resident_bytes(pid)
                with open(f"/proc/{pid}/stat", "rb") as file:
                    fields = file.read().rsplit(b")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            anonymous_bytes, mapped_bytes = anonymous_bytes + anonymous, mapped_bytes + shared
            hidden_bytes += hidden
            cpu_ticks += sum(map(int, fields[11:15]))
        began = self._now()
        if began >= self._look_again_at:
            self._waiting_bytes = _pipe_bytes(pids) + _internet_socket_bytes()
            ended = self._now()
            self._look_again_at = ended + (ended - began) * (1 / _LOOKING_SHARE - 1)
        kernel_bytes = hidden_bytes + self._waiting_bytes + _local_socket_bytes() + system_v.kernel_bytes()
        held_bytes = self._held_bytes()
        if self._memory_bytes and kernel_bytes + anonymous_bytes + max(mapped_bytes, held_bytes) > self._memory_bytes:
            # So far a shared page counted once for each sharer, and a mapping that has gone as if it were there.
            shares = list(map(_proportional_bytes, pids))
            anonymous_bytes, mapped_bytes = sum(share[0] for share in shares), sum(share[1] for share in shares)
            if self._supervisor is not None:
                self._supervisor.forget_unmapped()
                held_bytes = self._held_bytes()
        # What is held may be mapped as well: the larger sum is the one that is certain.
        memory_bytes = kernel_bytes + anonymous_bytes + max(mapped_bytes, held_bytes)
        self.memory_peak_bytes = max(self.memory_peak_bytes, memory_bytes)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_ms = cpu_ticks * 1000 / ticks_a_second + (used.ru_utime + used.ru_stime) * 1000 - self._used_before_ms
        if self._memory_bytes and memory_bytes > self._memory_bytes:
            self.exceeded = "memory"
        elif self._cpu_ms and cpu_ms > self._cpu_ms:
            self.exceeded = "cpu_time"

    def _held_bytes(self) -> int:
        """Add up the memory that belongs to no process: files, System V segments, shared anonymous mappings."""
        written = os.statvfs(mounts.WORK)
        shared_bytes = self._supervisor.shared_bytes() if self._supervisor is not None else 0
        return (written.f_blocks - written.f_bfree) * written.f_frsize + system_v.resident_bytes() + shared_bytes


def _resident_bytes(pid: str) -> tuple[int, int, int]:
    """Return the anonymous and the shared memory that a process has mapped, and its page tables with what lies in swap.

    Source: proc_pid_status(5), RssAnon, RssShmem, VmPTE, VmSwap.
    """
    with open(f"/proc/{pid}/status", "rb") as file:
        return _kib_of(file, b"RssAnon:"), _kib_of(file, b"RssShmem:"), _kib_of(file, b"VmPTE:") + _kib_of(file, b"VmSwap:")


def _proportional_bytes(pid: str) -> tuple[int, int]:
    """Return the same with each page divided among its sharers; the whole of it where that cannot be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return _kib_of(file, b"Pss_Anon:"), _kib_of(file, b"Pss_Shmem:")
    except PermissionError:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return _resident_bytes(pid)[:2]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0, 0


def _kib_of(lines: Iterable[bytes], name: bytes) -> int:
    """Find the next line of that name; a process that is ending has none."""
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), 0)


def _pipe_bytes(pids: Iterable[str]) -> int:
    """Return the most that waits in the pipes of all processes, each once; of who hides its descriptors all may be pipes."""
    pipes: set[tuple[int, int]] = set()
    hidden = 0
    for pid in pids:
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except PermissionError:
            if _has_memory(pid):
                hidden += resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            continue
        except OSError:  # it ended
            continue
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{pid}/fd/{descriptor}")
                if stat.S_ISFIFO(status.st_mode):
                    pipes.add((status.st_dev, status.st_ino))
    return (len(pipes) + hidden) * _PIPE_BYTES


def _has_memory(pid: str) -> bool:
    """Tell a process that hides its descriptors, as one does whose program cannot be read, from one that is ending."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return any(line.startswith(b"VmRSS:") for line in file)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _local_socket_bytes() -> int:
    """Return about the most that waits in Unix and netlink sockets of this network namespace, on their way to a process too."""
    with open("/proc/net/protocols", "rb") as lines:
        sockets = sum(int(line.split()[2]) for line in lines if line.startswith((b"UNIX", b"NETLINK")))
    return sockets * _LOCAL_SOCKET_BYTES


def _internet_socket_bytes() -> int:
    """Return about the most that waits in TCP and UDP sockets of this network namespace."""
    waiting = 0
    for name in ("tcp", "tcp6", "udp", "udp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{name}", "rb") as lines:
            next(lines)
            for line in lines:
                sent, _, received = line.split()[4].partition(b":")
                waiting += _INTERNET_SOCKET_BYTES + 2 * (int(sent, 16) + int(received, 16))
    return waiting
