"""Bases: the essential part of a Debian release, which the packages of that release are made from and stacked on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import semantic_version

from firebox.domain.errors import BuildFailed
from firebox.packages.building.debian_root import run_mmdebstrap
from firebox.packages.building.inputs import KEEP_ARCHIVES, debian_inputs, keep_archives
from firebox.packages.building.layer import plan_layer
from firebox.packages.building.recipe import AUTHOR
from firebox.packages.building.squash import INFORMATION, read_beside, write_image, write_tree_as_tar
from firebox.packages.machine import architecture
from firebox.packages.publishing.build_file import write_build_file
from firebox.packages.publishing.publishing import add_to_index, announce_file, entry_of

INCLUDED = ("tzdata",)
"""What is not essential for Debian and still expected by programs of any language."""

UNMERGED = ("buster", "bullseye")
"""Releases that have /bin and /usr/bin apart unless they find links."""
MERGE = '--setup-hook=for name in bin sbin lib lib64; do mkdir -p "$1/usr/$name"; ln -s "usr/$name" "$1/$name"; done'

_VERSION_ID = re.compile(r"\d+(?:\.\d+)?")
_BASE_FILES = re.compile(r"^Package: base-files\n(?:.+\n)*?Version: (\d+(?:\.\d+)?)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Base:
    """A base that is there. tree: its files as a tar; epoch: when its newest file was made."""

    name: str
    version: str
    file: Path
    tree: Path
    epoch: int


def find_or_build_base(suite: str, output: Path, downloads: Path, say: Callable[[str], None], *, anew: bool = False) -> Base:
    """Give the newest base of a release in a folder of packages; one is built and announced there when there is none.

    Raises: BuildFailed.
    """
    name = f"debian-{suite}"
    with alone(output, name):
        files = [] if anew else list(output.glob(f"{name}-*-{architecture()}.squashfs"))
        if not files:
            files = [_build(suite, name, output, downloads, say)]
        file = max(files, key=_version_in_name)
        announce_file(output, file)
    information = _information_of(file)
    tree = _tree(file, downloads / "trees")
    made = datetime.strptime(information["version"].rpartition(".")[2], "%Y%m%d").replace(tzinfo=UTC)
    return Base(name, information["version"], file, tree, int(made.timestamp()))


def _build(suite: str, name: str, output: Path, downloads: Path, say: Callable[[str], None]) -> Path:
    with tempfile.TemporaryDirectory(dir=output, prefix=".building-") as place:
        folder = Path(place)
        archives, full, unfinished = folder / "archives", folder / "full.tar", folder / "image.squashfs"
        archives.mkdir()
        hooks = ["--skip=essential/unlink", f"--include={','.join(INCLUDED)}", KEEP_ARCHIVES.format(archives)]
        if suite in UNMERGED:
            hooks.append(MERGE)
        hooks += ['--customize-hook=rm -f "$1"/var/cache/apt/archives/*.deb']
        began = int(time.time()) - 1
        run_mmdebstrap(suite, full, ["--variant=essential", *hooks], say)
        inputs = debian_inputs(archives)
        keep_archives(archives, downloads / "debian")
        with tarfile.open(full) as whole:
            layer = plan_layer(whole, None, began=began, epoch=0)
            release = _release(whole)
            version = f"{release}.{datetime.fromtimestamp(layer.epoch, UTC):%Y%m%d}"
            information: dict[str, Any] = {
                "language": name,
                "version": version,
                "author": AUTHOR,
                "dependencies": {},
                "build_platform": "firebox-debian",
                "aliases": [],
                "provides": [],
                "limit_overrides": {},
                "architecture": architecture(),
                "inputs": inputs,
            }
            content = json.dumps(information, indent=1).encode() + b"\n"
            write_image(unfinished, {INFORMATION: content}, whole, layer)
        file = output / f"{name}-{version}-{architecture()}.squashfs"
        unfinished.chmod(0o644)
        write_build_file(file, f"mmdebstrap --variant=essential --include={','.join(INCLUDED)} {suite}", {})
        unfinished.replace(file)
    add_to_index(output, entry_of(file, information, layer.size_bytes))
    say(f"{file.name}: {file.stat().st_size >> 20} MiB")
    return file


def _release(root: tarfile.TarFile) -> str:
    """Give the release's number with one point: "13.2"; of one without a number that of its base-files."""
    texts: list[str] = []
    for name in ("./etc/debian_version", "./var/lib/dpkg/status"):
        file = root.extractfile(name)
        texts.append(file.read().decode(errors="replace") if file is not None else "")
    match = _VERSION_ID.match(texts[0]) or _BASE_FILES.search(texts[1])
    if match is None:
        raise BuildFailed("the root does not say which release of Debian it is")
    number = match[match.re.groups]
    return number if "." in number else f"{number}.0"


def _tree(file: Path, folder: Path) -> Path:
    """Give the base's files as a tar, which is made once and kept."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    tree = folder / f"{digest}.tar"
    if not tree.is_file():
        write_tree_as_tar(file, tree)
    return tree


def _information_of(file: Path) -> dict[str, Any]:
    try:
        information: dict[str, Any] = json.loads(read_beside(file, INFORMATION))
        str(information["version"])
    except (ValueError, KeyError, TypeError):
        raise BuildFailed(f"{file} is no base", hint="remove it, and it is built again") from None
    return information


def _version_in_name(file: Path) -> Any:
    return semantic_version.Version(file.name.rpartition("-")[0].rpartition("-")[2])


@contextmanager
def alone(output: Path, name: str) -> Generator[None]:
    """Let one process at a time make a package of this name in a folder."""
    with (output / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
