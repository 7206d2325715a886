"""cgroups, version 2, version 1 or none, behind one face.

A launcher owns one group (`firebox-<pid namespace>-<pid>-<start time>`) with one leaf a sandbox; the name tells a later
server whether the launcher is still alive, so that what a killed one left is swept. The launcher makes and removes leaves; their
limits are changed and their meters read through descriptors: no privilege and no path is needed for that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from firebox.sandbox.plan.steps import CgroupEvent, CgroupOpen, CgroupWrite, Step

SUPERVISOR = "firebox-supervisor"
"""Where the processes of a delegated group move: version 2 allows processes only in leaves."""

_PREFIX = "firebox-"
_PROCESSES_OF_OURS = 1  # PID 1 of each sandbox lives in its leaf
_REMOVE_ATTEMPTS = 200
_REMOVE_PAUSE_S = 0.005
_V1_UNLIMITED = (1 << 63) - 4096
_MEMORY, _PROCESSES = "MEMORY", "PROCESSES"
"""Stand for the limits of a leaf."""
_MEMORY_EVENT = "memory.event"
_V1_TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"
"""Version 1 counts the buffers of TCP apart from everything else, and only where a limit is set."""


class Cgroups(NamedTuple):
    """The groups of one launcher, and what is to be done with each leaf below them.

    kind: "v2", "v1" or "none". folders: one a hierarchy; other fields refer to them by index. writes: (group, file, text), where
    the text may be one of `_MEMORY` and `_PROCESSES`. meters: (group, file, flags of open(2)) of what a `Meter` needs.
    """

    kind: str
    folders: tuple[str, ...] = ()
    writes: tuple[tuple[int, str, str], ...] = ()
    meters: tuple[tuple[int, str, int], ...] = ()

    @property
    def meter_names(self) -> tuple[str, ...]:
        """The names of a leaf's descriptors, in the order in which they come."""
        names = tuple(name for _group, name, _flags in self.meters)
        return (*names, _MEMORY_EVENT) if self.kind == "v1" else names

    def steps(self, memory_bytes: int, processes: int) -> list[Step]:
        """Return the steps that limit a new leaf and open its meters. 0 bytes means no limit."""
        values = {_PROCESSES: str(processes + _PROCESSES_OF_OURS), _MEMORY: str(memory_bytes)}
        if not memory_bytes:
            values[_MEMORY] = "max" if self.kind == "v2" else str(_V1_UNLIMITED)
        steps: list[Step] = [CgroupWrite(group, name, values.get(text, text)) for group, name, text in self.writes]
        steps += [CgroupOpen(*meter) for meter in self.meters]
        if self.kind == "v1":
            steps.append(CgroupEvent(0, self.meter_names.index("memory.oom_control")))
        return steps


def choose(pid: int) -> tuple[Cgroups, list[str]]:
    """Make the groups of the launcher that is process `pid`, of the best version that works here.

    Returns them with the reasons why better versions do not work.
    """
    reasons: list[str] = []
    for version, kind in ((_version_2, "v2"), (_version_1, "v1")):
        try:
            return version(pid), reasons
        except OSError as error:
            reasons.append(f"{kind}: {error}")
    return Cgroups("none"), reasons


def _version_2(pid: int) -> Cgroups:
    """Use the unified hierarchy, at its root when we are root, else the subtree delegated to us.

    Raises: OSError when there is none with the memory and pids controllers that we may divide.
    Source: Linux admin-guide/cgroup-v2.rst, "Delegation", "No Internal Process Constraint".
    """
    mounts = [point for kind, _options, point, _root in _mounts() if kind == "cgroup2"]
    if not mounts:
        raise FileNotFoundError(errno.ENOENT, "no cgroup2 file system is mounted")
    top = mounts[0]
    own = _own_paths().get("", "/")
    if own.endswith("/" + SUPERVISOR):
        own = own.removesuffix("/" + SUPERVISOR) or "/"
    places = [top] if os.geteuid() == 0 and not _is_delegated(top + own) else []
    places.append(top + own.rstrip("/"))
    if os.geteuid() == 0 and top not in places:
        places.append(top)
    failure = OSError(errno.EACCES, "no group that may be divided")
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
        (0, "memory.oom.group", "1"),  # the limit is the tree's: who reaches it ends as a whole
        (0, "pids.max", _PROCESSES),
    )
    meters = _meters(0, ("memory.peak", "memory.current", "memory.events", "cpu.stat"), ("memory.max", "pids.max"))
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
    """Use one hierarchy a controller; root only.

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
        inside = own.get(controller, "/").removeprefix(root.rstrip("/")) if root != "/" else own.get(controller, "/")
        place = point + inside.rstrip("/")
        if not os.path.isdir(place):
            place = point
        folders.append(_make_cgroup(place, pid))
        _sweep(place)
    # The first group that has such a limit makes the kernel patch itself: ours, so that no sandbox has to wait for it.
    _write_if_there(f"{folders[0]}/{_V1_TCP_LIMIT}", str(_V1_UNLIMITED))
    counts_swap = os.path.exists(f"{folders[0]}/memory.memsw.limit_in_bytes")
    writes = (
        (0, "memory.limit_in_bytes", _MEMORY),
        # Where swap is not accounted it is not used.
        (0, "memory.memsw.limit_in_bytes", _MEMORY) if counts_swap else (0, "memory.swappiness", "0"),
        (0, _V1_TCP_LIMIT, _MEMORY),
        (1, "pids.max", _PROCESSES),
    )
    meters = (
        *_meters(
            0,
            ("memory.max_usage_in_bytes", "memory.oom_control"),
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", _V1_TCP_LIMIT),
        ),
        *_meters(2, ("cpuacct.usage",), ()),
        *_meters(1, (), ("pids.max",)),
    )
    return _as_far_as_there("v1", tuple(folders), writes, meters)


def _make_cgroup(place: str, pid: int) -> str:
    """Make the group of a launcher below `place`. Returns its path."""
    path = f"{place}/{_PREFIX}{_identity(pid)}"
    os.makedirs(path, exist_ok=True)
    return path


def _meters(group: int, readable: tuple[str, ...], writable: tuple[str, ...]) -> tuple[tuple[int, str, int], ...]:
    return (*((group, name, os.O_RDONLY) for name in readable), *((group, name, os.O_WRONLY) for name in writable))


def _as_far_as_there(
    kind: str, folders: tuple[str, ...], writes: tuple[tuple[int, str, str], ...], meters: tuple[tuple[int, str, int], ...]
) -> Cgroups:
    """Leave out the files that this kernel does not have: a leaf has the same as the group above it."""
    return Cgroups(
        kind,
        folders,
        tuple(write for write in writes if os.path.exists(f"{folders[write[0]]}/{write[1]}")),
        tuple(meter for meter in meters if os.path.exists(f"{folders[meter[0]]}/{meter[1]}")),
    )


class Meter:
    """Reads a leaf and changes its limits through its descriptors. Owns them: call `close`."""

    def __init__(self, descriptors: Mapping[str, int], memory_bytes: int = 0, processes: int = 0) -> None:
        """descriptors: by name of the file. memory_bytes, processes: the limits of the leaf."""
        self._descriptors = dict(descriptors)
        self._limits = memory_bytes, processes
        self._peak_bytes = 0

    def __bool__(self) -> bool:
        """False when there is no group behind it."""
        return bool(self._descriptors)

    def cpu_ms(self) -> float:
        if "cpuacct.usage" in self._descriptors:
            return int(self._read("cpuacct.usage")) / 1e6
        return self._count("cpu.stat", b"usage_usec ") / 1e3

    def memory_peak_bytes(self) -> int:
        """Return the highest use so far; on kernels before 5.19 the highest that was seen by a call of this."""
        for name in ("memory.peak", "memory.max_usage_in_bytes", "memory.current"):
            if name in self._descriptors:
                self._peak_bytes = max(self._peak_bytes, int(self._read(name)))
                break
        return self._peak_bytes

    def memory_event(self) -> int:
        """Return a descriptor that is readable once the limit is reached, or -1 where the kernel then ends the tree itself."""
        return self._descriptors.get("memory.event", -1)

    def memory_kills(self) -> int:
        """Count the processes that the kernel killed for reaching the memory limit."""
        name = "memory.events" if "memory.events" in self._descriptors else "memory.oom_control"
        return self._count(name, b"oom_kill ")

    def limit(self, memory_bytes: int, processes: int) -> None:
        """Change the limits. Raises: OSError; nothing may be started then."""
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
        # Memory and swap together may never be below memory alone: whichever way the limit moves, one order works.
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
        """Return the number after a key, which ends with a blank, in a file of such lines; 0 when there is none."""
        if name in self._descriptors:
            for line in self._read(name).splitlines():
                if line.startswith(key):
                    return int(line[len(key) :])
        return 0


def _identity(pid: int) -> str:
    """Return a name for a process that no later process has."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rsplit(b")", 1)[1].split()
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(errno.ESRCH, "dead, only not reaped yet")
    start_time = fields[19].decode()
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{namespace}-{pid}-{start_time}"


def _sweep(place: str) -> None:
    """Remove the groups below `place` whose launcher is dead, with every process in them."""
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
    """Remove the group of a launcher with every process in it, as far as it is ours to remove; others may sweep it as well."""
    for leaf in _leaves(path):
        for pid in _processes(leaf):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for _attempt in range(_REMOVE_ATTEMPTS):  # what was killed needs a moment to be gone
            if _remove(leaf) or not os.access(leaf, os.W_OK):
                break
            time.sleep(_REMOVE_PAUSE_S)
    _remove(path)


def _leaves(path: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(path) if entry.is_dir()]
    except FileNotFoundError:
        return []


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
    """Tell whether systemd handed this group to its service (`Delegate=yes`). Source: systemd.resource-control(5)."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _mounts() -> Iterator[tuple[str, str, str, str]]:
    """Yield (file system, its options, mount point, root of the mount) of every mount."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            kind, _source, options = after.split()[:3]
            yield kind, options, before.split()[4], before.split()[3]


def _own_paths() -> dict[str, str]:
    """Return the path of our group by controller; version 2 has the name ""."""
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


def _write_if_there(path: str, text: str) -> bool:
    try:
        _write(path, text)
    except FileNotFoundError:
        return False
    return True
