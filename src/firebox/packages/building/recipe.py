"""Recipes: strictly validated TOML descriptions of packages. All keys are documented in docs/develop/build-a-package.md."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import semantic_version
from msgspec import Struct, field

from firebox.domain.errors import BuildFailed, InvalidRequest, NotFound
from firebox.packages.versions import is_range
from firebox.runtimes.definition import Definition, check_definition_limits, read_definition

AUTHOR = "Firebox contributors <contributors@firebox.invalid>"
"""Default author."""
MAX_FILE_BYTES = 1 << 20
"""Maximum size of a recipe file: programs and archives come from registries or from the operator."""

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,63}")
_DEBIAN_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?:=[A-Za-z0-9.+:~-]+)?")
_SUITE = re.compile(r"[a-z]{2,20}")
_STEM = re.compile(r"[a-z0-9][a-z0-9_.+#-]*")
_FILE = re.compile(r"[\w][\w.+-]*")
_VERSION = re.compile(r"[\w][\w.+!-]*")
_PYPI_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NPM_NAME = re.compile(r"(?:@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INTEGRITY = re.compile(r"sha512-[A-Za-z0-9+/]{86}==")
_PLACE = re.compile(r"(?:/[\w][\w.+@-]*)+")


class _Download(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package of a registry, unpacked into a folder."""

    name: str
    version: str
    into: str = ""
    """Absolute path; "" means /opt/NAME, without the scope of an npm package."""

    @property
    def place(self) -> str:
        return self.into or f"/opt/{self.name.rpartition('/')[2]}"


class Wheel(_Download, frozen=True, kw_only=True):
    """A wheel from PyPI."""

    file: str
    sha256: str


class Tarball(_Download, frozen=True, kw_only=True):
    """A package from npm, of which the top-level folder is unpacked."""

    integrity: str
    """`sha512-` and base64, as in the registry."""


class Supplied(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file or archive that the operator must supply, because no registry provides it."""

    name: str
    into: str
    hint: str = ""
    """Where to get it."""


class _RecipeFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of recipe.toml."""

    package: str
    summary: str
    author: str = AUTHOR
    """`Full Name <mail>` of the maintainer."""
    provides: list[str]
    version: str
    suite: str
    debian: list[str] = field(default_factory=list[str])
    test: list[str]
    verified: bool = True
    rank: int | None = None
    aliases: list[str] = field(default_factory=list[str])
    run_limits: dict[str, int | str] = field(default_factory=dict[str, int | str])
    """Overrides of the definitions' limits: a variant may take longer to load."""
    notes: str = ""
    pypi: list[Wheel] = field(default_factory=list[Wheel])
    npm: list[Tarball] = field(default_factory=list[Tarball])
    supplied: list[Supplied] = field(default_factory=list[Supplied])


class Recipe(_RecipeFile, frozen=True, kw_only=True):
    """A recipe and its folder, `<package>/<series>/`."""

    folder: Path

    @property
    def series(self) -> str:
        """The version series it builds: "3.13"."""
        return self.folder.name

    @property
    def name(self) -> str:
        """Display name: `python/3.13`."""
        return f"{self.package}/{self.series}"

    @property
    def script(self) -> str:
        """Contents of `build.sh`, "" if there is none."""
        file = self.folder / "build.sh"
        return _text(file) if file.is_file() else ""

    def definitions(self) -> list[Definition]:
        """Read the definitions of its languages; those of the recipe take precedence. Raises: SettingsError, BuildFailed."""
        found = [read_definition(_text(file), str(file)) for file in self._definition_files()]
        for definition in found:
            definition.run_limits.update(self.run_limits)
            check_definition_limits(definition, f"recipe {self.name}")
        return found

    def texts(self) -> dict[str, str]:
        """Read all files of the recipe: relative name -> content. Raises: BuildFailed."""
        found = {"recipe.toml": _text(self.folder / "recipe.toml")}
        found |= {f"runtimes/{file.name}": _text(file) for file in self._definition_files()}
        found |= {"build.sh": self.script} if self.script else {}
        return found | {f"test/{name}": content.decode() for name, content in self.test_files().items()}

    def _definition_files(self) -> list[Path]:
        shipped = Path(str(resources.files("firebox.runtimes") / "definitions"))
        found: list[Path] = []
        for stem in self.provides:
            own, ours = self.folder / "runtimes" / f"{stem}.toml", shipped / f"{stem}.toml"
            file = own if own.is_file() else ours
            if not file.is_file():
                raise BuildFailed(f"recipe {self.name}: {stem}.toml is neither in its runtimes/ nor built in")
            found.append(file)
        return found

    def test_files(self) -> dict[str, bytes]:
        """Read the test program: name -> content, main file first. Raises: BuildFailed."""
        return {name: _text(self.folder / "test" / name).encode() for name in self.test}


def read_recipe(folder: Path) -> Recipe:
    """Read and validate the recipe in a folder. Raises: BuildFailed naming the key and its allowed values."""
    name = f"{folder.parent.name}/{folder.name}"
    try:
        table: dict[str, Any] = tomllib.loads(_text(folder / "recipe.toml"))
        parsed = msgspec.convert(table, _RecipeFile)
    except tomllib.TOMLDecodeError as error:
        raise BuildFailed(f"recipe {name}: recipe.toml is not valid TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise BuildFailed(f"recipe {name}: {error}", hint="see docs/develop/build-a-package.md for all keys") from None
    recipe = Recipe(**{key: getattr(parsed, key) for key in parsed.__struct_fields__}, folder=folder)
    for key, value, allowed in _violations(recipe):
        raise BuildFailed(f"recipe {name}: {key} is {value!r}; allowed: {allowed}")
    recipe.test_files()
    recipe.definitions()
    return recipe


def all_recipes() -> list[Recipe]:
    """Read the built-in recipes, sorted by name and series. Raises: BuildFailed."""
    return [read_recipe(folder) for folder in _folders()]


def find_recipe(name: str, version_range: str = "*") -> Recipe:
    """Find the newest series of a package or language in a range or series. Raises: NotFound, InvalidRequest, BuildFailed."""
    try:
        spec: Any = semantic_version.NpmSpec(version_range.strip() or "*")
    except ValueError:
        raise InvalidRequest(f"{version_range!r} is not a valid version range", hint="examples: *, 3.x, ^3.11, 3.13") from None
    recipes = [read_recipe(folder) for folder in _folders() if folder.parent.name == name]
    recipes = recipes or [recipe for recipe in all_recipes() if name in recipe.provides]
    fitting = [recipe for recipe in recipes if recipe.series == version_range or _can_provide(recipe, spec, version_range)]
    if not fitting:
        raise NotFound("recipe", name if version_range in {"", "*"} else f"{name} {version_range}")
    return max(fitting, key=lambda recipe: _series_key(recipe.series))


def _folders() -> list[Path]:
    files = Path(str(resources.files("firebox")), "recipes").glob("*/*/recipe.toml")
    return sorted((file.parent for file in files), key=lambda folder: (folder.parent.name, _series_key(folder.name)))


def _series_key(series: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", series))


def _can_provide(recipe: Recipe, spec: Any, words: str) -> bool:
    """Check whether the series of a recipe can provide a version in the range."""
    given: Any = semantic_version.NpmSpec(recipe.version)
    try:
        return bool(given.match(semantic_version.Version(words)))
    except ValueError:
        lowest = ".".join(str(number) for number in [*_series_key(recipe.series), 0, 0, 0][:3])
        return bool(spec.match(semantic_version.Version(lowest)))


def _text(file: Path) -> str:
    """Read a file of a recipe. Raises: BuildFailed."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise BuildFailed(f"{file} is larger than {MAX_FILE_BYTES} bytes")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildFailed(f"{file} cannot be read: {error}") from None


def _violations(recipe: Recipe) -> Iterator[tuple[str, object, str]]:
    """Yield key, value and allowed values for every value that is well-typed but invalid."""

    def each(key: str, values: list[str], pattern: re.Pattern[str], allowed: str) -> Iterator[tuple[str, object, str]]:
        yield from ((key, value, allowed) for value in values if not pattern.fullmatch(value))

    if recipe.package != recipe.folder.parent.name:
        yield "package", recipe.package, f"the name of the folder, {recipe.folder.parent.name}"
    yield from each("package", [recipe.package], _PACKAGE, "lower-case letters, digits and _ . + -")
    yield from each("provides", recipe.provides, _STEM, "names of definition files, such as python or c++")
    yield from each("suite", [recipe.suite], _SUITE, "the name of a Debian release")
    yield from each("debian", recipe.debian, _DEBIAN_PACKAGE, "names of Debian packages")
    yield from each("aliases", recipe.aliases, _STEM, "lower-case letters, digits and _ . + # -")
    yield from each("test", recipe.test, _FILE, "names of files in test/")
    for key, values in (("provides", recipe.provides), ("test", recipe.test)):
        if not values:
            yield key, values, "at least one"
    if not is_range(recipe.version):
        yield "version", recipe.version, "a version range such as 3.13.x"
    if not 0 < len(recipe.summary) <= 200 or not recipe.summary.isprintable():
        yield "summary", recipe.summary, "a single line of at most 200 characters"
    if not 0 < len(recipe.author) <= 200 or not recipe.author.isprintable():
        yield "author", recipe.author, "a single line of at most 200 characters, Full Name <mail>"
    for wheel in recipe.pypi:
        yield from each("pypi.name", [wheel.name], _PYPI_NAME, "a distribution name")
        yield from each("pypi.version", [wheel.version], _VERSION, "an exact version")
        yield from each("pypi.sha256", [wheel.sha256], _SHA256, "64 lower-case hexadecimal digits")
        if not _FILE.fullmatch(wheel.file) or not wheel.file.endswith(".whl"):
            yield "pypi.file", wheel.file, "a wheel file name"
    for tarball in recipe.npm:
        yield from each("npm.name", [tarball.name], _NPM_NAME, "a package name")
        yield from each("npm.version", [tarball.version], _VERSION, "an exact version")
        yield from each("npm.integrity", [tarball.integrity], _INTEGRITY, "sha512- and base64")
    yield from each("supplied.name", [each.name for each in recipe.supplied], _FILE, "a file name")
    place = "an absolute path without . and .."
    yield from each("into", [each.place for each in (*recipe.pypi, *recipe.npm)], _PLACE, place)
    yield from each("supplied.into", [each.into for each in recipe.supplied], _PLACE, place)
