"""The part of Firebox that images contain: a tar of the modules that the programs inside load, to be unpacked at /."""

from __future__ import annotations

import importlib.metadata
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import firebox
from firebox.domain.errors import FireboxError

INSTALL_FOLDER = "opt/firebox"
"""Location of our code in an image, relative to /."""

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


def add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))
