"""Bases: the essential part of a Debian release, on which packages of that release are stacked."""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firebox.domain.errors import BuildFailed
from firebox.files.checksum import file_checksum
from firebox.packages.building.debian_root import KEEP_ARCHIVES, keep_archives, run_mmdebstrap
from firebox.packages.building.layer import plan_layer
from firebox.packages.building.recipe import AUTHOR
from firebox.packages.building.squash import read_beside, write_image, write_tree_as_tar
from firebox.packages.file_locks import lock_file
from firebox.packages.installed.store import INFO
from firebox.packages.machine import architecture
from firebox.packages.publishing.publishing import add_file_to_index, add_to_index, entry_of, write_build_file
from firebox.packages.versions import sort_key

INCLUDED = ("tzdata",)
"""Non-essential packages that programs in any language expect."""

BUILD_PLATFORM = "firebox-debian"

UNMERGED = ("buster", "bullseye")
"""Releases that keep /bin and /usr/bin separate unless symlinks exist."""
MERGE = '--setup-hook=for name in bin sbin lib lib64; do mkdir -p "$1/usr/$name"; ln -s "usr/$name" "$1/$name"; done'

_VERSION_ID = re.compile(r"\d+(?:\.\d+)?")
_BASE_FILES = re.compile(r"^Package: base-files\n(?:.+\n)*?Version: (\d+(?:\.\d+)?)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Base:
    """An existing base. tree: its files as a tar; epoch: newest mtime."""

    name: str
    version: str
    tree: Path
    epoch: int


def find_or_build_base(suite: str, output: Path, downloads: Path, progress: Callable[[str], None]) -> Base:
    """Return the newest base of a release in a package folder; build and announce one if there is none. Raises: BuildFailed."""
    name = f"debian-{suite}"
    with lock_file(output / f".{name}.lock"):
        files = list(output.glob(f"{name}-*-{architecture()}.squashfs")) or [_build(suite, name, output, downloads, progress)]
        file = max(files, key=lambda file: sort_key(file.name.rpartition("-")[0].rpartition("-")[2]))
        add_file_to_index(output, file)
    version = _read_version(file)
    made = datetime.strptime(version.rpartition(".")[2], "%Y%m%d").replace(tzinfo=UTC)
    return Base(name, version, _cached_tree(file, downloads / "trees"), int(made.timestamp()))


def _build(suite: str, name: str, output: Path, downloads: Path, progress: Callable[[str], None]) -> Path:
    with tempfile.TemporaryDirectory(dir=output, prefix=".building-") as place:
        folder = Path(place)
        archives, full, unfinished = folder / "archives", folder / "full.tar", folder / "image.squashfs"
        archives.mkdir()
        hooks = ["--skip=essential/unlink", f"--include={','.join(INCLUDED)}", *([MERGE] if suite in UNMERGED else [])]
        hooks += [KEEP_ARCHIVES.format(archives), '--customize-hook=rm -f "$1"/var/cache/apt/archives/*.deb']
        began = int(time.time()) - 1
        run_mmdebstrap(suite, full, ["--variant=essential", *hooks], progress)
        inputs = keep_archives(archives, downloads / "debian")
        with tarfile.open(full) as whole:
            layer = plan_layer(whole, None, began=began, epoch=0)
            release = _release(whole)
            version = f"{release}.{datetime.fromtimestamp(layer.epoch, UTC):%Y%m%d}"
            information = package_information(name, version, AUTHOR, inputs)
            write_image(unfinished, {INFO: information}, whole, layer)
        file = output / f"{name}-{version}-{architecture()}.squashfs"
        unfinished.chmod(0o644)
        write_build_file(file, f"mmdebstrap --variant=essential --include={','.join(INCLUDED)} {suite}", {})
        unfinished.replace(file)
    add_to_index(output, entry_of(file, information, layer.size_bytes))
    progress(f"{file.name}: {file.stat().st_size >> 20} MiB")
    return file


def _release(root: tarfile.TarFile) -> str:
    """Return the release number with one dot: "13.2"; for an unnumbered release, that of its base-files package."""

    def read(name: str) -> str:
        file = root.extractfile(name)
        return file.read().decode(errors="replace") if file is not None else ""

    match = _VERSION_ID.match(read("./etc/debian_version")) or _BASE_FILES.search(read("./var/lib/dpkg/status"))
    if match is None:
        raise BuildFailed("cannot determine the Debian release of the root")
    number = match[match.re.groups]
    return number if "." in number else f"{number}.0"


def _cached_tree(file: Path, folder: Path) -> Path:
    """Return the files of a base as a tar, which is created once and cached."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = folder / f"{file_checksum(file)}.tar"
    if not tree.is_file():
        write_tree_as_tar(file, tree)
    return tree


def _read_version(file: Path) -> str:
    try:
        return str(json.loads(read_beside(file, INFO))["version"])
    except (ValueError, KeyError, TypeError):
        raise BuildFailed(f"{file} is not a base", hint="delete it to rebuild it") from None


def package_information(language: str, version: str, author: str, inputs: list[str], **more: Any) -> dict[str, Any]:
    """Return the contents of a package's pkg-info.json. more: fields that differ from the defaults."""
    defaults: dict[str, Any] = {"dependencies": {}, "build_platform": BUILD_PLATFORM, "aliases": [], "provides": []}
    head = {"language": language, "version": version, "author": author}
    return head | defaults | more | {"limit_overrides": {}, "architecture": architecture(), "inputs": inputs}
