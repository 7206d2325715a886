"""What a launcher is told: its settings, what it prepares once, and how each sandbox is made.

This is the policy; native/ carries it out. A plan is data, computed once for each specification, and can be printed in words.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from firebox.sandbox.plan import cgroups, identity, mounts
from firebox.sandbox.plan.seccomp import compile_filter
from firebox.sandbox.plan.skeleton import Skeleton
from firebox.sandbox.plan.steps import Limit, Mount, MountImage, Step, Unmount, UserLimit, encode
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Kind, MakeFlag, Phase, Text
from firebox.sandbox.spec import INSIDE_UID, SandboxFailure, SandboxSpec

HARD_LIMITS = {
    resource.RLIMIT_CORE: 1,  # 0 would not keep the kernel from starting the host's crash handler, 1 does: core(5), coredump.c
    resource.RLIMIT_MEMLOCK: 64 << 20,
    resource.RLIMIT_MSGQUEUE: 819_200,
    resource.RLIMIT_SIGPENDING: 4096,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
}

USER_LIMITS = {"max_inotify_instances": 16, "max_inotify_watches": 8192}
"""The host's user who started a rootless launcher has one count for everything: one sandbox must not take all of it."""

IMAGE_TREE = "root"
"""The folder of an image that is stacked; what lies beside it is about the package."""

_STACK_BYTES = 512 << 20
_PLANS_KEPT = 64

_PHASES: dict[int, str] = {
    Phase.GROUP: "1 control group",
    Phase.NAMESPACES: "2 mounts, control group, host name and loopback of its own",
    Phase.TREE: "3",
    Phase.OWN_USER: "4 become the sandbox's own user",
    Phase.LIMITS: "5 limits",
    Phase.CAPABILITIES: "6 drop every capability, for good",
    Phase.FILTER: "7 system call filter",
}
_NO_USER_NAMESPACE = (
    "start Firebox as root, or allow unprivileged user namespaces: `firebox doctor` names the switch where it finds one; in a "
    "chroot the kernel gives none"
)
_CHROOT = "before you enter it: `mount --bind DIR DIR`, and `mount -t proc proc DIR/proc`; or `systemd-nspawn -D DIR`"
_HIDDEN_PROC = "parts of /proc are hidden (a container?); see `firebox doctor`"


class Plan(NamedTuple):
    """How a sandbox is made, in the order in which it happens."""

    group: tuple[Step, ...]
    tree: tuple[Step, ...]
    limits: tuple[Step, ...]

    def describe(self) -> Iterator[str]:
        """Yield each step in words."""
        yield _PHASES[Phase.GROUP]
        yield from (f"  {step.describe()}" for step in self.group)
        yield _PHASES[Phase.NAMESPACES]
        yield "3 file tree"
        yield from (f"  {step.describe()}" for step in self.tree)
        yield _PHASES[Phase.OWN_USER]
        yield _PHASES[Phase.LIMITS]
        yield from (f"  {step.describe()}" for step in self.limits)
        yield _PHASES[Phase.CAPABILITIES]
        yield _PHASES[Phase.FILTER]


class Preparation(NamedTuple):
    """Something that the launcher does itself before sandboxes can be made. number: of its Prepare message."""

    number: int
    steps: tuple[Step, ...]

    def message(self) -> bytes:
        text = Text()
        steps = encode(self.steps, text)
        head = messages.Prepare(Kind.PREPARE, self.number, len(self.steps), text.bytes)
        return messages.pack(head) + steps + text.encoded()


class Plans:
    """The plans for one launcher, which is process `pid`.

    overlay, own_user_namespace: layers that are given up where this host refuses them. many_uids: known once the launcher has
    answered. Raises, when made: SandboxFailure, OSError.
    """

    def __init__(self, pid: int, *, uid_base: int, hooks: Mapping[str, str], run_as: tuple[int, int] | None = None) -> None:
        if not os.path.exists("/proc/self"):
            raise SandboxFailure("/proc", errno.ENOENT, "it is not mounted", "mount -t proc proc /proc")
        self._hooks = dict(hooks)
        self._identity = identity.choose_identity(uid_base=uid_base, pid=pid, run_as=run_as)
        # Another user could not enter groups of ours.
        self.groups, self.group_reasons = cgroups.choose(pid) if run_as is None else (cgroups.Groups("none"), [])
        self._oom_score_is_free = identity.can_programs_lower_oom_score(run_as=run_as)
        self.overlay = True
        self.own_user_namespace = True
        self.many_uids = self._identity.uid_count > 1
        self._skeletons: dict[tuple[bool, tuple[str, ...]], tuple[Skeleton, Preparation]] = {}
        self._images: dict[str, tuple[str, Preparation]] = {}
        self._next_number = 1
        self._plans: dict[SandboxSpec, Plan] = {}
        self._messages: dict[SandboxSpec, bytes] = {}

    def configuration(self) -> tuple[bytes, tuple[int, ...]]:
        """Return the Configure message and its descriptors; `forget_lock` closes them once they have been sent."""
        chosen = self._identity
        text = Text((*chosen.uid_map, *chosen.gid_map, *self.groups.folders))
        programs = compile_filter(ask=True, counted=self._counted), compile_filter(ask=False, counted=self._counted)
        head = messages.Configure(
            kind=Kind.CONFIGURE,
            version=messages.VERSION,
            flags=messages.ConfigureFlag.INTO_GROUP if self.groups.kind == "v2" else 0,
            uid_first=chosen.uid_first,
            uid_count=chosen.uid_count,
            groups=len(self.groups.folders),
            padding=0,
            uid_map_words=len(chosen.uid_map),
            gid_map_words=len(chosen.gid_map),
            text_bytes=text.bytes,
            filter_bytes=len(programs[0]),
            fallback_bytes=len(programs[1]),
        )
        message = b"".join((messages.pack(head), text.encoded(), *programs))
        return message, (chosen.lock,) if chosen.lock >= 0 else ()

    def forget_lock(self) -> None:
        """Close what reserves the uids: the launcher has it now."""
        if self._identity.lock >= 0:
            os.close(self._identity.lock)
            self._identity = self._identity._replace(lock=-1)

    def forget_groups(self) -> None:
        """Remove the groups of a launcher that has ended without doing so; where sandboxes are still dying the next one does."""
        for folder in self.groups.folders:
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def prepare(self, specification: SandboxSpec) -> list[Preparation]:
        """Return what has to be prepared before the first sandbox of this kind, or of one with a part in common."""
        missing: list[Preparation] = []
        for layer in specification.layers:
            if layer not in self._images and not os.path.isdir(layer):
                number = self._number()
                folder = f"/images/{number}"
                self._images[layer] = folder, Preparation(number, (MountImage(mounts.HOST + layer, folder, IMAGE_TREE),))
                missing.append(self._images[layer][1])
        key = (specification.host, specification.trees)
        if key not in self._skeletons:
            number = self._number()
            skeleton = Skeleton(
                f"/roots/{number}",
                specification.trees,
                passwd_uid=INSIDE_UID if self.own_user_namespace else self._identity.uid_first,
                nodes_are_real=self._identity.is_root,
                host=specification.host,
                hooks=self._hooks,
            )
            self._skeletons[key] = skeleton, Preparation(number, tuple(skeleton.steps()))
            missing.append(self._skeletons[key][1])
        return missing

    def needed(self, specification: SandboxSpec) -> Iterator[int]:
        """Yield the numbers of what has to be prepared for a sandbox, or is already."""
        yield self._skeletons[specification.host, specification.trees][1].number
        for layer in specification.layers:
            if layer in self._images:
                yield self._images[layer][1].number

    def make(self, number: int, specification: SandboxSpec) -> bytes:
        """Return the Make message for a sandbox; what `prepare` returned has been sent. Raises: SandboxFailure."""
        message = self._messages.get(specification)
        if message is None:
            if len(self._messages) >= _PLANS_KEPT:
                self._forget_plans()
            message = self._messages[specification] = self._encoded(specification)
        return message[:4] + number.to_bytes(4, "little") + message[8:]

    def plan(self, specification: SandboxSpec) -> Plan:
        """Return how a sandbox is made. Raises: SandboxFailure."""
        if specification.layers and not self.overlay:
            raise SandboxFailure("layers", errno.EOPNOTSUPP, "packages need overlays, which this kernel refuses here")
        plan = self._plans.get(specification)
        if plan is None:
            skeleton, _preparation = self._skeletons[specification.host, specification.trees]
            tree = mounts.plan(
                skeleton.path,
                skeleton.trees,
                [self._layer(layer) for layer in specification.layers],
                nodes_are_real=self._identity.is_root,
                writable_bytes=specification.writable_bytes,
                writable_inodes=specification.writable_inodes,
                overlay=self.overlay,
                writable_proc=not self._oom_score_is_free,
                counted=self._counted,
            )
            user_limits = USER_LIMITS if self.own_user_namespace else {}
            limits: list[Step] = [UserLimit(*each) for each in user_limits.items()]
            limits += [Limit(*each) for each in HARD_LIMITS.items()]
            group = self.groups.steps(specification.memory_bytes, specification.processes)
            plan = self._plans[specification] = Plan(tuple(group), tuple(tree), tuple(limits))
        return plan

    def forget_layer(self, layer: str) -> bytes | None:
        """Return a message that lets go of an image, or None where it is not in use."""
        folder, _preparation = self._images.pop(layer, ("", None))
        if not folder:
            return None
        self._forget_plans()
        return Preparation(self._number(), (Unmount(folder),)).message()

    def forget_preparation(self, number: int) -> Sequence[Step]:
        """Forget something that could not be prepared, so that it is tried again. Returns its steps."""
        self._forget_plans()
        preparations = (preparation for _what, preparation in (*self._images.values(), *self._skeletons.values()))
        steps = next((each.steps for each in preparations if each.number == number), ())
        self._images = {layer: image for layer, image in self._images.items() if image[1].number != number}
        self._skeletons = {key: skeleton for key, skeleton in self._skeletons.items() if skeleton[1].number != number}
        return steps

    def give_up_layer(self, failure: messages.Failed, specification: SandboxSpec) -> bool:
        """Do without the optional layer that could not be made. False when there is no such layer: this host makes no sandbox."""
        if specification.layers:
            return False  # an image that cannot be used says nothing about the host
        if failure.phase == Phase.TREE and self.overlay:
            step = self._step(self.plan(specification).tree, failure.step)
            self.overlay = not (isinstance(step, Mount) and step.kind == "overlay")
            changed = not self.overlay
        elif failure.phase == Phase.OWN_USER and self._identity.is_root and self.many_uids and self.own_user_namespace:
            self.own_user_namespace = False
            changed = True
        else:
            changed = False
        if changed:
            self._forget_plans()
            self._skeletons.clear()
        return changed

    def steps_of(self, failed: messages.Failed, specification: SandboxSpec) -> Sequence[Step]:
        """Return the steps of the phase in which the making of a sandbox failed."""
        plan = self.plan(specification)
        return {Phase.GROUP: plan.group, Phase.TREE: plan.tree, Phase.LIMITS: plan.limits}.get(Phase(failed.phase), ())

    def layers(self) -> tuple[str, ...]:
        """Name the isolation layers that every sandbox has, as `firebox doctor` calls them."""
        layers = ["mount", "pid", "network", "ipc", "uts", "capabilities", "no-new-privileges", "seccomp", "rlimits"]
        layers.append("read-only-root")
        if self.own_user_namespace:
            layers.append("user-namespace")
        if self.many_uids:
            layers.append("own-uid")
        if self.overlay:
            layers.append("private-inodes")
        layers.append(f"cgroup-{self.groups.kind}" if self.groups.kind != "none" else "sampled-limits")
        return tuple(layers)

    def failure(self, failed: messages.Failed, call: str, steps: Sequence[Step] = ()) -> SandboxFailure:
        """Put a failure into words. steps: those of the phase."""
        step = self._step(steps, failed.step)
        words = _PHASES.get(failed.phase, call)
        hint = ""
        if failed.phase == Phase.PREPARE and step is not None:
            words = step.describe()
            if isinstance(step, MountImage) and failed.error == errno.ENOTDIR:
                return SandboxFailure(words, failed.error, f"the image has no folder {step.tree}")
        elif failed.phase in (Phase.TREE, Phase.GROUP, Phase.LIMITS) and step is not None:
            words = f"{words} {step.describe()}"
        elif failed.phase == Phase.LEAN_ROOT:
            words = "the root"
        if failed.phase in (Phase.CLONE, Phase.IDENTITY) and failed.error == errno.EPERM:
            hint = _NO_USER_NAMESPACE
        elif failed.phase == Phase.LEAN_ROOT and failed.error == errno.EINVAL:
            return SandboxFailure(words, failed.error, "this is a chroot whose root is no mount point", _CHROOT)
        elif isinstance(step, Mount) and step.kind == "proc" and failed.error == errno.EPERM:
            hint = _HIDDEN_PROC
        return SandboxFailure(words, failed.error, f"{messages.error_text(failed.error)}: {call}", hint)

    def _encoded(self, specification: SandboxSpec) -> bytes:
        plan = self.plan(specification)
        ahead = specification.ahead
        flags = MakeFlag(0)
        if self.own_user_namespace:
            flags |= MakeFlag.OWN_USER_NAMESPACE
        if self.groups.kind == "none":
            flags |= MakeFlag.SAMPLED
        text = Text()
        if ahead is not None:
            flags |= MakeFlag.PRESTART | (MakeFlag.HELD if ahead.held else 0)
            for word in (*ahead.argv, *(f"{name}={value}" for name, value in ahead.env)):
                text.add(word)
        main = os.path.normpath(ahead.main) if ahead is not None and ahead.main else ""
        steps = b"".join(encode(part, text) for part in plan)
        own_filter = compile_filter(ask=False, counted=self._counted, traces=True) if specification.captures else b""
        head = messages.Make(
            kind=Kind.MAKE,
            number=0,
            flags=flags,
            inside_uid=INSIDE_UID,
            group_steps=len(plan.group),
            tree_steps=len(plan.tree),
            limit_steps=len(plan.limits),
            words=len(ahead.argv) if ahead is not None else 0,
            variables=len(ahead.env) if ahead is not None else 0,
            main=text.offset_of(main),
            stack_bytes=(ahead.stack_bytes if ahead is not None else 0) or specification.memory_bytes or _STACK_BYTES,
            text_bytes=text.bytes,
            filter_bytes=len(own_filter),
        )
        return messages.pack(head) + steps + text.encoded() + own_filter

    def _layer(self, layer: str) -> str:
        image = self._images.get(layer)
        return f"{image[0]}/{IMAGE_TREE}" if image is not None else mounts.HOST + layer

    @property
    def _counted(self) -> bool:
        return self.groups.kind != "none"

    def _number(self) -> int:
        number, self._next_number = self._next_number, self._next_number + 1
        return number

    def _forget_plans(self) -> None:
        self._plans.clear()
        self._messages.clear()

    @staticmethod
    def _step(steps: Sequence[Step], index: int) -> Step | None:
        return steps[index] if 0 <= index < len(steps) else None
