"""Plans: the settings of a launcher, its one-time preparations, and the steps that create a sandbox.

This is the policy; native/ carries it out. A plan is data, computed once for each spec, and can be printed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from firebox.sandbox.plan import cgroups, identity, mounts, steps
from firebox.sandbox.plan.seccomp import compile_filter
from firebox.sandbox.plan.skeleton import Skeleton, trees_over
from firebox.sandbox.plan.steps import Step, encode
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Kind, MakeFlag, Operation, Phase, Text
from firebox.sandbox.spec import INSIDE_UID, Prestart, SandboxFailure, SandboxSpec

HARD_LIMITS = {
    resource.RLIMIT_CORE: 1,  # 1 keeps the kernel from starting the host's crash handler, 0 does not: core(5), coredump.c
    resource.RLIMIT_MEMLOCK: 64 << 20,
    resource.RLIMIT_MSGQUEUE: 819_200,
    resource.RLIMIT_SIGPENDING: 4096,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
}

USER_LIMITS = {"max_inotify_instances": 16, "max_inotify_watches": 8192}
"""The kernel counts these for the host user of a rootless launcher: one sandbox must not use them up."""

IMAGE_TREE = "root"
"""The folder of an image that becomes a layer; the rest is package metadata."""

_STACK_BYTES = 512 << 20
_PLANS_KEPT = 64

_PHASES: dict[int, str] = {
    Phase.CGROUP: "1 cgroup",
    Phase.NAMESPACES: "2 mounts, cgroup, host name and loopback of its own",
    Phase.TREE: "3",
    Phase.OWN_USER: "4 become the sandbox's own user",
    Phase.LIMITS: "5 limits",
    Phase.CAPABILITIES: "6 drop every capability, for good",
    Phase.FILTER: "7 system call filter",
}
_NO_USER_NAMESPACE = (
    "start Firebox as root, or allow unprivileged user namespaces: `firebox doctor` names the switch if it finds one; in a "
    "chroot the kernel refuses them"
)
_CHROOT = "before you enter it: `mount --bind DIR DIR`, and `mount -t proc proc DIR/proc`; or `systemd-nspawn -D DIR`"
_HIDDEN_PROC = "parts of /proc are hidden (a container?); see `firebox doctor`"


class Plan(NamedTuple):
    """The steps that create a sandbox, in order."""

    cgroup: tuple[Step, ...]
    tree: tuple[Step, ...]
    limits: tuple[Step, ...]

    def describe(self) -> Iterator[str]:
        """Yield a description of each step."""
        for phase, title in _PHASES.items():
            yield "3 file tree" if phase == Phase.TREE else title
            yield from (f"  {step.description}" for step in self.steps_of(phase))

    def steps_of(self, phase: int) -> tuple[Step, ...]:
        return {Phase.CGROUP: self.cgroup, Phase.TREE: self.tree, Phase.LIMITS: self.limits}.get(Phase(phase), ())


class Preparation(NamedTuple):
    """Steps that the launcher takes itself before it creates sandboxes. number: of the Prepare message."""

    number: int
    steps: tuple[Step, ...]

    def message(self) -> bytes:
        text = Text()
        steps = encode(self.steps, text)
        head = messages.Prepare(Kind.PREPARE, self.number, len(self.steps), text.bytes)
        return messages.pack(head) + steps + text.encoded()


class Plans:
    """The plans for the launcher with this pid.

    overlay, own_user_namespace: optional layers, dropped where this host refuses them. many_uids: known once the launcher has
    replied. Raises, when constructed: SandboxFailure, OSError.
    """

    def __init__(self, pid: int, *, uid_base: int, hooks: Mapping[str, str], run_as: tuple[int, int] | None = None) -> None:
        if not os.path.exists("/proc/self"):
            raise SandboxFailure("/proc", errno.ENOENT, "it is not mounted", "mount -t proc proc /proc")
        self._hooks = dict(hooks)
        self._identity = identity.choose_identity(uid_base=uid_base, pid=pid, run_as=run_as)
        # Another user cannot enter our cgroups.
        self.cgroups, self.cgroup_reasons = cgroups.choose(pid) if run_as is None else (cgroups.Cgroups("none"), [])
        self._oom_score_is_free = identity.can_programs_lower_oom_score(run_as=run_as)
        self.overlay = True
        self.own_user_namespace = True
        self.many_uids = self._identity.uid_count > 1
        self._skeletons: dict[tuple[bool, tuple[str, ...]], tuple[Skeleton, Preparation]] = {}
        self._images: dict[str, tuple[str, Preparation]] = {}
        self._numbers = itertools.count(1)
        self._plans: dict[SandboxSpec, Plan] = {}
        self._messages: dict[SandboxSpec, bytes] = {}

    def configuration(self) -> tuple[bytes, tuple[int, ...]]:
        """Return the Configure message and its descriptors; `forget_lock` closes them once they have been sent."""
        chosen = self._identity
        text = Text((*chosen.uid_map, *chosen.gid_map, *self.cgroups.folders))
        programs = compile_filter(ask=True, counted=self._counted), compile_filter(ask=False, counted=self._counted)
        head = messages.Configure(
            kind=Kind.CONFIGURE,
            version=messages.VERSION,
            flags=messages.ConfigureFlag.INTO_CGROUP if self.cgroups.kind == "v2" else 0,
            uid_first=chosen.uid_first,
            uid_count=chosen.uid_count,
            cgroups=len(self.cgroups.folders),
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
        """Close the lock that reserves the uids: the launcher holds it now."""
        if self._identity.lock >= 0:
            os.close(self._identity.lock)
            self._identity = self._identity._replace(lock=-1)

    def forget_cgroups(self) -> None:
        """Remove the cgroups that an ended launcher left. While sandboxes are still dying, the next launcher does it."""
        for folder in self.cgroups.folders:
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def prepare(self, spec: SandboxSpec) -> list[Preparation]:
        """Return the preparations that this spec needs and no earlier spec has requested."""
        missing: list[Preparation] = []
        for layer in spec.layers:
            if layer not in self._images and not os.path.isdir(layer):
                number = next(self._numbers)
                folder = f"/images/{number}"
                self._images[layer] = folder, Preparation(number, (steps.mount_image(mounts.HOST + layer, folder, IMAGE_TREE),))
                missing.append(self._images[layer][1])
        key = (spec.host, spec.trees)
        if key not in self._skeletons:
            number = next(self._numbers)
            passwd_uid = INSIDE_UID if self.own_user_namespace else self._identity.uid_first
            trees = trees_over(*key)
            skeleton = Skeleton(f"/roots/{number}", trees, spec.host, self._hooks, passwd_uid, self._identity.is_root)
            self._skeletons[key] = skeleton, Preparation(number, tuple(skeleton.steps()))
            missing.append(self._skeletons[key][1])
        return missing

    def needed(self, spec: SandboxSpec) -> Iterator[int]:
        """Yield the numbers of all preparations that a spec needs, done or not."""
        yield self._skeletons[spec.host, spec.trees][1].number
        for layer in spec.layers:
            if layer in self._images:
                yield self._images[layer][1].number

    def make(self, number: int, spec: SandboxSpec) -> bytes:
        """Return the Make message for a sandbox, to be sent after what `prepare` returned. Raises: SandboxFailure."""
        message = self._messages.get(spec)
        if message is None:
            if len(self._messages) >= _PLANS_KEPT:
                self._forget_plans()
            message = self._messages[spec] = self._encoded(spec)
        return message[:4] + number.to_bytes(4, "little") + message[8:]

    def plan(self, spec: SandboxSpec) -> Plan:
        """Return the plan of a spec. Raises: SandboxFailure."""
        if spec.layers and not self.overlay:
            raise SandboxFailure("layers", errno.EOPNOTSUPP, "packages need overlays, which this kernel refuses here")
        plan = self._plans.get(spec)
        if plan is None:
            skeleton, _preparation = self._skeletons[spec.host, spec.trees]
            tree = mounts.plan(
                skeleton.path,
                skeleton.trees,
                [self._layer(layer) for layer in spec.layers],
                nodes_are_real=self._identity.is_root,
                writable_bytes=spec.writable_bytes,
                writable_inodes=spec.writable_inodes,
                overlay=self.overlay,
                writable_proc=not self._oom_score_is_free,
                counted=self._counted,
            )
            user_limits = USER_LIMITS if self.own_user_namespace else {}
            limits = [steps.user_limit(*each) for each in user_limits.items()]
            limits += [steps.limit(*each) for each in HARD_LIMITS.items()]
            group = self.cgroups.steps(spec.memory_bytes, spec.processes)
            plan = self._plans[spec] = Plan(tuple(group), tuple(tree), tuple(limits))
        return plan

    def forget_layer(self, layer: str) -> bytes | None:
        """Return a message that unmounts an image, or None when it is not mounted."""
        folder, _preparation = self._images.pop(layer, ("", None))
        if not folder:
            return None
        self._forget_plans()
        return Preparation(next(self._numbers), (steps.unmount(folder),)).message()

    def forget_preparation(self, number: int) -> Sequence[Step]:
        """Forget a failed preparation, so that it is retried. Returns its steps."""
        self._forget_plans()
        preparations = (preparation for _what, preparation in (*self._images.values(), *self._skeletons.values()))
        steps = next((each.steps for each in preparations if each.number == number), ())
        self._images = {layer: image for layer, image in self._images.items() if image[1].number != number}
        self._skeletons = {key: skeleton for key, skeleton in self._skeletons.items() if skeleton[1].number != number}
        return steps

    def give_up_layer(self, failure: messages.Failed, spec: SandboxSpec) -> bool:
        """Drop the optional layer that failed. Returns False when a required one failed: this host cannot create sandboxes."""
        if spec.layers:
            return False  # an unusable image says nothing about the host
        if failure.phase == Phase.TREE and self.overlay:
            step = self._step(self.plan(spec).tree, failure.step)
            if step is None or step.kind != "overlay":
                return False
            self.overlay = False
        elif failure.phase == Phase.OWN_USER and self._identity.is_root and self.many_uids and self.own_user_namespace:
            self.own_user_namespace = False
        else:
            return False
        self._forget_plans()
        self._skeletons.clear()
        return True

    def layers(self) -> tuple[str, ...]:
        """Return the names of the isolation layers of every sandbox, as `firebox doctor` prints them."""
        always = ("mount", "pid", "network", "ipc", "uts", "capabilities", "no-new-privileges", "seccomp", "rlimits")
        optional = {"user-namespace": self.own_user_namespace, "own-uid": self.many_uids, "private-inodes": self.overlay}
        limits = f"cgroup-{self.cgroups.kind}" if self._counted else "sampled-limits"
        return (*always, "read-only-root", *(name for name, is_there in optional.items() if is_there), limits)

    def failure(self, failed: messages.Failed, call: str, steps: Sequence[Step] = ()) -> SandboxFailure:
        """Describe a failure. steps: those of its phase."""
        step = self._step(steps, failed.step)
        words = _PHASES.get(failed.phase, call)
        hint = ""
        if failed.phase == Phase.PREPARE and step is not None:
            words = step.description
            if step.operation == Operation.IMAGE and failed.error == errno.ENOTDIR:
                return SandboxFailure(words, failed.error, f"the image has no folder {step.kind}")
        elif failed.phase in (Phase.TREE, Phase.CGROUP, Phase.LIMITS) and step is not None:
            words = f"{words} {step.description}"
        elif failed.phase == Phase.LEAN_ROOT:
            words = "the root"
        if failed.phase in (Phase.CLONE, Phase.IDENTITY) and failed.error == errno.EPERM:
            hint = _NO_USER_NAMESPACE
        elif failed.phase == Phase.LEAN_ROOT and failed.error == errno.EINVAL:
            return SandboxFailure(words, failed.error, "this is a chroot whose root is no mount point", _CHROOT)
        elif step is not None and step.kind == "proc" and failed.error == errno.EPERM:
            hint = _HIDDEN_PROC
        return SandboxFailure(words, failed.error, f"{messages.error_text(failed.error)}: {call}", hint)

    def _encoded(self, spec: SandboxSpec) -> bytes:
        plan = self.plan(spec)
        prestart = spec.prestart or Prestart((), ())
        flags = MakeFlag(0)
        if self.own_user_namespace:
            flags |= MakeFlag.OWN_USER_NAMESPACE
        if not self._counted:
            flags |= MakeFlag.SAMPLED
        if spec.prestart is not None:
            flags |= MakeFlag.PRESTART | (MakeFlag.HELD if prestart.held else 0)
        text = Text((*prestart.argv, *(f"{name}={value}" for name, value in prestart.env)))
        main = os.path.normpath(prestart.main) if prestart.main else ""
        steps = b"".join(encode(part, text) for part in plan)
        own_filter = compile_filter(ask=False, counted=self._counted, traces=True) if spec.captures else b""
        head = messages.Make(
            kind=Kind.MAKE,
            number=0,
            flags=flags,
            inside_uid=INSIDE_UID,
            cgroup_steps=len(plan.cgroup),
            tree_steps=len(plan.tree),
            limit_steps=len(plan.limits),
            words=len(prestart.argv),
            variables=len(prestart.env),
            main=text.offset_of(main),
            stack_bytes=prestart.stack_bytes or spec.memory_bytes or _STACK_BYTES,
            text_bytes=text.bytes,
            filter_bytes=len(own_filter),
        )
        return messages.pack(head) + steps + text.encoded() + own_filter

    def _layer(self, layer: str) -> str:
        image = self._images.get(layer)
        return f"{image[0]}/{IMAGE_TREE}" if image is not None else mounts.HOST + layer

    @property
    def _counted(self) -> bool:
        return self.cgroups.kind != "none"

    def _forget_plans(self) -> None:
        self._plans.clear()
        self._messages.clear()

    @staticmethod
    def _step(steps: Sequence[Step], index: int) -> Step | None:
        return steps[index] if 0 <= index < len(steps) else None
