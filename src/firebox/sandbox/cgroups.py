"""Control groups, version 2, version 1 or none, behind one face.

The launcher owns one group (`firebox-<pid namespace>-<pid>-<start time>`) with one leaf a sandbox; the name tells a later
launcher whether the owner is still alive, so that what a killed one left is swept. Leaves are metered and their limits
changed through descriptors opened here and passed to the server: no privilege and no path is needed there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

SUPERVISOR = "firebox-supervisor"
"""Where the processes of a delegated group move: version 2 allows processes only in leaves."""

_PREFIX = "firebox-"
_PROCESSES_OF_OURS = 1  # PID 1 of each sandbox lives in its leaf
_REMOVE_ATTEMPTS = 200
_REMOVE_PAUSE_S = 0.005
_V1_UNLIMITED = (1 << 63) - 4096
_V1_TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"
"""Version 1 counts the buffers of TCP apart from everything else, and only where a limit is set."""


class Leaf(Protocol):
    """The group of one sandbox."""

    def join(self, pid: int) -> None: ...

    def descriptors(self) -> dict[str, int]:
        """Open what a `Meter` needs, by file name; the caller closes them."""
        ...

    def remove(self) -> bool:
        """Remove the group; False while the kernel still holds processes of it."""
        ...


class Cgroups(Protocol):
    """A place for leaves."""

    kind: str
    """ "v2", "v1" or "none"."""

    def create(self, name: str, memory_bytes: int, processes: int) -> Leaf: ...

    def close(self) -> None:
        """Remove the launcher's own group."""
        ...


def choose(host: str = "") -> tuple[Cgroups, list[str]]:
    """Take the best version that works here, with the reasons why better ones do not. host: where the host's root is."""
    reasons: list[str] = []
    for version in (Version2, Version1):
        try:
            return version(host), reasons
        except OSError as error:
            reasons.append(f"{version.kind}: {error}")
    return NoCgroups(), reasons


class NoCgroups:
    """No groups here: PID 1 of each sandbox samples memory and processor time instead."""

    kind = "none"

    def create(self, name: str, memory_bytes: int, processes: int) -> NoLeaf:  # noqa: ARG002 - the face of all three
        return NoLeaf()

    def close(self) -> None:
        return


class NoLeaf:
    """Nothing to join and nothing to meter."""

    def join(self, pid: int) -> None:  # noqa: ARG002 - the face of all three
        return

    def descriptors(self) -> dict[str, int]:
        return {}

    def remove(self) -> bool:
        return True


class Version2:
    """The unified hierarchy, at its root when we are root, else in the subtree delegated to us.

    Raises: OSError when there is none with the memory and pids controllers that we may divide.
    Source: Linux admin-guide/cgroup-v2.rst, "Delegation", "No Internal Process Constraint".
    """

    kind = "v2"

    def __init__(self, host: str = "") -> None:
        mounts = [(point, root) for kind, _options, point, root in _mounts(host) if kind == "cgroup2"]
        if not mounts:
            raise FileNotFoundError(errno.ENOENT, "no cgroup2 file system is mounted")
        top = host + mounts[0][0] if not mounts[0][0].startswith(host) else mounts[0][0]
        own = _own_paths(host).get("", "/")
        if own.endswith("/" + SUPERVISOR):
            own = own.removesuffix("/" + SUPERVISOR) or "/"
        places = [top] if os.geteuid() == 0 and not _is_delegated(top + own) else []
        places.append(top + own.rstrip("/"))
        if os.geteuid() == 0 and top not in places:
            places.append(top)
        failure = OSError(errno.EACCES, "no group that may be divided")
        for place in places:
            try:
                self._divide(place)
                self._group = _Group(place)
                break
            except OSError as error:
                failure = error
        else:
            raise failure
        self._divide(self._group.path)
        _sweep(place)

    def _divide(self, path: str) -> None:
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

    def create(self, name: str, memory_bytes: int, processes: int) -> Version2Leaf:
        return Version2Leaf(f"{self._group.path}/{name}", memory_bytes, processes)

    def close(self) -> None:
        self._group.remove()


class Version2Leaf:
    """One sandbox's group in the unified hierarchy."""

    def __init__(self, path: str, memory_bytes: int, processes: int) -> None:
        self._path = path
        os.mkdir(path)
        _write(f"{path}/memory.max", str(memory_bytes or "max"))
        _write_if_there(f"{path}/memory.swap.max", "0")
        _write_if_there(f"{path}/memory.oom.group", "1")  # the limit is the tree's: who reaches it ends as a whole
        _write(f"{path}/pids.max", str(processes + _PROCESSES_OF_OURS))

    def join(self, pid: int) -> None:
        _write(f"{self._path}/cgroup.procs", str(pid))

    def descriptors(self) -> dict[str, int]:
        read_only = ("memory.peak", "memory.current", "memory.events", "cpu.stat")
        return _open_all(self._path, read_only, ("memory.max", "pids.max"))

    def remove(self) -> bool:
        return _remove(self._path)


class Version1:
    """One hierarchy a controller; root only.

    Raises: OSError when memory or pids is not mounted or not writable.
    Source: Linux admin-guide/cgroup-v1/memory.rst, pids.rst, cpuacct.rst.
    """

    kind = "v1"

    def __init__(self, host: str = "") -> None:
        own = _own_paths(host)
        self._groups: dict[str, _Group] = {}
        for controller in ("memory", "pids", "cpuacct"):
            mounts = [
                (point, root)
                for kind, options, point, root in _mounts(host)
                if kind == "cgroup" and controller in options.split(",")
            ]
            if not mounts:
                raise FileNotFoundError(errno.ENOENT, f"the version 1 controller {controller} is not mounted")
            point, root = mounts[0]
            inside = own.get(controller, "/").removeprefix(root.rstrip("/")) if root != "/" else own.get(controller, "/")
            place = (host + point if not point.startswith(host) else point) + inside.rstrip("/")
            if not os.path.isdir(place):
                place = host + point if not point.startswith(host) else point
            self._groups[controller] = _Group(place)
            _sweep(place)
        # The first group that has such a limit makes the kernel patch itself: ours, so that no sandbox has to wait for it.
        _write_if_there(f"{self._groups['memory'].path}/{_V1_TCP_LIMIT}", str(_V1_UNLIMITED))

    def create(self, name: str, memory_bytes: int, processes: int) -> Version1Leaf:
        paths = {controller: f"{group.path}/{name}" for controller, group in self._groups.items()}
        return Version1Leaf(paths, memory_bytes, processes)

    def close(self) -> None:
        for group in self._groups.values():
            group.remove()


class Version1Leaf:
    """One sandbox's group in each hierarchy."""

    def __init__(self, paths: Mapping[str, str], memory_bytes: int, processes: int) -> None:
        self._paths = paths
        for path in paths.values():
            os.mkdir(path)
        if memory_bytes:
            _write(f"{paths['memory']}/memory.limit_in_bytes", str(memory_bytes))
            if not _write_if_there(f"{paths['memory']}/memory.memsw.limit_in_bytes", str(memory_bytes)):
                _write(f"{paths['memory']}/memory.swappiness", "0")  # swap is not accounted here: do not use it
        _write(f"{paths['pids']}/pids.max", str(processes + _PROCESSES_OF_OURS))

    def join(self, pid: int) -> None:
        for path in self._paths.values():
            _write(f"{path}/cgroup.procs", str(pid))

    def descriptors(self) -> dict[str, int]:
        memory_files = ("memory.max_usage_in_bytes", "memory.oom_control", "memory.failcnt")
        limits = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", _V1_TCP_LIMIT)
        opened = _open_all(self._paths["memory"], memory_files, limits)
        opened |= _open_all(self._paths["cpuacct"], ("cpuacct.usage",), ())
        opened["memory.event"] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        _write(f"{self._paths['memory']}/cgroup.event_control", f"{opened['memory.event']} {opened['memory.oom_control']}")
        return opened | _open_all(self._paths["pids"], (), ("pids.max",))

    def remove(self) -> bool:
        removed = [_remove(path) for path in self._paths.values()]
        return all(removed)


class Meter:
    """Reads a leaf and changes its limits through its descriptors. Owns them: call `close`."""

    def __init__(self, descriptors: Mapping[str, int]) -> None:
        self._descriptors = dict(descriptors)
        self._peak_bytes = 0

    def __bool__(self) -> bool:
        """False when there is no group behind it."""
        return bool(self._descriptors)

    def cpu_ms(self) -> float:
        if "cpuacct.usage" in self._descriptors:
            return int(self._read("cpuacct.usage")) / 1e6
        return int(self._fields("cpu.stat").get("usage_usec", 0)) / 1e3

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
        return int(self._fields(name).get("oom_kill", 0))

    def limit(self, memory_bytes: int, processes: int) -> None:
        """Change the limits. Raises: OSError; nothing may be started then."""
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

    def _fields(self, name: str) -> dict[str, bytes]:
        if name not in self._descriptors:
            return {}
        lines = (line.split() for line in self._read(name).splitlines())
        return {words[0].decode(): words[1] for words in lines if len(words) == 2}


class _Group:
    """The launcher's own group below `place`."""

    def __init__(self, place: str) -> None:
        self.path = f"{place}/{_PREFIX}{_identity(os.getpid())}"
        os.mkdir(self.path)

    def remove(self) -> None:
        remove_tree(self.path)


def _identity(pid: int, proc: str = "/proc") -> str:
    """Return a name for a process that no later process has. proc: where a procfs of our own PID namespace is."""
    if not os.path.exists(f"{proc}/self"):
        proc = "/host/proc"
    with open(f"{proc}/{pid}/stat", "rb") as file:
        fields = file.read().rsplit(b")", 1)[1].split()
    if fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(errno.ESRCH, "dead, only not reaped yet")
    start_time = fields[19].decode()
    namespace = os.stat(f"{proc}/self/ns/pid").st_ino
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


def _mounts(host: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (file system, its options, mount point, root of the mount) of every mount."""
    with open(f"{host}/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            kind, _source, options = after.split()[:3]
            yield kind, options, before.split()[4], before.split()[3]


def _own_paths(host: str) -> dict[str, str]:
    """Return the path of our group by controller; version 2 has the name ""."""
    paths: dict[str, str] = {}
    for line in _read(f"{host}/proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def _open_all(folder: str, readable: tuple[str, ...], writable: tuple[str, ...]) -> dict[str, int]:
    opened: dict[str, int] = {}
    for names, flags in ((readable, os.O_RDONLY), (writable, os.O_WRONLY)):
        for name in names:
            try:
                opened[name] = os.open(f"{folder}/{name}", flags | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # not in this kernel
    return opened


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
