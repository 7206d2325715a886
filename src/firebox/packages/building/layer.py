"""The layer of a package: the files of a full root that differ from its base.

Trees are handled as tars, so owners, modes and devices need no privileges. The layer is stacked on its base (overlayfs), so
identical files are omitted. Files of the base that the full root lacks stay visible, which is harmless.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import tarfile
from dataclasses import dataclass
from typing import Any, cast

from firebox.domain.errors import BuildFailed

BUILDING = "firebox-building"
"""Folder for build files within a root under construction."""

_EMPTIED = (
    "boot", "dev", "home", "media", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "var/backups", "var/cache", "var/lib/apt",
    "var/log", "var/mail", "var/spool", "var/tmp",
)  # fmt: skip
"""Folders whose contents are omitted: a sandbox has its own, or they hold build residue."""

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
"""Accounts, which a sandbox provides itself, and files that differ between any two builds."""

_DPKG = "var/lib/dpkg"
"""Only a base keeps the dpkg database: a package build installs into its base."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Contents of a layer. epoch: newest mtime, in seconds since 1970; size_bytes: total size of all files."""

    members: list[tuple[tarfile.TarInfo, tarfile.TarInfo | None]]
    """Each member to write, with the member of the full root that holds its content, if any."""
    epoch: int
    size_bytes: int


def plan_layer(full: tarfile.TarFile, base: tarfile.TarFile | None, *, began: int, epoch: int) -> Layer:
    """Select the files of a root that go into a package. base: None for a base itself, which keeps all useful files.

    began: start of the build; files modified later get the newest mtime from before. epoch: the mtime if there is none.
    Raises: BuildFailed.
    """
    known = {_name(member): member for member in base} if base is not None else {}
    folders: dict[str, tarfile.TarInfo] = {}
    chosen: dict[str, tarfile.TarInfo] = {}
    for member in full:
        name = _name(member)
        if not name or _is_left_out(name, keep_dpkg=base is None):
            continue
        if member.isdir():
            folders[name] = member
            continue
        content = _content(full, member)
        if not (content.isreg() or content.issym()):
            continue  # a sandbox provides its own devices, pipes and sockets
        if base is None or not _same(full, content, base, known.get(name)):
            chosen[name] = content
    newest = max((int(each.mtime) for each in chosen.values() if each.isreg() and each.mtime < began), default=epoch)
    if base is not None:  # overlayfs shows a folder as in its topmost layer
        above = {name[: match.start()] for name in chosen for match in re.finditer("/", name)}
        folders = {name: folder for name, folder in folders.items() if name in above}
    members: list[tuple[tarfile.TarInfo, tarfile.TarInfo | None]] = []
    first: dict[int, str] = {}
    size_bytes = 0
    for name, content in sorted((folders | chosen).items(), key=lambda each: each[0].split("/")):
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


def _is_left_out(name: str, *, keep_dpkg: bool) -> bool:
    if any(name.startswith(folder + "/") for folder in _EMPTIED) or _LEFT_OUT.match(name):
        return True
    return not keep_dpkg and (name == _DPKG or name.startswith(_DPKG + "/"))


def _name(member: tarfile.TarInfo) -> str:
    name = member.name.removeprefix("./").strip("/")
    if ".." in name.split("/"):
        raise BuildFailed(f"the root contains an invalid name, {name!r}")
    return "" if name == "." else name


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return the member that holds the content of a hard link."""
    return tar.getmember(member.linkname) if member.islnk() else member


def _mode(member: tarfile.TarInfo) -> int:
    """Return the normalized mode: readable for all, since programs run as any user, and without setuid or setgid."""
    if member.issym():
        return 0o777
    executable = 0o111 if member.isdir() or member.mode & 0o111 else 0
    return (member.mode & 0o1777) | 0o444 | executable


def _digest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = cast("Any", tar.extractfile(member))  # typed as less than the binary file that it is
    return hashlib.file_digest(content, "blake2b").digest()


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
