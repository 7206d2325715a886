"""The final step of a build: run the recipe's test program on the new package in a sandbox."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from firebox.domain.errors import BuildFailed
from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Finished, Job, Result
from firebox.engine.executor import LocalExecutor
from firebox.packages.building.squash import read_beside, unpack_tree
from firebox.packages.entry import Progress, Report
from firebox.packages.installed.store import RUNTIMES
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.sandbox.launcher.squashfs_support import cannot_mount
from firebox.settings.settings import Settings

if TYPE_CHECKING:
    from firebox.packages.building.build import Built
    from firebox.packages.building.recipe import Recipe

EXPECTED = (b"OK", b'"OK"')
"""With or without a newline, since some languages do not add one. The second form is how Nix prints a string."""

LIMITS = LimitRequest(wall_ms=300_000, cpu_ms=300_000)
"""Limits per stage, instead of client limits: the machine is busy, its disk cache is cold, and the build took minutes."""

_SHOWN = 1000


def run_smoke_test(recipe: Recipe, built: Built, settings: Settings, report: Report, folder: Path) -> None:
    """Run a recipe's test program with its package. folder: of the packages it depends on. Raises: BuildFailed, SandboxError."""
    report(Progress(package=recipe.package, step="build", words="running the test program"))
    runtime = msgspec.json.decode(read_beside(built.file, RUNTIMES), type=list[Runtime])[0]
    with _layers(built, folder) as layers:
        placed = msgspec.structs.replace(runtime, layers=layers, on_host=False, mounts=())
        result = asyncio.run(_run(recipe, placed, settings))
    stage = result.run or result.compile
    if result.run is None or result.verdict != "ok" or result.run.stdout.strip() not in EXPECTED:
        output = b"".join(chunk.data for chunk in stage.chunks)[-_SHOWN:].decode(errors="replace") if stage is not None else ""
        message = f"{built.entry.name}: the test program did not print OK: {result.verdict} {result.reason}"
        raise BuildFailed(message.rstrip(), hint=output.strip())


async def _run(recipe: Recipe, runtime: Runtime, settings: Settings) -> Result:
    files = tuple(File(name, content) for name, content in recipe.test_files().items())
    job = Job(
        language=runtime.language, version=runtime.version, files=files, cache="none", compile_limits=LIMITS, run_limits=LIMITS
    )
    async with LocalExecutor(_without_maxima(settings), Registry([runtime])) as executor, executor.submit(job) as running:
        events = [event async for event in running.events()]
    assert isinstance(events[-1], Finished)  # noqa: S101 - it is always the last one
    return events[-1].result


def _without_maxima(settings: Settings) -> Settings:
    """Return a copy of the settings without maximum limits."""
    limits = {name: 0 if name.startswith("max_") else value for name, value in settings.limits.items()}
    return msgspec.structs.replace(settings, limits=limits, limit_overrides={}, warnings=())


@contextmanager
def _layers(built: Built, folder: Path) -> Generator[tuple[str, ...]]:
    """Yield the layers of the package's root, unpacked if images cannot be mounted. folder: of the dependencies."""
    needed = built.entry.dependencies.items()
    images = [built.file, *(next(folder.glob(f"{name}-{version}-*.squashfs")) for name, version in needed)]
    if not cannot_mount():
        yield tuple(str(image.resolve()) for image in images)
        return
    with tempfile.TemporaryDirectory(prefix="firebox-try-") as place:
        yield tuple(str(unpack_tree(image, Path(place, str(number)))) for number, image in enumerate(images))
