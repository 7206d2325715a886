"""The package build pipeline: base, full root, layer, runtimes, image, test, index entry."""

from __future__ import annotations

import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from firebox.domain.errors import BuildFailed
from firebox.packages.building.base import Base, find_or_build_base, package_information
from firebox.packages.building.build_tools import BUILD_PROGRAMS, require
from firebox.packages.building.debian_root import INSTALL, KEEP_ARCHIVES, chrooted, hook_variables, keep_archives, run_mmdebstrap
from firebox.packages.building.extras import write_extras
from firebox.packages.building.layer import BUILDING, plan_layer
from firebox.packages.building.probe import FOUND, probe_script, read_probe_results
from firebox.packages.building.recipe import Recipe
from firebox.packages.building.squash import write_image
from firebox.packages.building.untested import UntestedPackage
from firebox.packages.entry import Entry, Progress, Report, no_report
from firebox.packages.file_locks import lock_file
from firebox.packages.installed.metadata import HOST_FIELDS
from firebox.packages.installed.store import INFO, RUNTIMES
from firebox.packages.machine import architecture
from firebox.packages.publishing.publishing import add_to_index, build_file_url, entry_of, with_absolute_url, write_build_file
from firebox.packages.repository.sources import packages_folder
from firebox.packages.versions import is_in_range
from firebox.runtimes.runtime import Runtime
from firebox.settings.settings import Settings


class Built(Struct, frozen=True, kw_only=True):
    """A built package."""

    file: Path
    entry: Entry


def check_programs(recipes: Iterable[Recipe]) -> None:
    """Check that the external programs that these recipes need are installed. Raises: BuildFailed naming all missing ones."""
    require(*BUILD_PROGRAMS, *(["npm"] if any(recipe.npm for recipe in recipes) else []))


def build(
    recipe: Recipe,
    settings: Settings,
    output: Path,
    report: Report = no_report,
    *,
    sources: Mapping[str, Path] | None = None,
    test: Callable[[Built, Path], None] | None = None,
) -> Built:
    """Build the package of a recipe into a folder, and its base if necessary, and announce both in its index.

    sources: supplied file name -> path. test: called with the package and the folder of its base before it is announced; raises
    BuildFailed to reject it. A rejected package is kept for a day: the next build of the same recipe only repeats the test.
    Takes minutes; a failure leaves nothing else behind. Raises: BuildFailed.
    """
    check_programs([recipe])
    output.mkdir(parents=True, exist_ok=True)
    downloads = packages_folder(settings).resolve() / "downloads"

    def progress(words: str) -> None:
        report(Progress(package=recipe.package, step="build", words=words))

    base = find_or_build_base(recipe.suite, output.resolve(), downloads, progress)
    with lock_file(output / f".{recipe.package}.lock"):
        untested = UntestedPackage(output, recipe, base, sources or {})
        entry = untested.find()
        if entry is not None:
            progress("already built: repeating only its test")
        else:
            with tempfile.TemporaryDirectory(dir=output, prefix=".building-") as place:
                image, entry = _build(recipe, base, Path(place), downloads, sources or {}, progress)
                untested.keep(image, entry)
        if test is not None:
            test(Built(file=untested.image, entry=entry), output)
        file = output / unquote(entry.download)
        untested.release(file)
        write_build_file(file, f"firebox packages build {recipe.package}@{recipe.series}", recipe.texts())
        entry = msgspec.structs.replace(entry, buildfile=build_file_url(file))
        add_to_index(output, entry)
    progress(f"{file.name}: {file.stat().st_size >> 20} MiB")
    return Built(file=file, entry=with_absolute_url(entry, output.resolve()))


def _build(
    recipe: Recipe, base: Base, folder: Path, downloads: Path, sources: Mapping[str, Path], progress: Callable[[str], None]
) -> tuple[Path, Entry]:
    """Build the image in `folder`. Return its path and its entry."""
    definitions = recipe.definitions()
    extras, full, archives, found = folder / "extras.tar", folder / "full.tar", folder / "archives", folder / "found"
    archives.mkdir()
    found.mkdir()
    scripts = {"build.sh": recipe.script, "probe.sh": probe_script(definitions, base.epoch)}
    scripts = {name: text for name, text in scripts.items() if text}
    extra_inputs = write_extras(recipe, extras, scripts, sources, downloads, base.epoch, progress)
    hooks = [
        f"--setup-hook=tar-in {base.tree} /",
        *([INSTALL, KEEP_ARCHIVES.format(archives)] if recipe.debian else ["--skip=update"]),
        f"--customize-hook=tar-in {extras} /",
        *map(chrooted, scripts),
        f"--customize-hook=copy-out {FOUND} {found}",
        f'--customize-hook=rm -rf "$1/{BUILDING}" "$1"/var/cache/apt/archives/*.deb',
    ]
    variables = hook_variables(recipe.debian, downloads / "debian", base.epoch)
    began = int(time.time()) - 1
    run_mmdebstrap(recipe.suite, full, ["--variant=custom", *hooks], progress, variables)
    inputs = [*keep_archives(archives, downloads / "debian"), *extra_inputs]
    runtimes = [_apply_recipe(runtime, recipe) for runtime in read_probe_results(found / Path(FOUND).name, definitions)]
    version = runtimes[0].version
    if not any(is_in_range(version, within=recipe.version, as_release=each) for each in (False, True)):
        hint = "another Debian release (suite) may have a matching version"
        raise BuildFailed(f"recipe {recipe.name}: the built version {version} is not in the range {recipe.version}", hint=hint)
    information = package_information(
        recipe.package,
        version,
        recipe.author,
        inputs,
        dependencies={base.name: base.version},
        aliases=recipe.aliases,
        provides=[{"language": each.language, "aliases": each.aliases, "limit_overrides": {}} for each in runtimes],
    )
    progress("writing the image")
    image = folder / f"{recipe.package}-{version}-{architecture()}.squashfs"
    with tarfile.open(full) as whole, tarfile.open(base.tree) as lower:
        layer = plan_layer(whole, lower, began=began, epoch=base.epoch)
        tables: list[dict[str, Any]] = msgspec.to_builtins(runtimes)
        shipped = [{key: value for key, value in table.items() if key not in HOST_FIELDS} for table in tables]
        write_image(image, {INFO: information, RUNTIMES: shipped}, whole, layer)
    return image, entry_of(image, information, layer.size_bytes)


def _apply_recipe(runtime: Runtime, recipe: Recipe) -> Runtime:
    """Apply the recipe to a runtime; a variant gets the package's name as an additional name."""
    return msgspec.structs.replace(
        runtime,
        aliases=tuple(dict.fromkeys([*runtime.aliases, *recipe.aliases])),
        rank=runtime.rank if recipe.rank is None else recipe.rank,
        package=runtime.package if recipe.package == runtime.language else recipe.package,
    )
