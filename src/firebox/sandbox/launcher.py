"""The process that makes sandboxes: single-threaded, lean, holds the privileges, never reads what a user wrote.

Started by `exec` (never forked from the server) with its end of a SOCK_SEQPACKET link to the server. As root it keeps root;
as an ordinary user it makes itself root of a user namespace first. It pivots into a lean tmpfs that shows the host at
/host, builds one skeleton for each root, and then only forks: each fork becomes PID 1 of a sandbox (see `inside`).

The end of the link is the end of the launcher: PID 1 of every sandbox dies with it, control groups are removed on the way
out or swept by the next launcher.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import select
import signal
import socket
from typing import Any

from firebox.sandbox import cgroups, images, inside, kernel, mounts, spec
from firebox.sandbox.identity import enter_namespaces
from firebox.sandbox.seccomp import compile_filter

_NAMESPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
_REMOVE_AGAIN_MS = 20


class Child:
    """A sandbox as the launcher sees it."""

    __slots__ = ("dead", "leaf", "link", "number", "pid", "pidfd", "released", "specification", "uid")

    def __init__(
        self,
        number: int,
        specification: spec.SandboxSpec,
        pid: int,
        pidfd: int,
        link: socket.socket,
        leaf: cgroups.Leaf,
        uid: int,
    ) -> None:
        self.number = number
        self.specification = specification
        self.pid = pid
        self.pidfd = pidfd
        self.link: socket.socket | None = link
        """Until it is handed over."""
        self.leaf = leaf
        self.uid = uid
        self.dead = False
        self.released = False
        """Whether the server needs its meters no more."""


class Launcher:
    """Answers Make, Kill, End and Forget on the link until it ends."""

    def __init__(self, link: socket.socket, settings: dict[str, Any]) -> None:
        self._link = link
        self._hooks: dict[str, str] = settings["hooks"]
        self._children: dict[int, Child] = {}
        self._by_descriptor: dict[int, Child] = {}
        self._skeletons: dict[tuple[bool, tuple[str, ...], bool], mounts.Skeleton] = {}
        self._roots = itertools.count()
        self._images = images.Images()
        self._leaves_to_remove: list[cgroups.Leaf] = []
        self._poll = select.poll()
        self._privileged = os.geteuid() == 0
        self._uids = enter_namespaces(settings["uid_base"])
        self._many_uids = len(self._uids) > 1
        self._groups, self._group_reasons = cgroups.choose(mounts.HOST)
        sampled = self._groups.kind == "none"
        self._filters = _compiled_filters(counted=not sampled)
        self._oom_score_is_free = _can_lower_oom_score()
        os.makedirs("/roots", exist_ok=True)
        os.mkdir("/new")
        self._overlay = True
        self._own_user_namespace = True
        self._spare: mounts.Skeleton | None = self._new_skeleton(host=True)
        """Made before anybody says what it shows: somebody waits for the first sandbox."""
        self.is_proven = False
        """Whether a sandbox was made; until then a failure is the host's."""

    def prove(self) -> None:
        """Make sandboxes until one succeeds, giving up one optional layer at a time; tell the server how it went.

        Raises: SandboxFailure when a layer without a substitute fails, OSError.
        """
        while True:
            failure = self._try_one()
            if failure is None:
                break
            step = failure["failed"]
            if "overlay" in step and self._overlay:
                self._overlay = False
            elif step.startswith("4") and self._own_user_namespace and self._privileged and self._many_uids:
                self._own_user_namespace = False
            else:
                raise spec.SandboxFailure(step, failure["errno"], failure["detail"], failure["hint"])
        self._tell_proof()

    def _tell_proof(self) -> None:
        self.is_proven = True
        spec.send(self._link, {"proven": self._layers(), "cgroups": self._groups.kind, "reasons": self._group_reasons})

    def serve(self) -> None:
        """Do what the server says until it is gone.

        The first sandbox is as good a proof as one that is thrown away. Where it fails, a plain one tells whether the host is
        the reason. Raises then: SandboxFailure, OSError.
        """
        self._poll.register(self._link, select.POLLIN)
        while True:
            pause_ms = _REMOVE_AGAIN_MS if self._leaves_to_remove else None
            for descriptor, _event in self._poll.poll(pause_ms):
                if descriptor == self._link.fileno():
                    if not self._obey():
                        return
                else:
                    self._attend(descriptor)
            self._leaves_to_remove = [leaf for leaf in self._leaves_to_remove if not leaf.remove()]

    def close(self) -> None:
        """Kill and reap every sandbox, remove their groups."""
        for child in list(self._children.values()):
            _kill(child)
        for child in list(self._children.values()):
            if not child.dead:
                os.waitpid(child.pid, 0)
            self._forget(child)
        for _attempt in range(500):
            self._leaves_to_remove = [leaf for leaf in self._leaves_to_remove if not leaf.remove()]
            if not self._leaves_to_remove:
                break
            select.select([], [], [], 0.002)
        self._groups.close()

    def _obey(self) -> bool:
        """Take one message of the server; False when it is gone."""
        try:
            data, _descriptors = spec.receive(self._link)
        except ConnectionResetError:
            return False
        if not data:
            return False
        message = spec.decode(data)
        if "make" in message:
            number = message["make"]
            specification = spec.spec_from_message(message["spec"])
            try:
                self._make(number, specification)
            except (OSError, spec.SandboxFailure) as error:
                if self.is_proven:
                    self._send_failure(number, error)
                else:
                    self._prove_and_make(number, specification)
        elif "forget" in message:
            self._images.forget(message["forget"])
        elif "kill" in message and message["kill"] in self._children:
            _kill(self._children[message["kill"]])
        elif "end" in message and message["end"] in self._children:
            self._release(self._children[message["end"]])
        return True

    def _send_failure(self, number: int, error: OSError | spec.SandboxFailure) -> None:
        spec.send(self._link, {**_failure(error, "make"), "number": number})

    def _prove_and_make(self, number: int, specification: spec.SandboxSpec) -> None:
        """Make the first sandbox again after a proof, perhaps without a layer that this host refuses.

        Raises: SandboxFailure, OSError when there is no proof.
        """
        self.prove()
        try:
            self._make(number, specification)
        except (OSError, spec.SandboxFailure) as error:
            self._send_failure(number, error)

    def _make(self, number: int, specification: spec.SandboxSpec) -> Child:
        """Begin a sandbox; it says by its link when it is ready. Raises: OSError, SandboxFailure, with nothing left behind."""
        skeleton = self._skeleton(specification)
        layers = self._layers_of(specification)
        if not self._uids:
            raise OSError(errno.EAGAIN, "every uid of this launcher is in use")
        uid = self._uids[0]
        with contextlib.ExitStack() as undo:
            leaf = self._groups.create(f"sandbox-{number}", specification.memory_bytes, specification.processes)
            undo.callback(leaf.remove)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            with theirs:
                making = self._making(skeleton, layers, specification, uid)
                pid = kernel.clone(_NAMESPACES)
                if pid == 0:
                    inside.live(theirs, making)
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
                os.waitpid(pid, 0)
                raise
            undo.pop_all()
        child = Child(number, specification, pid, pidfd, ours, leaf, uid)
        if self._many_uids:
            self._uids.remove(uid)
        self._children[number] = child
        for descriptor in (ours.fileno(), child.pidfd):
            self._by_descriptor[descriptor] = child
            self._poll.register(descriptor, select.POLLIN)
        try:
            leaf.join(pid)
            ours.send(b"g")
        except OSError as error:
            self._throw_away(child)  # without its limits nothing may run
            raise spec.SandboxFailure("control group", error.errno or 0, str(error)) from None
        return child

    def _making(
        self, skeleton: mounts.Skeleton, layers: tuple[str, ...], specification: spec.SandboxSpec, uid: int
    ) -> inside.Making:
        return inside.Making(
            skeleton=skeleton,
            layers=layers,
            root="/new",
            specification=specification,
            uid=uid,
            filters=self._filters,
            overlay=self._overlay,
            own_user_namespace=self._own_user_namespace,
            drop_groups=self._privileged or self._many_uids,
            sampled=self._groups.kind == "none",
            oom_score_is_free=self._oom_score_is_free,
        )

    def _skeleton(self, specification: spec.SandboxSpec) -> mounts.Skeleton:
        key = (specification.host, specification.trees, self._own_user_namespace)
        if key not in self._skeletons:
            spare, self._spare = self._spare if specification.host and self._own_user_namespace else None, None
            skeleton = spare or self._new_skeleton(host=specification.host)
            standard = [*mounts.STANDARD_TREES, *_top_level_folders()] if specification.host else []
            skeleton.show([*standard, *specification.trees])
            self._skeletons[key] = skeleton
        return self._skeletons[key]

    def _new_skeleton(self, *, host: bool) -> mounts.Skeleton:
        return mounts.Skeleton(
            f"/roots/{next(self._roots)}",
            passwd_uid=spec.INSIDE_UID if self._own_user_namespace else self._uids[0],
            make_nodes=self._privileged,
            host=host,
            hooks=self._hooks,
        )

    def _layers_of(self, specification: spec.SandboxSpec) -> tuple[str, ...]:
        """Give the folders of the layers, as we see them. Raises: OSError."""
        if specification.layers and not self._overlay:
            raise OSError(errno.EOPNOTSUPP, "packages need overlays, which this kernel refuses here")
        return tuple(self._images.tree(layer) for layer in specification.layers)

    def _attend(self, descriptor: int) -> None:
        """A sandbox that is being made has spoken, or a sandbox has ended."""
        child = self._by_descriptor.get(descriptor)
        if child is None:
            return
        if descriptor == child.pidfd:
            if os.waitpid(child.pid, os.WNOHANG) == (0, 0):
                return  # the number was another's when poll(2) returned
            child.dead = True
            self._poll.unregister(child.pidfd)
            del self._by_descriptor[child.pidfd]
            if child.link is not None:
                lost = {"failed": "make", "errno": 0, "detail": "the sandbox ended while it was made", "hint": ""}
                self._fail(child, lost)
            elif child.released:
                self._release(child)
        elif child.link is not None:
            message, descriptors = _hear(child)
            if "ready" in message:
                self._hand_over(child, descriptors)
            else:
                self._fail(child, message)

    def _hand_over(self, child: Child, streams: list[int]) -> None:
        """Pass the sandbox to the server: its link, its streams, its meters. We keep the pidfd."""
        link, child.link = child.link, None
        assert link is not None  # noqa: S101 - called once a child, right after its link was read
        if not self.is_proven:
            self._tell_proof()
        self._poll.unregister(link)
        del self._by_descriptor[link.fileno()]
        meters = child.leaf.descriptors()
        message = {"ready": child.number, "pid": child.pid, "meters": list(meters)}
        spec.send(self._link, message, [link.fileno(), *streams, *meters.values()])
        link.close()
        for descriptor in (*streams, *meters.values()):
            os.close(descriptor)

    def _fail(self, child: Child, message: dict[str, Any]) -> None:
        if child.link is not None:
            self._poll.unregister(child.link)
            del self._by_descriptor[child.link.fileno()]
            child.link.close()
            child.link = None
        if self.is_proven:
            spec.send(self._link, {**message, "number": child.number})
            self._release(child)
        else:
            self._throw_away(child)
            self._prove_and_make(child.number, child.specification)

    def _release(self, child: Child) -> None:
        """Remove everything of a sandbox, at once when it is dead, else when it will be."""
        child.released = True
        if not child.dead:
            _kill(child)
            return
        self._forget(child)
        spec.send(self._link, {"ended": child.number})

    def _forget(self, child: Child) -> None:
        for descriptor in (child.pidfd, child.link.fileno() if child.link is not None else -1):
            if self._by_descriptor.pop(descriptor, None) is not None:
                self._poll.unregister(descriptor)
        if child.link is not None:
            child.link.close()
        os.close(child.pidfd)
        del self._children[child.number]
        if self._many_uids:
            self._uids.append(child.uid)
        if not child.leaf.remove():
            self._leaves_to_remove.append(child.leaf)

    def _try_one(self) -> dict[str, Any] | None:
        """Make one sandbox and throw it away; the failure message, or None. Raises: OSError, SandboxFailure."""
        child = self._make(0, spec.SandboxSpec())
        message, descriptors = _hear(child)
        for descriptor in descriptors:
            os.close(descriptor)
        self._throw_away(child)
        return None if "ready" in message else message

    def _throw_away(self, child: Child) -> None:
        """Remove everything of a sandbox that the server knows nothing of, and wait for it."""
        if not child.dead:
            _kill(child)
            os.waitpid(child.pid, 0)
        self._forget(child)

    def _layers(self) -> list[str]:
        """Name the isolation layers that every sandbox of this launcher has, as `firebox doctor` calls them."""
        layers = ["mount", "pid", "network", "ipc", "uts", "capabilities", "no-new-privileges", "seccomp", "rlimits"]
        layers.append("read-only-root")
        if self._own_user_namespace:
            layers.append("user-namespace")
        if self._many_uids:
            layers.append("own-uid")
        if self._overlay:
            layers.append("private-inodes")
        layers.append(f"cgroup-{self._groups.kind}" if self._groups.kind != "none" else "sampled-limits")
        return layers


def _hear(child: Child) -> tuple[dict[str, Any], list[int]]:
    """Receive what a sandbox says when it is made, or has failed; and its streams."""
    assert child.link is not None  # noqa: S101 - it has not been handed over
    try:
        data, descriptors = spec.receive(child.link)
    except ConnectionResetError:
        data, descriptors = b"", []
    message = spec.decode(data) if data else {"failed": "make", "errno": 0, "detail": "no word", "hint": ""}
    return message, descriptors


def _failure(error: OSError | spec.SandboxFailure, usual_step: str) -> dict[str, Any]:
    """Put an error into a message."""
    if isinstance(error, spec.SandboxFailure):
        return {"failed": error.step, "errno": error.errno, "detail": error.detail, "hint": error.hint}
    step, hint = getattr(error, "step", usual_step), getattr(error, "hint", "")
    return {"failed": step, "errno": error.errno or 0, "detail": f"{type(error).__name__}: {error}", "hint": hint}


def _top_level_folders() -> list[str]:
    """Return /bin, /lib ... on a host where they are folders of their own and not links into /usr."""
    return [
        path for path in mounts.USRMERGE_LINKS if os.path.isdir(mounts.HOST + path) and not os.path.islink(mounts.HOST + path)
    ]


def _compiled_filters(*, counted: bool) -> tuple[bytes, bytes]:
    """Compile the filter that asks PID 1 and the one that refuses. Raises: SandboxFailure on a processor without a table."""
    try:
        return compile_filter(ask=True, counted=counted), compile_filter(ask=False, counted=counted)
    except OSError as error:
        raise spec.SandboxFailure("seccomp", detail=str(error), hint="x86-64 and arm64 have one") from None


def _can_lower_oom_score() -> bool:
    """Tell whether a process without capabilities may lower the oom_score_adj that we gave it.

    The kernel keeps what was set with CAP_SYS_RESOURCE in its own user namespace as the least. Source: proc_pid_oom_score_adj(5).
    """
    pid = os.fork()
    if pid == 0:
        try:
            with open(mounts.HOST + "/proc/self/oom_score_adj", "w", encoding="ascii", buffering=1) as score:
                score.write("1000\n")
                kernel.clear_capabilities()
                score.write("999\n")
        except PermissionError:
            os._exit(1)
        except BaseException:  # noqa: BLE001 - the last frame of this process; what cannot be told counts as free
            os._exit(0)
        os._exit(0)
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) != 1


def _kill(child: Child) -> None:
    try:
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return


def main(descriptor: int) -> None:
    """Run as the launcher process. descriptor: its end of the link."""
    gc.disable()  # a collection in a fork would write to, and so copy, every page that holds objects
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; its end of the link ends us
    link = socket.socket(fileno=descriptor)
    link.set_inheritable(False)
    os.umask(0o022)
    launcher: Launcher | None = None
    try:
        data, _descriptors = spec.receive(link, spec.MESSAGE_BYTES)
        if not data:
            return
        if not os.path.exists("/proc/self"):
            raise spec.SandboxFailure("/proc", errno.ENOENT, "it is not mounted", "mount -t proc proc /proc")
        kernel.set_title("firebox-launcher")  # the real command line names folders of the host; sandboxes see it as PID 1's
        settings = spec.decode(data)
        launcher = Launcher(link, settings)
        if settings["prove"]:
            launcher.prove()
        launcher.serve()
    except BrokenPipeError:
        pass  # the server has died, or changed its mind
    except (OSError, spec.SandboxFailure) as error:
        if launcher is not None and launcher.is_proven:
            raise
        spec.send(link, {**_failure(error, "start"), "number": -1})
        with contextlib.suppress(OSError):
            while spec.receive(link, spec.MESSAGE_BYTES)[0]:
                pass  # to end with a message unread would take away what we have just said
    finally:
        if launcher is not None:
            launcher.close()
