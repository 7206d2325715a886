"""Wheels and tarballs that a recipe pins by hash, downloaded with pip and npm as configured on this machine.

Each is requested as one exact file, and the result is verified here. No downloaded code is run.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

from firebox.domain.errors import BuildFailed
from firebox.packages.building.build_tools import require, run
from firebox.packages.building.recipe import Tarball, Wheel

DOWNLOAD_TIMEOUT_S = 1800.0


def fetch_wheel(wheel: Wheel, downloads: Path, progress: Callable[[str], None]) -> Path:
    """Return the wheel, from the download folder or from pip. Raises: BuildFailed."""
    kept = downloads / "pypi" / wheel.sha256 / wheel.file
    if _sha256(kept) == wheel.sha256:
        return kept
    progress(f"pip: {wheel.file}")
    with _folder(downloads) as folder:
        wanted = folder / "requirements"
        wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
        # The tags below select the target Python; the version that runs pip is irrelevant.
        command += ["--no-cache-dir", "--ignore-requires-python", "--only-binary", ":all:", "--require-hashes", *_tags(wheel)]
        run([*command, "--dest", str(folder), "--requirement", str(wanted)], DOWNLOAD_TIMEOUT_S, folder=folder, label="pip")
        return _keep(folder / wheel.file, kept, right=_sha256(folder / wheel.file) == wheel.sha256, name=wheel.name)


def fetch_tarball(tarball: Tarball, downloads: Path, progress: Callable[[str], None]) -> Path:
    """Return the tarball, from the download folder or from npm. Raises: BuildFailed."""
    wanted = base64.b64decode(tarball.integrity.removeprefix("sha512-"))
    kept = downloads / "npm" / f"{wanted.hex()[:64]}.tgz"
    if _sha512(kept) == wanted:
        return kept
    npm = require("npm")
    progress(f"npm: {tarball.name} {tarball.version}")
    with _folder(downloads) as folder:
        command = [npm, "pack", f"{tarball.name}@{tarball.version}", "--json", "--ignore-scripts", "--loglevel=error"]
        command += ["--pack-destination", str(folder), "--cache", str(folder / "cache"), "--no-update-notifier"]
        answer = run(command, DOWNLOAD_TIMEOUT_S, folder=folder, environment={**os.environ, "npm_config_progress": "false"})
        try:
            files = [str(each["filename"]) for each in json.loads(answer)]
        except (ValueError, TypeError, KeyError):
            files = []
        found = next(iter(folder.glob("*.tgz")), folder / (files[0] if files else "nothing"))
        return _keep(found, kept, right=_sha512(found) == wanted, name=tarball.name)


def _tags(wheel: Wheel) -> list[str]:
    """Return pip options that select exactly this wheel, independent of the Python of this machine.

    Source: Python packaging, "Binary distribution format", "File name convention".
    """
    *_, pythons, abis, platforms = wheel.file.removesuffix(".whl").split("-")
    words: list[str] = []
    python = pythons.split(".")[-1]
    words += ["--implementation", python[:2], "--python-version", python[2:] if len(python) > 3 else python[2:] + ".0"]
    for abi in abis.split("."):
        words += ["--abi", abi]
    for platform in platforms.split("."):
        words += ["--platform", platform]
    return words


@contextlib.contextmanager
def _folder(downloads: Path) -> Generator[Path]:
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".fetching-") as folder:
        yield Path(folder)


def _keep(found: Path, kept: Path, *, right: bool, name: str) -> Path:
    if not right:
        what = "does not match the hash in the recipe" if found.is_file() else "was not downloaded"
        raise BuildFailed(f"{name}: {found.name} {what}", hint="the registry changed the file, or the recipe is wrong")
    kept.parent.mkdir(parents=True, exist_ok=True)
    found.replace(kept)
    return kept


def _sha256(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sha512(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha512").digest()
