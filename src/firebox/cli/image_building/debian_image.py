"""The root of an image: Debian with the packages of a language, from the apt sources of this machine, and Firebox.

Of Firebox, it has the modules that the programs inside load, in a tar that is unpacked at /.
"""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import firebox
from firebox.cli.image_building.contract import CONTRACTS, INSTALL_FOLDER, SETUP_PROGRAM, add_file, write_programs
from firebox.domain.errors import FireboxError
from firebox.packages.building.build_tools import require
from firebox.packages.building.debian_root import run_mmdebstrap

ENTRY_MODULES = (
    "cli.one_request.rce_runner",
    "cli.one_request.exec_code",
    "cli.image_building.root_setup",
    "engine.unsandboxed",
    "files.archive",
)
"""The entry points; all modules that they import are included."""

NOT_NEEDED = ("firebox", "setuptools", "pip")
"""Excluded distributions: ours is copied file by file, the others are only loaded by the Python startup of this machine."""

PYTHON_OF_SUITE = {"bookworm": (3, 11), "trixie": (3, 13), "forky": (3, 14), "sid": (3, 14)}
"""Python version of each supported Debian release."""

_LOADED = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module("firebox." + name)
import ulid
print(json.dumps({name: module.__file__ for name, module in sys.modules.items() if getattr(module, "__file__", None)}))
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """files: path below PLACE -> content. distributions: third-party packages by name."""

    files: dict[str, bytes]
    distributions: dict[str, importlib.metadata.Distribution]


def build_root(language: str, suite: str, packages: Iterable[str], target: Path, progress: Callable[[str], None]) -> None:
    """Write the root as a tar, atomically. packages: of Debian. progress: called with each output line. Raises: BuildFailed."""
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


def read_installation() -> Installation:
    """Find the modules that the programs in an image load, by importing them. Raises: FireboxError."""
    done = subprocess.run([sys.executable, "-c", _LOADED, *ENTRY_MODULES], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FireboxError("Firebox's own modules cannot be imported", hint=done.stderr.strip()[-500:])
    loaded: dict[str, str] = json.loads(done.stdout)
    package = Path(firebox.__file__).parent
    paths = {Path(file) for name, file in loaded.items() if name.partition(".")[0] == "firebox"}
    paths |= set((package / "runtimes" / "definitions").glob("*.toml")) | {package / "__init__.py"}
    files = {f"firebox/{path.relative_to(package)}": path.read_bytes() for path in sorted(paths)}
    owners = importlib.metadata.packages_distributions()
    tops = {name.partition(".")[0] for name in loaded}
    names = {owner for top in tops for owner in owners.get(top, ()) if owner not in NOT_NEEDED}
    return Installation(files, {name: importlib.metadata.distribution(name) for name in sorted(names, key=str.lower)})


def write_installation(target: Path, installation: Installation, suite: str) -> None:
    """Write the tar. Third-party packages are copied if the release has the same Python version, otherwise pip downloads them.

    Raises: FireboxError if the release is unsupported, or pip fails.
    """
    wanted = PYTHON_OF_SUITE.get(suite)
    if wanted is None:
        raise FireboxError(f"Debian {suite} is not supported", hint="supported: " + ", ".join(PYTHON_OF_SUITE))
    with tarfile.open(target, "w") as tar, tempfile.TemporaryDirectory(prefix="firebox-packages-") as folder:
        for name, content in installation.files.items():
            add_file(tar, f"{INSTALL_FOLDER}/{name}", content)
        if wanted == sys.version_info[:2]:
            others = _installed_files(installation.distributions.values())
        else:
            others = _fetched_files(Path(folder), installation, wanted)
        for name, path in others:
            add_file(tar, f"{INSTALL_FOLDER}/{name}", path.read_bytes())


def _installed_files(distributions: Iterable[importlib.metadata.Distribution]) -> Iterator[tuple[str, Path]]:
    """Yield the installed files, without bytecode and scripts."""
    for distribution in distributions:
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and file.suffix != ".pyc" and path.is_file():
                yield str(file), path


def _fetched_files(folder: Path, installation: Installation, python: tuple[int, int]) -> Iterator[tuple[str, Path]]:
    """Download the same versions for another Python with pip, as configured on this machine."""
    number = f"{python[0]}.{python[1]}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--no-compile"]
    command += ["--target", str(folder), "--only-binary", ":all:", "--python-version", number]
    command += [f"{name}=={distribution.version}" for name, distribution in installation.distributions.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FireboxError(f"pip cannot download the dependencies for Python {number}", hint=done.stderr.strip()[-500:])
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.parts[len(folder.parts)] != "bin":
            yield str(path.relative_to(folder)), path
