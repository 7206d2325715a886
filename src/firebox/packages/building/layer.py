"""What a package's root holds: the files of a full root that the base does not have in the same way.

Trees are handled as tars, so that owners, modes and devices need no privilege here. A package's root lies on top of its base's
(overlayfs), so nothing that is the same is repeated; what the base has and the full root lacks stays visible, which no program
minds.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import tarfile
from dataclasses import dataclass

from firebox.domain.errors import BuildFailed

BUILDING = "firebox-building"
"""The folder of a root, while it is made, that holds what building needs."""

_EMPTIED = (
    "boot", "dev", "home", "media", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "var/backups", "var/cache", "var/lib/apt",
    "var/log", "var/mail", "var/spool", "var/tmp",
)  # fmt: skip
"""Folders that a package has empty, if at all: a sandbox has its own, or they hold what came of building."""

_LEFT_OUT = re.compile(
    "|".join(
        fnmatch.translate(pattern)
        for pattern in (
            "etc/machine-id", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/shadow*", "etc/gshadow*", "etc/passwd-",
            "etc/group-", "etc/subuid*", "etc/subgid*", "etc/.pwd.lock", "etc/mtab", "etc/apt", "etc/apt/*",
            "etc/dpkg/dpkg.cfg.d/98firebox", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "var/lib/dpkg/*-old", "var/lib/dpkg/lock*",
            "var/lib/dpkg/triggers/Lock", "var/lib/systemd", "var/lib/systemd/*", "usr/sbin/policy-rc.d",
            BUILDING, f"{BUILDING}/*",
        )
    )
)  # fmt: skip
"""Accounts, which a sandbox has its own of, and what two builds never have in common."""

_DPKG = "var/lib/dpkg"
"""A base keeps what dpkg knows: packages are installed into it when a layer is made."""

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """What a tar holds. epoch: when its newest file was made, in seconds since 1970; size_bytes: of all its files."""

    members: list[tuple[tarfile.TarInfo, tarfile.TarInfo | None]]
    """Each as it is to be written, and the member of the full root that has its content, if it has one."""
    epoch: int
    size_bytes: int


def plan_layer(full: tarfile.TarFile, base: tarfile.TarFile | None, *, began: int, epoch: int) -> Layer:
    """Decide what of a root goes into a package. base: None for a base itself, which keeps everything that is useful.

    began: when building began; what is newer was made meanwhile and gets the time of the newest file that is older. epoch: the
    time where there is none. Raises: BuildFailed.
    """
    known = {_name(member): member for member in base} if base is not None else {}
    folders: dict[str, tarfile.TarInfo] = {}
    chosen: list[tuple[str, tarfile.TarInfo, tarfile.TarInfo]] = []
    for member in full:
        name = _name(member)
        if not name or _is_left_out(name, keep_dpkg=base is None):
            continue
        if member.isdir():
            folders[name] = member
            if base is None:
                chosen.append((name, member, member))
            continue
        content = _content(full, member)
        if not (content.isreg() or content.issym()):
            continue  # devices, pipes and sockets are a sandbox's own matter
        if base is None or not _same(full, content, base, known.get(name)):
            chosen.append((name, member, content))
    if base is not None:
        chosen = _with_folders(chosen, folders)
    times = [int(content.mtime) for _, _, content in chosen if content.isreg() and content.mtime < began]
    newest = max(times, default=epoch)
    members: list[tuple[tarfile.TarInfo, tarfile.TarInfo | None]] = []
    first: dict[int, str] = {}
    size_bytes = 0
    for name, _, content in sorted(chosen, key=lambda each: each[0].split("/")):
        known_as = first.get(content.offset) if content.isreg() else None
        has_content = content.isreg() and known_as is None
        members.append((_written(name, content, newest, known_as), content if has_content else None))
        if has_content:
            first[content.offset] = name
            size_bytes += content.size
    return Layer(members, newest, size_bytes)


def _same(full: tarfile.TarFile, content: tarfile.TarInfo, base: tarfile.TarFile, other: tarfile.TarInfo | None) -> bool:
    if other is None:
        return False
    other = _content(base, other)
    if content.type != other.type or _mode(content) != _mode(other):
        return False
    if content.issym():
        return content.linkname == other.linkname
    return content.size == other.size and _digest(full, content) == _digest(base, other)


def _with_folders(
    chosen: list[tuple[str, tarfile.TarInfo, tarfile.TarInfo]], folders: dict[str, tarfile.TarInfo]
) -> list[tuple[str, tarfile.TarInfo, tarfile.TarInfo]]:
    """Add the folders above what was chosen: overlayfs shows a folder as the topmost layer has it."""
    above = {name[:at] for name, _, _ in chosen for at in (match.start() for match in re.finditer("/", name))}
    return [*((name, folders[name], folders[name]) for name in above if name in folders), *chosen]


def _is_left_out(name: str, *, keep_dpkg: bool) -> bool:
    if any(name.startswith(folder + "/") for folder in _EMPTIED) or _LEFT_OUT.match(name):
        return True
    return not keep_dpkg and (name == _DPKG or name.startswith(_DPKG + "/"))


def _name(member: tarfile.TarInfo) -> str:
    name = member.name.removeprefix("./").strip("/")
    if ".." in name.split("/"):
        raise BuildFailed(f"the root holds a file of the name {name!r}")
    return "" if name == "." else name


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Give the member whose content a hard link shares."""
    return tar.getmember(member.linkname) if member.islnk() else member


def _mode(member: tarfile.TarInfo) -> int:
    """Give the mode with which a file is shown: readable for all, as whom programs run, and never anybody else's rights."""
    if member.issym():
        return 0o777
    executable = 0o111 if member.isdir() or member.mode & 0o111 else 0
    return (member.mode & 0o1777) | 0o444 | executable


def _digest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    digest = hashlib.blake2b()
    file = tar.extractfile(member)
    while file is not None and (piece := file.read(_PIECE_BYTES)):
        digest.update(piece)
    return digest.digest()


def _written(name: str, content: tarfile.TarInfo, newest: int, known_as: str | None) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = content.type, _mode(content), min(int(content.mtime), newest)
    if known_as is not None:
        member.type, member.linkname = tarfile.LNKTYPE, known_as
    elif content.isreg():
        member.type, member.size = tarfile.REGTYPE, content.size
    elif content.issym():
        member.linkname = content.linkname
    return member
