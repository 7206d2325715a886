"""What kind of machine this is, in the words of packages."""

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
    """The machine's architecture as Debian calls it ("amd64"). Source: Debian Policy, "Architecture wildcards"."""
    machine = platform.machine().lower()
    return _DEBIAN_NAMES.get(machine, machine)


def fits(wanted: str) -> bool:
    """Say whether a package for this architecture can be used here; "" is one for every machine."""
    return wanted in {"", "all", architecture()}
