"""Package entries as announced by a repository index, and progress reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct, field

Step = Literal["index", "download", "verify", "unpack", "environment", "install", "uninstall", "build"]


class Entry(Struct, frozen=True, kw_only=True):
    """One package of one repository. Published versions never change: different content needs a new version.

    Source: the index schema `ppman-repo-1`. `architecture` is a Firebox extension.
    """

    language: str
    """Package name, without a version."""
    version: str
    """Exact SemVer version."""
    author: str = ""
    """`Full Name <mail>`."""
    checksums: dict[str, str] = field(default_factory=dict[str, str])
    """md5, sha1, sha256 or sha512 -> lower-case hexadecimal digest."""
    dependencies: dict[str, str] = field(default_factory=dict[str, str])
    """Package name -> npm version range."""
    size_bytes: int = 0
    """Unpacked size; 0 if the index omits it."""
    buildfile: str = ""
    """URL of the build file."""
    download: str
    """Absolute http, https or `file:` URL."""
    signature: str = ""
    """Armored detached OpenPGP signature."""
    architecture: str = ""
    """Debian architecture name ("amd64"); "" if the index omits it."""
    repository: str = ""
    """Name of the repository that announces the package."""

    @property
    def name(self) -> str:
        """Human-readable name and version: `python-3.13.5`."""
        return f"{self.language}-{self.version}"


class Progress(Struct, frozen=True, kw_only=True):
    """Progress of one step. total: bytes or steps; 0 if unknown."""

    package: str
    step: Step
    done: int = 0
    total: int = 0
    words: str = ""
    """Status message, such as the latest output line of a build tool."""


Report = Callable[[Progress], None]
"""Progress callback. Called often, from the event loop or a worker thread: must be fast and must not raise."""


def no_report(_progress: Progress) -> None:
    """Discard a progress report."""
