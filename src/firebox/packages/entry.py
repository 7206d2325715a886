"""A package as an index announces it, and the words about what happens to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct, field

Step = Literal["index", "download", "verify", "unpack", "environment", "install", "uninstall", "build"]


class Entry(Struct, frozen=True, kw_only=True):
    """One package of one repository. Nobody changes it: another content has another version.

    Source: the index schema `ppman-repo-1`; `architecture` is ours.
    """

    language: str
    """What it is called; no version in it."""
    version: str
    """An exact SemVer."""
    author: str = ""
    """`Full Name <mail>`."""
    checksums: dict[str, str] = field(default_factory=dict[str, str])
    """md5, sha1, sha256 or sha512 -> lower-case hexadecimal digits."""
    dependencies: dict[str, str] = field(default_factory=dict[str, str])
    """Name -> version range, as npm spells it."""
    size_bytes: int = 0
    """Unpacked; 0 when the index does not say."""
    buildfile: str = ""
    """URL of what it was built from."""
    download: str
    """Absolute URL (http, https), or `file:` and an absolute path."""
    signature: str = ""
    """Armored, detached."""
    architecture: str = ""
    """As Debian calls it ("amd64"); "" when the index does not say."""
    repository: str = ""
    """Name of the repository that announces it."""

    @property
    def name(self) -> str:
        """What people call it: `python-3.13.5`."""
        return f"{self.language}-{self.version}"


class Progress(Struct, frozen=True, kw_only=True):
    """How far something is. total: bytes or steps; 0 when unknown."""

    package: str
    step: Step
    done: int = 0
    total: int = 0
    words: str = ""
    """A line of what a tool says meanwhile."""


Report = Callable[[Progress], None]
"""Called often, from the event loop or from a worker thread; must be quick and must not raise."""


def no_report(_progress: Progress) -> None:
    """Tell nobody."""
