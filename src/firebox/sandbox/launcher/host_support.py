"""Check host support, layer by layer, and suggest fixes.

A real launcher creates a real sandbox. Kernel files are only read to explain a missing layer.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.launcher.squashfs_support import cannot_mount
from firebox.sandbox.plan.mounts import HOST
from firebox.sandbox.spec import SandboxFailure, SandboxSpec

OLDEST_KERNEL = (5, 15)

BOUNDARY_LAYERS = {
    "mount": "a file tree of its own",
    "read-only-root": "the host's files cannot be changed",
    "pid": "other processes are invisible and cannot be signalled",
    "network": "only a loopback interface of its own",
    "ipc": "no shared memory or queues with others",
    "uts": "a host name of its own",
    "capabilities": "every capability dropped, securebits locked",
    "no-new-privileges": "set-uid programs gain nothing",
    "seccomp": "dangerous system calls refused",
    "rlimits": "descriptors, file size and processes bounded",
}
"""No sandbox is created without every one of these."""

_DELEGATE = (
    "as an unprivileged user start it with `systemd-run --user --scope -p Delegate=yes firebox serve`, "
    "or in a service with `Delegate=yes`; as root nothing is needed"
)
_MOUNT_GROUPS = "mount -t cgroup2 none /sys/fs/cgroup; for a chroot, before you enter it: `mount --rbind /sys DIR/sys`"


@dataclass(frozen=True, slots=True)
class Finding:
    """The support for one layer. boundary: a public server should not run without it. hint: the exact fix, "" when ok."""

    name: str
    ok: bool = field(kw_only=True)
    boundary: bool = field(default=False, kw_only=True)
    detail: str = field(kw_only=True)
    hint: str = field(default="", kw_only=True)


def explain(layers: Iterable[str], *, reasons: Iterable[str] = ()) -> list[Finding]:
    """Return findings for the layers of a launcher. reasons: why a better cgroup version is not used."""
    have = set(layers)
    findings = [Finding(name, ok=name in have, boundary=True, detail=detail) for name, detail in BOUNDARY_LAYERS.items()]
    findings += [_identity(have), _control_groups(have, list(reasons)), _swap(have), _private_inodes(have), _own_uid(have)]
    return findings


async def describe_plan() -> list[str]:
    """Describe the steps that create a sandbox here. Raises: SandboxFailure if none can be made."""
    launcher = LauncherProcess()
    try:
        await launcher.start()
        return launcher.describe(SandboxSpec())
    finally:
        await launcher.close()


async def examine() -> list[Finding]:
    """Check this host by creating a sandbox."""
    launcher = LauncherProcess()
    try:
        await launcher.start()
        return [_kernel(), *explain(launcher.layers, reasons=launcher.reasons), _package_images(launcher.layers)]
    except SandboxFailure as failure:
        detail = f"{failure.step}: {failure.detail or os.strerror(failure.errno)}"
        return [_kernel(), *_suspects(), Finding("sandbox", ok=False, boundary=True, detail=detail, hint=failure.hint)]
    finally:
        await launcher.close()


def _kernel() -> Finding:
    release = platform.release()
    numbers = release.split("-")[0].split(".")
    ok = tuple(int(number) for number in numbers[:2] if number.isdigit()) >= OLDEST_KERNEL
    hint = "" if ok else f"Firebox needs Linux {OLDEST_KERNEL[0]}.{OLDEST_KERNEL[1]} or later"
    return Finding("kernel", ok=ok, boundary=True, detail=f"Linux {release} on {platform.machine()}", hint=hint)


def _suspects() -> list[Finding]:
    """Check the usual switches that keep an unprivileged user from creating sandboxes."""
    found: list[Finding] = []
    switches = (
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for this Python with `userns,`",
        ),
    )
    if os.geteuid() != 0:
        for name, refusing, fix in switches:
            value = _read(f"/proc/sys/{name}")
            if value == refusing:
                hint = f"{fix}, or start Firebox as root"
                found.append(Finding("user-namespace", ok=False, boundary=True, detail=f"{name} is {value}", hint=hint))
    hidden = [line.split()[4] for line in _read("/proc/self/mountinfo").splitlines() if line.split()[4].startswith("/proc/")]
    if hidden:
        hint = "in a container: `--security-opt systempaths=unconfined` (Docker), `--security-opt unmask=ALL` (Podman)"
        detail = f"parts of /proc are covered: {', '.join(hidden[:4])}"
        found.append(Finding("proc", ok=False, boundary=True, detail=detail, hint=hint))
    return found


def _identity(have: set[str]) -> Finding:
    if "user-namespace" in have:
        return Finding("user-namespace", ok=True, boundary=True, detail="programs have no privileges in their namespaces")
    hint = "allow user namespaces: sysctl -w user.max_user_namespaces=15000 kernel.apparmor_restrict_unprivileged_userns=0; "
    hint += "in a chroot there are none: enter the folder with `systemd-nspawn -D DIR` instead"
    return Finding("user-namespace", ok=False, detail="not available; each sandbox has a real uid of its own instead", hint=hint)


def _control_groups(have: set[str], reasons: list[str]) -> Finding:
    for version in ("v2", "v1"):
        if f"cgroup-{version}" in have:
            detail = f"version {version[1]}: memory, processes and CPU time"
            return Finding("control-groups", ok=True, boundary=True, detail=detail)
    words = ["none: memory and CPU time are sampled every 10 ms; short peaks may exceed a limit"]
    words += [reason.replace(f"{HOST}/", "/") for reason in reasons]
    hint = _DELEGATE if " - cgroup" in _read("/proc/self/mountinfo") else _MOUNT_GROUPS
    return Finding("control-groups", ok=False, boundary=True, detail="; ".join(words), hint=hint)


def _swap(have: set[str]) -> Finding:
    in_use = len(_read("/proc/swaps").splitlines()) > 1
    if not in_use or "cgroup-v2" in have:
        return Finding("swap", ok=True, detail="counted" if in_use else "none on this host")
    accounted = Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
    if "cgroup-v1" in have:
        return Finding("swap", ok=True, detail="counted" if accounted else "not accounted; sandboxes do not use it")
    return Finding("swap", ok=False, detail="a program may push memory into swap", hint=_DELEGATE)


def _private_inodes(have: set[str]) -> Finding:
    if "private-inodes" in have:
        return Finding("private-inodes", ok=True, detail="sandboxes share no file locks or watches")
    hint = "load the overlay module (modprobe overlay); in a container put its root on a file system that overlays can use"
    detail = "host files are shared inodes: two programs can communicate through file locks"
    return Finding("private-inodes", ok=False, detail=detail, hint=hint)


def _own_uid(have: set[str]) -> Finding:
    if "own-uid" in have:
        return Finding("own-uid", ok=True, detail="every concurrent sandbox has a different uid")
    missing = "install newuidmap (Debian: apt install uidmap) and " if shutil.which("newuidmap") is None else ""
    hint = f"{missing}add a range for the user to /etc/subuid and /etc/subgid, or start Firebox as root"
    detail = "all sandboxes run as the user who started Firebox, each in its own namespaces"
    return Finding("own-uid", ok=False, detail=detail, hint=hint)


def _package_images(layers: Iterable[str]) -> Finding:
    """Check how packages can be installed: this affects disk use and startup, not isolation."""
    if "private-inodes" not in layers:
        hint = "load the overlay module (modprobe overlay)"
        return Finding("packages", ok=False, detail="unavailable: their layers need overlays", hint=hint)
    words = cannot_mount()
    if not words:
        return Finding("packages", ok=True, detail="mounted as images")
    hint = "" if os.geteuid() != 0 else "modprobe loop squashfs; in a container: `--privileged`, or `--device /dev/loop-control`"
    return Finding("packages", ok=os.geteuid() != 0, detail=f"unpacked at installation ({words})", hint=hint)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
