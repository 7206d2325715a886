"""A Debian root with Firebox and the packages of a language, created by mmdebstrap from the apt sources of this machine."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from firebox.cli.image_building.contract import CONTRACTS, SETUP_PROGRAM, write_programs
from firebox.cli.image_building.installation import INSTALL_FOLDER, read_installation, write_installation
from firebox.packages.building.build_tools import require
from firebox.packages.building.debian_root import run_mmdebstrap


def build_root(language: str, suite: str, packages: Iterable[str], target: Path, progress: Callable[[str], None]) -> None:
    """Build the root and write it as a tar to `target`, atomically.

    language: any known name. packages: of Debian. progress: called with each output line.
    Raises: BuildFailed with the last messages of mmdebstrap.
    """
    require("mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="firebox-image-") as folder:
        own, entry, unfinished = Path(folder, "own.tar"), Path(folder, "entry.tar"), Path(folder, "root.tar")
        write_installation(own, read_installation(), suite)
        write_programs(entry)
        run_mmdebstrap(suite, unfinished, _arguments(language, ["python3", *packages], own, entry), progress)
        shutil.move(unfinished, target)


def _arguments(language: str, packages: list[str], own: Path, entry: Path) -> list[str]:
    users = [(each.user, each.uid) for each in CONTRACTS.values()]
    return [
        "--variant=minbase",
        f"--include={','.join(dict.fromkeys(packages))}",
        # Fails on an unknown package before the essential ones are installed.
        f'--extract-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq --simulate install {" ".join(packages)} > /dev/null',
        # Java packages create symlinks there and fail if it is missing.
        '--essential-hook=mkdir -p "$1/usr/share/man/man1"',
        f"--customize-hook=tar-in {own} /",
        f"--customize-hook=tar-in {entry} /",
        *(f"""--customize-hook=echo '{user}:x:{uid}:{uid}::/home/{user}:/bin/sh' >> "$1/etc/passwd\"""" for user, uid in users),
        *(f"""--customize-hook=echo '{user}:x:{uid}:' >> "$1/etc/group\"""" for user, uid in users),
        f'--customize-hook=chroot "$1" /usr/bin/python3 -m compileall -q /{INSTALL_FOLDER}',
        f'--customize-hook=chroot "$1" {SETUP_PROGRAM} {shlex.quote(language)}',
        # The image must not reveal the package sources of this machine.
        '--customize-hook=rm -f "$1/etc/apt/sources.list" "$1/etc/apt/apt.conf.d/99mmdebstrap"',
        '--customize-hook=rm -rf "$1/var/log/apt" "$1/var/log/dpkg.log" "$1/root/.cache"',
    ]
