"""Install or uninstall a package in a child process that kills itself before a given file operation.

Usage: python -m tests.packages.installing install|uninstall FOLDER PACKAGE MOMENT INDEX

MOMENT 0 is none: then it prints how many there were, and what was installed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

from tests.packages.making import Bench

NAMES = ("mkdir", "rename", "link", "symlink", "remove", "rmdir", "chmod", "chown", "utime", "truncate")
WATCHED = {"open", "fcntl.flock", "subprocess.Popen", *(f"os.{name}" for name in NAMES)}


def main() -> None:
    deed, folder, package, moment, index = sys.argv[1:]
    sys.dont_write_bytecode = True  # writing bytecode would count as a file operation
    bench = Bench(Path(folder), repositories=f"local={index}")
    moments = count(1)

    def hook(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and next(moments) == int(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    async def do_it() -> None:
        entry = await bench.repositories.find(package)
        sys.addaudithook(hook)
        done = await (bench.installer.install(entry) if deed == "install" else bench.installer.uninstall(entry.name)) or []
        print("moments", next(moments) - 1, *[each.id for each in done], flush=True)

    try:
        asyncio.run(do_it())
    except Exception as error:  # noqa: BLE001 - the test needs to see any error
        print("error", type(error).__name__, error, flush=True)


if __name__ == "__main__":
    main()
