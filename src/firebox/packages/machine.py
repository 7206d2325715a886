"""The architecture of this machine, by its Debian name."""

from __future__ import annotations

import platform
from functools import lru_cache

_DEBIAN_NAMES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "i686": "i386",
    "ppc64le": "ppc64el",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "loongarch64": "loong64",
}


@lru_cache(maxsize=1)
def architecture() -> str:
    """Return the Debian name of this machine's architecture ("amd64"). Source: Debian Policy, "Architecture wildcards"."""
    machine = platform.machine().lower()
    return _DEBIAN_NAMES.get(machine, machine)


def fits(wanted: str) -> bool:
    """Check whether a package for this architecture runs here. "" and "all" match every machine."""
    return wanted in {"", "all", architecture()}
