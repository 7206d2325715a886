"""What a sandbox uses, where no control group counts it: its PID 1 looks every few milliseconds.

Between two looks a program can go over, and what waits in pipes and sockets is not seen at all; the host's own limits hold then.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable

from firebox.sandbox import mounts

_SAMPLES_A_LOOK_AT_DESCRIPTORS = 10


class Sampler:
    """Holds all processes but this one, which is PID 1, against limits; 0 means none.

    used_before_ms: processor time that does not count. exceeded: "memory" or "cpu_time" once a limit is passed.
    """

    def __init__(self, memory_bytes: int, cpu_ms: int, used_before_ms: float) -> None:
        self._memory_bytes = memory_bytes
        self._cpu_ms = cpu_ms
        self._used_before_ms = used_before_ms
        self.memory_peak_bytes = 0
        self.exceeded = ""
        self._samples = 0
        self._memfd_bytes = 0

    def sample(self) -> None:
        """Add up memory and processor time of every process here."""
        anonymous_bytes, mapped_bytes, cpu_ticks = 0, 0, 0
        ticks_a_second = os.sysconf("SC_CLK_TCK")
        pids = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
        for pid in pids:
            try:
                anonymous, shared = _resident_bytes(pid)
                with open(f"/proc/{pid}/stat", "rb") as file:
                    fields = file.read().rsplit(b")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            anonymous_bytes, mapped_bytes = anonymous_bytes + anonymous, mapped_bytes + shared
            cpu_ticks += sum(map(int, fields[11:15]))
        if self._samples % _SAMPLES_A_LOOK_AT_DESCRIPTORS == 0:
            self._memfd_bytes = _memfd_bytes(pids)
        self._samples += 1
        written = os.statvfs(mounts.WORK)
        held_bytes = (written.f_blocks - written.f_bfree) * written.f_frsize + self._memfd_bytes + _system_v_bytes()
        if self._memory_bytes and anonymous_bytes + max(mapped_bytes, held_bytes) > self._memory_bytes:
            # So far a shared page counted once for each sharer.
            shares = list(map(_proportional_bytes, pids))
            anonymous_bytes, mapped_bytes = sum(share[0] for share in shares), sum(share[1] for share in shares)
        # What is held may be mapped as well: the larger sum is the one that is certain.
        memory_bytes = anonymous_bytes + max(mapped_bytes, held_bytes)
        self.memory_peak_bytes = max(self.memory_peak_bytes, memory_bytes)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_ms = cpu_ticks * 1000 / ticks_a_second + (used.ru_utime + used.ru_stime) * 1000 - self._used_before_ms
        if self._memory_bytes and memory_bytes > self._memory_bytes:
            self.exceeded = "memory"
        elif self._cpu_ms and cpu_ms > self._cpu_ms:
            self.exceeded = "cpu_time"


def _resident_bytes(pid: str) -> tuple[int, int]:
    """Return the anonymous and the shared memory that a process has mapped. Source: proc_pid_status(5), RssAnon, RssShmem."""
    with open(f"/proc/{pid}/status", "rb") as file:
        return _kib_of(file, b"RssAnon:"), _kib_of(file, b"RssShmem:")


def _proportional_bytes(pid: str) -> tuple[int, int]:
    """Return the same with each page divided among its sharers; the whole of it where that cannot be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return _kib_of(file, b"Pss_Anon:"), _kib_of(file, b"Pss_Shmem:")
    except PermissionError:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return _resident_bytes(pid)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0, 0


def _kib_of(lines: Iterable[bytes], name: bytes) -> int:
    """Find the next line of that name; a process that is ending has none."""
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), 0)


def _memfd_bytes(pids: Iterable[str]) -> int:
    """Add up the memory of open memfds, each once: they belong to no process and to no file system that could be asked."""
    with open(os.memfd_create("probe", os.MFD_CLOEXEC), "rb") as probe:
        device = os.fstat(probe.fileno()).st_dev
    blocks: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # it ended, or hides its descriptors
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(f"/proc/{pid}/fd/{descriptor}")
                    if status.st_dev == device:
                        blocks[status.st_ino] = status.st_blocks
    return sum(blocks.values()) * 512


def _system_v_bytes() -> int:
    """Add up the segments of this IPC namespace. Source: sysvipc(7), the columns rss and swap."""
    with open("/proc/sysvipc/shm", "rb") as file:
        next(file)
        return sum(sum(map(int, line.split()[14:16])) for line in file)
