"""The read-only bottom layer of a sandbox's root: folders, symlinks, a synthetic /etc, device nodes, mount points.

The launcher creates one for each distinct root, in its tmpfs, and all sandboxes with that root share it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from firebox.sandbox.plan import steps
from firebox.sandbox.plan.mounts import DEVICE_NODES, HOME, HOST, STANDARD_TREES, USRMERGE_LINKS, shown_at, shown_trees
from firebox.sandbox.plan.steps import Step
from firebox.sandbox.spec import HOOKS_FOLDER

ETC_PATHS = (
    "alternatives", "ca-certificates", "fonts", "gai.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "mime.types", "protocols", "rpc", "services", "shells", "ssl/certs", "ssl/openssl.cnf", "terminfo", "magic", "magic.mime",
    "debian_version", "os-release", "lsb-release", "inputrc", "profile", "bash.bashrc", "xattr.conf",
)  # fmt: skip
"""Copied from the host's /etc when they exist: what toolchains read, and no secrets."""

ETC_PREFIXES = ("java-", "python", "perl", "php", "mono", "ghc", "R", "fpc", "emacs", "octave", "guile", "openmpi")
"""Prefixes of further names to copy from /etc, where several toolchains keep parts of themselves."""

_FOLDERS = ("box", "dev/pts", "dev/shm", "etc", "home/firebox", "proc", "run", "sys", "tmp", "usr", "var", ".mask")


class Skeleton(NamedTuple):
    """A skeleton at `path` in the launcher's root.

    trees: host folders to mount over it. host: whether the host's toolchains are shown; without them everything comes from
    layers. hooks: name -> content of the files that prestarted interpreters load. passwd_uid: of the sandbox's user.
    nodes_are_real: create device nodes instead of binding the host's.
    """

    path: str
    trees: tuple[str, ...]
    host: bool
    hooks: Mapping[str, str]
    passwd_uid: int
    nodes_are_real: bool

    def steps(self) -> Iterator[Step]:
        """Yield the steps that create it."""
        for folder in _FOLDERS:
            yield steps.folders(f"{self.path}/{folder}")
        if self.host:
            for link in filter(os.path.islink, USRMERGE_LINKS):
                yield steps.link(os.readlink(link), self.path + link)
        yield steps.link("/tmp", f"{self.path}/var/tmp")
        yield steps.link("/run/lock", f"{self.path}/var/lock")
        yield from self._devices()
        if self.host:
            yield from self._copied_etc()
        yield from self._own_etc()
        yield steps.text_file(f"{self.path}/.mask/file", "", 0o444)
        yield steps.folders(f"{self.path}/.mask/folder", 0o555)
        yield steps.folders(self.path + HOOKS_FOLDER)
        for name, text in self.hooks.items():
            yield steps.text_file(f"{self.path}{HOOKS_FOLDER}/{name}", text)
        for tree in self.trees:
            yield steps.folders(self.path + shown_at(tree))

    def _devices(self) -> Iterator[Step]:
        for name, (major, minor) in DEVICE_NODES.items():
            path = f"{self.path}/dev/{name}"
            yield steps.node(path, major, minor) if self.nodes_are_real else steps.text_file(path, "")
        links = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
        for name, target in {**links, "ptmx": "pts/ptmx"}.items():
            yield steps.link(target, f"{self.path}/dev/{name}")

    def _copied_etc(self) -> Iterator[Step]:
        names = os.listdir("/etc")
        copied = [name for name in names if name.startswith(ETC_PREFIXES)]
        copied += [path for path in ETC_PATHS if path not in copied and os.path.lexists(f"/etc/{path}")]
        for path in copied:
            if "/" in path:
                yield steps.folders(os.path.dirname(f"{self.path}/etc/{path}"))
            yield steps.copy(f"{HOST}/etc/{path}", f"{self.path}/etc/{path}")

    def _own_etc(self) -> Iterator[Step]:
        uid = self.passwd_uid
        texts = {
            "passwd": f"root:x:0:0:root:/:/bin/sh\nfirebox:x:{uid}:{uid}:firebox:{HOME}:/bin/sh\n"
            "nobody:x:65534:65534:nobody:/:/bin/false\n",
            "group": f"root:x:0:\nfirebox:x:{uid}:\nnogroup:x:65534:\n",
            "hosts": "127.0.0.1 localhost firebox\n::1 localhost firebox\n",
            "hostname": "firebox\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
            "resolv.conf": "",
            "timezone": "Etc/UTC\n",
            "machine-id": "00000000000000000000000000000000\n",
        }
        for name, text in texts.items():
            yield steps.text_file(f"{self.path}/etc/{name}", text)
        yield steps.link("/usr/share/zoneinfo/Etc/UTC", f"{self.path}/etc/localtime")


def trees_over(host: bool, trees: Iterable[str]) -> tuple[str, ...]:
    """Return the host folders to mount over a skeleton. host: whether these include the standard ones."""
    # /bin, /lib ... where they are folders instead of symlinks into /usr.
    own = [path for path in USRMERGE_LINKS if os.path.isdir(path) and not os.path.islink(path)]
    return shown_trees((*STANDARD_TREES, *own, *trees) if host else trees)
