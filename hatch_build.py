"""Compile the native launcher when a wheel is built; the wheel is for the processor that the launcher is for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from scripts import build_native
else:
    # By its folder: `scripts` is a name that other packages have, too.
    sys.path.insert(0, str(Path(__file__).resolve().parent / "scripts"))
    import build_native


class NativeLauncher(BuildHookInterface[Any]):
    def dependencies(self) -> list[str]:
        """Return the package of a compiler where there is no other."""
        try:
            build_native.find_compiler(target=_target(), with_zig=False)
        except build_native.BuildError:
            return ["ziglang>=0.14"]
        return []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        target = _target()
        # That of another processor does not take the place of the one that runs here.
        output = build_native.BUILD / target / build_native.EXECUTABLE.name if target else build_native.EXECUTABLE
        executable = build_native.build(output, target=target)
        build_data["pure_python"] = False
        build_data["tag"] = build_native.wheel_tag(executable)
        if version != "editable":
            build_data["force_include"][str(executable)] = "firebox/sandbox/firebox-launcher"


def _target() -> str:
    """Return what is compiled for, such as "aarch64-linux-musl"; "" for this machine."""
    return os.environ.get("FIREBOX_TARGET", "")
