"""Squashfs images for building: writing from tar members, and reading what later steps need."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from copy import copy
from pathlib import Path

from firebox.domain.errors import BuildFailed
from firebox.packages.building.build_tools import require, run
from firebox.packages.building.layer import Layer
from firebox.packages.installed.store import TREE

COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "6", "-b", "128K")
"""Level 15 takes ten times as long and saves 7 %."""

UNPACK_TIMEOUT_S = 1800.0
MAX_INFORMATION_BYTES = 16 << 20


def write_image(target: Path, beside: Mapping[str, object], full: tarfile.TarFile, layer: Layer) -> None:
    """Write a reproducible image of a layer of `full`. beside: top-level JSON files, name -> value. Raises: BuildFailed."""
    require("mksquashfs")
    command = ["mksquashfs", "-", str(target), "-tar", *COMPRESSION, "-noappend", "-all-root", "-no-xattrs", "-quiet"]
    command += ["-no-progress", "-root-mode", "755"]
    # mksquashfs's timestamp options do not cover the root folder of a tar.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(layer.epoch)}
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=environment) as process:
            assert process.stdin is not None  # noqa: S101 - asked for above
            try:
                with tarfile.open(fileobj=process.stdin, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as tar:
                    _write(tar, beside, full, layer)
                process.stdin.close()
            except BrokenPipeError:
                pass  # mksquashfs reports the reason
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise BuildFailed(f"mksquashfs failed with status {process.returncode}", hint=words[-1500:])


def _write(tar: tarfile.TarFile, beside: Mapping[str, object], full: tarfile.TarFile, layer: Layer) -> None:
    for name, value in beside.items():
        data = json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
        file = tarfile.TarInfo(name)
        file.size, file.mtime = len(data), layer.epoch
        tar.addfile(file, io.BytesIO(data))
    top = tarfile.TarInfo(TREE)
    top.type, top.mode, top.mtime = tarfile.DIRTYPE, 0o755, layer.epoch
    tar.addfile(top)
    for member, content in layer.members:
        placed = copy(member)
        placed.name = f"{TREE}/{member.name}"
        if placed.islnk():
            placed.linkname = f"{TREE}/{placed.linkname}"
        tar.addfile(placed, full.extractfile(content) if content is not None else None)


def read_beside(image: Path, name: str) -> bytes:
    """Read a small top-level file of an image. Raises: BuildFailed, also if it does not exist."""
    content = run(["unsquashfs", "-cat", str(image), name], UNPACK_TIMEOUT_S)
    if len(content) > MAX_INFORMATION_BYTES:
        raise BuildFailed(f"{image.name}: {name} has more than {MAX_INFORMATION_BYTES} bytes")
    return content


def write_tree_as_tar(image: Path, target: Path) -> None:
    """Write the tree of an image as a tar, owned by root. Raises: BuildFailed."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tree-") as folder:
        tree, unfinished = unpack_tree(image, Path(folder, "image")), Path(folder, "tree.tar")
        with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(tree, arcname=".", filter=_owned_by_root)
        unfinished.replace(target)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def unpack_tree(image: Path, folder: Path) -> Path:
    """Unpack the tree of an image below a new folder and return its path. Raises: BuildFailed."""
    run(["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", str(folder), str(image), TREE], UNPACK_TIMEOUT_S)
    return folder / TREE
