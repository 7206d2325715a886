"""A Debian root with some packages and our code in it, made by mmdebstrap from wherever this machine gets its packages."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from firebox.cli.image_building.contract import BOTH, MAKE_READY, write_programs
from firebox.cli.image_building.installation import PLACE, read_installation, write_installation
from firebox.errors import FireboxError

SOURCES = Path("/etc/apt")
PROXY_OPTIONS = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::https::CaInfo")

_LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/lintian/*")
_ROLLING = ("sid", "forky", "unstable", "testing")
_LINES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a root is made of. language: a name that some definition knows; packages: of Debian."""

    language: str
    suite: str
    packages: tuple[str, ...]


def build_root(recipe: Recipe, target: Path, progress: Callable[[str], None]) -> None:
    """Make the root and write it as a tar to `target`, whole or not at all.

    progress: called with a line of words at a time. Raises: FireboxError with what mmdebstrap said last.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        raise FireboxError("mmdebstrap is not installed", hint="apt-get install mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="firebox-image-") as folder:
        own, entry, unfinished = Path(folder, "own.tar"), Path(folder, "entry.tar"), Path(folder, "root.tar")
        write_installation(own, read_installation(), recipe.suite)
        write_programs(entry)
        _run([program, *_arguments(recipe, own, entry), recipe.suite, str(unfinished), *sources(recipe.suite)], progress)
        shutil.move(unfinished, target)


def sources(suite: str) -> list[str]:
    """Give the lines of sources.list for a release, by the mirror that this machine uses; none where it uses none.

    mmdebstrap then takes Debian's own. Source: mmdebstrap(1), "MIRROR".
    """
    mirror, security = "", ""
    for address, suites in _sources_here():
        if any(name.endswith("-security") for name in suites):
            security = security or address
        elif address.rstrip("/").endswith("/debian"):
            mirror = address
            break
    if not mirror:
        return []
    lines = [f"deb {mirror} {suite} main"]
    if suite not in _ROLLING:
        lines.append(f"deb {mirror} {suite}-updates main")
        lines.append(f"deb {security or mirror.rstrip('/') + '-security'} {suite}-security main")
    return lines


def _sources_here() -> Iterator[tuple[str, list[str]]]:
    """Yield address and suites of everything this machine's apt reads, in either format."""
    for file in [SOURCES / "sources.list", *sorted((SOURCES / "sources.list.d").glob("*"))]:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if file.suffix == ".sources":
            for paragraph in text.split("\n\n"):
                fields = dict(line.split(":", 1) for line in paragraph.splitlines() if ":" in line and line[0] not in "# ")
                for address in fields.get("URIs", "").split():
                    yield address, fields.get("Suites", "").split()
        else:
            for line in text.splitlines():
                words = [word for word in line.split() if not word.startswith(("[", "arch=", "signed-by=")) and word != "]"]
                if words[:1] == ["deb"] and len(words) > 2:
                    yield words[1], [words[2]]


def _arguments(recipe: Recipe, own: Path, entry: Path) -> list[str]:
    users = [(each.user, each.uid) for each in BOTH]
    packages = ("python3", *recipe.packages)
    return [
        "--variant=minbase",
        "--mode=auto",
        f"--include={','.join(dict.fromkeys(packages))}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--aptopt={option}" for option in _apt_options()),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
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


def _apt_options() -> list[str]:
    """Give how this machine's apt reaches its mirror; mmdebstrap starts from apt's own defaults."""
    program = shutil.which("apt-config")
    if program is None:
        return []
    done = subprocess.run([program, "dump", *PROXY_OPTIONS], capture_output=True, text=True, check=False)
    return [line.rstrip(";") for line in done.stdout.splitlines() if line.startswith(PROXY_OPTIONS)]


def _run(command: list[str], progress: Callable[[str], None]) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    said: deque[str] = deque(maxlen=_LINES_SHOWN)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as made:
        assert made.stderr is not None  # noqa: S101 - asked for above
        for line in made.stderr:
            words = line.decode(errors="replace").strip()
            if words:
                said.append(words)
                progress(words)
    if made.returncode != 0:
        raise FireboxError(f"mmdebstrap failed with status {made.returncode}", hint="\n        ".join(said))
