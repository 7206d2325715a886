"""A Debian root with some packages and our code in it, made by mmdebstrap from wherever this machine gets its packages."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firebox.cli.image_building.contract import BOTH, MAKE_READY, write_programs
from firebox.cli.image_building.installation import PLACE, read_installation, write_installation
from firebox.packages.building.build_tools import require
from firebox.packages.building.debian_root import run_mmdebstrap


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a root is made of. language: a name that some definition knows; packages: of Debian."""

    language: str
    suite: str
    packages: tuple[str, ...]


def build_root(recipe: Recipe, target: Path, progress: Callable[[str], None]) -> None:
    """Make the root and write it as a tar to `target`, whole or not at all.

    progress: called with a line of words at a time. Raises: BuildFailed with what mmdebstrap said last.
    """
    require("mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="firebox-image-") as folder:
        own, entry, unfinished = Path(folder, "own.tar"), Path(folder, "entry.tar"), Path(folder, "root.tar")
        write_installation(own, read_installation(), recipe.suite)
        write_programs(entry)
        run_mmdebstrap(recipe.suite, unfinished, _arguments(recipe, own, entry), progress)
        shutil.move(unfinished, target)


def _arguments(recipe: Recipe, own: Path, entry: Path) -> list[str]:
    users = [(each.user, each.uid) for each in BOTH]
    packages = ("python3", *recipe.packages)
    return [
        "--variant=minbase",
        f"--include={','.join(dict.fromkeys(packages))}",
        # A package that is not there is told of now instead of after the essential ones are installed.
        f'--extract-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq --simulate install {" ".join(packages)} > /dev/null',
        # Java's packages put links there and fail when it is missing.
        '--essential-hook=mkdir -p "$1/usr/share/man/man1"',
        f"--customize-hook=tar-in {own} /",
        f"--customize-hook=tar-in {entry} /",
        *(f"""--customize-hook=echo '{user}:x:{uid}:{uid}::/home/{user}:/bin/sh' >> "$1/etc/passwd\"""" for user, uid in users),
        *(f"""--customize-hook=echo '{user}:x:{uid}:' >> "$1/etc/group\"""" for user, uid in users),
        f'--customize-hook=chroot "$1" /usr/bin/python3 -m compileall -q /{PLACE}',
        f'--customize-hook=chroot "$1" {MAKE_READY} {shlex.quote(recipe.language)}',
        # Where this machine gets its packages is nobody's business who has the image.
        '--customize-hook=rm -f "$1/etc/apt/sources.list" "$1/etc/apt/apt.conf.d/99mmdebstrap"',
        '--customize-hook=rm -rf "$1/var/log/apt" "$1/var/log/dpkg.log" "$1/root/.cache"',
    ]
