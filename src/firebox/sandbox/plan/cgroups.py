"""cgroups of version 2, version 1 or none, with one interface.

A launcher owns one cgroup (`firebox-<pid namespace>-<pid>-<start time>`) with one leaf for each sandbox. The name identifies the
launcher, so that a later server can remove the cgroups of dead ones. The launcher creates and removes leaves. The server changes
limits and reads meters through file descriptors, which needs neither privileges nor paths.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from firebox.sandbox.plan import steps
from firebox.sandbox.plan.steps import Step

SUPERVISOR = "firebox-supervisor"
"""The leaf that the processes of a delegated cgroup move to: version 2 allows processes only in leaves."""

_PREFIX = "firebox-"
_PROCESSES_OF_OURS = 1  # PID 1 of each sandbox is in its leaf
_REMOVE_ATTEMPTS = 200
_REMOVE_PAUSE_S = 0.005
_V1_UNLIMITED = (1 << 63) - 4096
_MEMORY, _PROCESSES = "MEMORY", "PROCESSES"
"""Placeholders for the limits of a leaf."""
_MEMORY_EVENT = "memory.event"
_V1_TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"
"""Version 1 counts TCP buffers separately, and only where a limit is set."""


class Cgroups(NamedTuple):
    """The cgroups of one launcher, and how to set up leaves in them.

    kind: "v2", "v1" or "none". folders: one for each hierarchy; other fields refer to them by index. writes: (index, file, text),
    where the text may be `_MEMORY` or `_PROCESSES`. meters: (index, file, flags of open(2)) of what a `Meter` needs.
    """

    kind: str
    folders: tuple[str, ...] = ()
    writes: tuple[tuple[int, str, str], ...] = ()
    meters: tuple[tuple[int, str, int], ...] = ()

    @property
    def meter_names(self) -> tuple[str, ...]:
        """The names of a leaf's descriptors, in order."""
        names = tuple(name for _group, name, _flags in self.meters)
        return (*names, _MEMORY_EVENT) if self.kind == "v1" else names

    def steps(self, memory_bytes: int, processes: int) -> list[Step]:
        """Return the steps that limit a new leaf and open its meters. memory_bytes: 0 means unlimited."""
        values = {_PROCESSES: str(processes + _PROCESSES_OF_OURS), _MEMORY: str(memory_bytes)}
        if not memory_bytes:
            values[_MEMORY] = "max" if self.kind == "v2" else str(_V1_UNLIMITED)
        planned = [steps.cgroup_write(group, name, values.get(text, text)) for group, name, text in self.writes]
        planned += [steps.cgroup_open(*meter) for meter in self.meters]
        if self.kind == "v1":
            planned.append(steps.cgroup_event(0, self.meter_names.index("memory.oom_control")))
        return planned


def choose(pid: int) -> tuple[Cgroups, list[str]]:
    """Create the cgroups of the launcher with this pid. Returns the best that work here, and why better versions do not."""
    reasons: list[str] = []
    for version, kind in ((_version_2, "v2"), (_version_1, "v1")):
        try:
            return version(pid), reasons
        except OSError as error:
            reasons.append(f"{kind}: {error}")
    return Cgroups("none"), reasons


def _version_2(pid: int) -> Cgroups:
    """Use the unified hierarchy: its root for root, otherwise the subtree delegated to us.

    Raises: OSError when no cgroup with the memory and pids controllers is ours to divide.
    Source: Linux admin-guide/cgroup-v2.rst, "Delegation", "No Internal Process Constraint".
    """
    mounts = [point for kind, _options, point, _root in _mounts() if kind == "cgroup2"]
    if not mounts:
        raise FileNotFoundError(errno.ENOENT, "no cgroup2 file system is mounted")
    top = mounts[0]
    own = top + _own_paths().get("", "/").removesuffix("/" + SUPERVISOR).rstrip("/")
    places = [own]
    if os.geteuid() == 0:
        places = [own, top] if _is_delegated(own) else [top, own]
    failure = OSError(errno.EACCES, "no cgroup that may be divided")
    for place in places:
        try:
            _divide(place)
            folder = _make_cgroup(place, pid)
            break
        except OSError as error:
            failure = error
    else:
        raise failure
    _divide(folder)
    _sweep(place)
    writes = (
        (0, "memory.max", _MEMORY),
        (0, "memory.swap.max", "0"),
        (0, "memory.oom.group", "1"),  # the limit is for the whole tree, so the whole tree is killed
        (0, "pids.max", _PROCESSES),
    )
    meters = ((0, "memory.peak"), (0, "memory.current"), (0, "memory.events"), (0, "cpu.stat"))
    return _as_far_as_there("v2", (folder,), writes, meters)


def _divide(path: str) -> None:
    available = _read(f"{path}/cgroup.controllers").split()
    for controller in ("memory", "pids"):
        if controller not in available:
            raise OSError(errno.ENOTSUP, f"the {controller} controller is not delegated", path)
    wanted = " ".join(f"+{name}" for name in ("memory", "pids", "cpu") if name in available)
    try:
        _write(f"{path}/cgroup.subtree_control", wanted)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        supervisor = f"{path}/{SUPERVISOR}"
        os.makedirs(supervisor, exist_ok=True)
        for pid in _read(f"{path}/cgroup.procs").split():
            try:
                _write(f"{supervisor}/cgroup.procs", pid)
            except ProcessLookupError:
                continue  # it ended meanwhile
        _write(f"{path}/cgroup.subtree_control", wanted)


def _version_1(pid: int) -> Cgroups:
    """Use one hierarchy for each controller; root only.

    Raises: OSError when memory or pids is not mounted or not writable.
    Source: Linux admin-guide/cgroup-v1/memory.rst, pids.rst, cpuacct.rst.
    """
    own = _own_paths()
    folders: list[str] = []
    for controller in ("memory", "pids", "cpuacct"):
        mounts = [
            (point, root) for kind, options, point, root in _mounts() if kind == "cgroup" and controller in options.split(",")
        ]
        if not mounts:
            raise FileNotFoundError(errno.ENOENT, f"the version 1 controller {controller} is not mounted")
        point, root = mounts[0]
        inside = own.get(controller, "/").removeprefix(root.rstrip("/"))
        place = point + inside.rstrip("/")
        if not os.path.isdir(place):
            place = point
        folders.append(_make_cgroup(place, pid))
        _sweep(place)
    # The first cgroup with such a limit makes the kernel patch its own code. Do it here, so that no sandbox waits for it.
    with contextlib.suppress(FileNotFoundError):
        _write(f"{folders[0]}/{_V1_TCP_LIMIT}", str(_V1_UNLIMITED))
    counts_swap = os.path.exists(f"{folders[0]}/memory.memsw.limit_in_bytes")
    writes = (
        (0, "memory.limit_in_bytes", _MEMORY),
        # Without swap accounting swap is disabled.
        (0, "memory.memsw.limit_in_bytes", _MEMORY) if counts_swap else (0, "memory.swappiness", "0"),
        (0, _V1_TCP_LIMIT, _MEMORY),
        (1, "pids.max", _PROCESSES),
    )
    meters = ((0, "memory.max_usage_in_bytes"), (0, "memory.oom_control"), (2, "cpuacct.usage"))
    return _as_far_as_there("v1", tuple(folders), writes, meters)


def _make_cgroup(place: str, pid: int) -> str:
    """Create the cgroup of a launcher below `place`. Returns its path."""
    path = f"{place}/{_PREFIX}{_identity(pid)}"
    os.makedirs(path, exist_ok=True)
    return path


def _as_far_as_there(
    kind: str, folders: tuple[str, ...], writes: Sequence[tuple[int, str, str]], meters: Sequence[tuple[int, str]]
) -> Cgroups:
    """Drop files that this kernel does not have: a leaf has the same files as its parent. meters: those to read."""
    writes = tuple(write for write in writes if os.path.exists(f"{folders[write[0]]}/{write[1]}"))
    readable = [(group, name, os.O_RDONLY) for group, name in meters if os.path.exists(f"{folders[group]}/{name}")]
    limits = [(group, name, os.O_WRONLY) for group, name, text in writes if text in (_MEMORY, _PROCESSES)]
    return Cgroups(kind, folders, writes, (*readable, *limits))


class Meter:
    """Reads the meters of a leaf and changes its limits. Owns the descriptors: call `close`."""

    def __init__(self, descriptors: Mapping[str, int], memory_bytes: int = 0, processes: int = 0) -> None:
        """descriptors: by file name. memory_bytes, processes: the current limits of the leaf."""
        self._descriptors = dict(descriptors)
        self._limits = memory_bytes, processes
        self._peak_bytes = 0

    def __bool__(self) -> bool:
        """Return False without a cgroup."""
        return bool(self._descriptors)

    def cpu_ms(self) -> float:
        if "cpuacct.usage" in self._descriptors:
            return int(self._read("cpuacct.usage")) / 1e6
        return self._count("cpu.stat", b"usage_usec ") / 1e3

    def memory_peak_bytes(self) -> int:
        """Return the peak use so far; before Linux 5.19 the peak of the calls of this method."""
        for name in ("memory.peak", "memory.max_usage_in_bytes", "memory.current"):
            if name in self._descriptors:
                self._peak_bytes = max(self._peak_bytes, int(self._read(name)))
                break
        return self._peak_bytes

    def memory_event(self) -> int:
        """Return a descriptor that is readable once the limit is reached; -1 where the kernel kills the tree itself."""
        return self._descriptors.get("memory.event", -1)

    def memory_kills(self) -> int:
        """Return the number of processes that the kernel killed at the memory limit."""
        name = "memory.events" if "memory.events" in self._descriptors else "memory.oom_control"
        return self._count(name, b"oom_kill ")

    def limit(self, memory_bytes: int, processes: int) -> None:
        """Change the limits. Raises: OSError; then nothing may be started."""
        if self._limits == (memory_bytes, processes):
            return
        self._limits = memory_bytes, processes
        self._write("pids.max", str(processes + _PROCESSES_OF_OURS))
        if "memory.max" in self._descriptors:
            self._write("memory.max", str(memory_bytes or "max"))
            return
        value = str(memory_bytes or _V1_UNLIMITED)
        if _V1_TCP_LIMIT in self._descriptors:
            self._write(_V1_TCP_LIMIT, value)
        # Memory plus swap must never be below memory alone. One of the two orders works in each direction.
        names = [name for name in ("memory.memsw.limit_in_bytes", "memory.limit_in_bytes") if name in self._descriptors]
        try:
            for name in names:
                self._write(name, value)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            for name in reversed(names):
                self._write(name, value)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _read(self, name: str) -> bytes:
        return os.pread(self._descriptors[name], 4096, 0)

    def _write(self, name: str, text: str) -> None:
        os.pwrite(self._descriptors[name], text.encode(), 0)

    def _count(self, name: str, key: bytes) -> int:
        """Return the number after a key in a file of "key number" lines; 0 without one. key: with its blank."""
        if name in self._descriptors:
            for line in self._read(name).splitlines():
                if line.startswith(key):
                    return int(line[len(key) :])
        return 0


def _identity(pid: int) -> str:
    """Return a name for a process that no later process gets."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rsplit(b")", 1)[1].split()
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(errno.ESRCH, "dead, only not reaped yet")
    start_time = fields[19].decode()
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{namespace}-{pid}-{start_time}"


def _sweep(place: str) -> None:
    """Remove the cgroups of dead launchers below `place`, and kill every process in them."""
    own_namespace = _identity(os.getpid()).split("-")[0]
    for name in os.listdir(place):
        parts = name.removeprefix(_PREFIX).split("-")
        if not name.startswith(_PREFIX) or len(parts) != 3 or parts[0] != own_namespace:
            continue
        try:
            alive = _identity(int(parts[1])) == "-".join(parts)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            alive = False
        if not alive:
            remove_tree(f"{place}/{name}")


def remove_tree(path: str) -> None:
    """Remove the cgroup of a launcher with all its processes, as far as permitted. Another server may do so concurrently."""
    leaves: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        leaves = [entry.path for entry in os.scandir(path) if entry.is_dir()]
    for leaf in leaves:
        for pid in _processes(leaf):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for _attempt in range(_REMOVE_ATTEMPTS):  # killed processes need a moment to be gone
            if _remove(leaf) or not os.access(leaf, os.W_OK):
                break
            time.sleep(_REMOVE_PAUSE_S)
    _remove(path)


def _processes(leaf: str) -> list[int]:
    try:
        return [int(pid) for pid in _read(f"{leaf}/cgroup.procs").split()]
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        return []  # removed meanwhile


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _is_delegated(path: str) -> bool:
    """Return whether systemd delegated this cgroup (`Delegate=yes`). Source: systemd.resource-control(5)."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def _mounts() -> Iterator[tuple[str, str, str, str]]:
    """Yield (file system type, options, mount point, root of the mount) of every mount."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            kind, _source, options = after.split()[:3]
            yield kind, options, before.split()[4], before.split()[3]


def _own_paths() -> dict[str, str]:
    """Return the path of our cgroup by controller; the key of version 2 is ""."""
    paths: dict[str, str] = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
