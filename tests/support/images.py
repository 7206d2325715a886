"""Container images for tests, built by our own builder: made once a machine for what goes into them, imported once an engine.

`glot_image(url)` and `grounds_image(url)` return the name of an image with Python in the engine at `url`.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from firebox.cli.image_building.contract import CONTRACTS, write_programs
from firebox.cli.image_building.debian_image import build_root, read_installation
from firebox.cli.image_building.image_import import open_engine
from tests.conftest import require_tool

SUITE = "bookworm"
CACHE = Path.home() / ".cache" / "firebox-images"
ROOTS_KEPT = 4
"""Each takes 170 MB; older ones are removed."""
LABEL_KEY = "firebox.test.key"


@cache
def glot_image(docker_url: str) -> str:
    """An image that keeps glot-run's contract and runs `python`."""
    return _image("glot", "python", docker_url)


@cache
def grounds_image(docker_url: str) -> str:
    """An image that keeps grounds-exec's contract and runs `python3`: `grounds/exec-python3:latest`."""
    return _image("grounds", "python3", docker_url)


def python_root() -> tuple[Path, str]:
    """A root with Python as a tar, for either contract, and the key that stands for everything in it."""
    require_tool("mmdebstrap")
    key = _key()
    root = CACHE / f"python-{key}.tar"
    with _locked("build"):
        if root.exists():
            root.touch()
        else:
            build_root("python", SUITE, [], root, lambda _line: None)
            for old in sorted(CACHE.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)[ROOTS_KEPT:]:
                old.unlink()
    return root, key


def _image(contract: str, language: str, docker_url: str) -> str:
    root, key = python_root()
    kept = CONTRACTS[contract]
    tag = kept.tag(language)

    async def import_it() -> None:
        async with open_engine(docker_url) as engine:
            async with engine.session.get(f"{engine.base}/images/{tag}/json") as response:
                known = await response.json() if response.ok else {}
            if (known.get("Config", {}).get("Labels") or {}).get(LABEL_KEY) != key:
                changes = [*kept.changes(language), f"LABEL {LABEL_KEY}={key}"]
                await engine.take(root, tag, changes, lambda _sent: None)

    with _locked("import"), ThreadPoolExecutor(1) as thread:
        # In a thread of its own: the caller may be inside an event loop.
        thread.submit(asyncio.run, import_it()).result()
    return tag


def _key() -> str:
    installation = read_installation()
    digest = hashlib.sha256(SUITE.encode())
    for name, content in installation.files.items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    for name, distribution in installation.distributions.items():
        digest.update(f"{name}=={distribution.version}\n".encode())
    with tempfile.TemporaryDirectory() as folder:
        entry = Path(folder, "entry.tar")
        write_programs(entry)
        digest.update(entry.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(what: str) -> Generator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
