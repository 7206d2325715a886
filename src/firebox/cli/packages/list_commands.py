"""`firebox packages list`, `search` and `info`: what is installed, what can be, and what is known about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firebox.cli.completion import offer_packages
from firebox.cli.options import ConfigFile, settings_flags
from firebox.cli.packages.context import REPOSITORY_ROWS, AsJson, Parts, RepositoryName, Sync, open_parts, run
from firebox.cli.packages.json_output import as_entry, as_installed, as_runtimes
from firebox.cli.packages.output_tables import print_fields, print_json, print_rows, size_words
from firebox.cli.packages.package_names import matches, newest_first, read_selector, unknown_package, usable
from firebox.cli.packages.progress import show_progress
from firebox.cli.packages.recipes_command import is_about, known_recipes, recipe_words
from firebox.packages.entry import Entry

if TYPE_CHECKING:
    from firebox.packages.building.recipe import Recipe
    from firebox.packages.installed.store import Installed
    from firebox.runtimes.runtime import Runtime

VERSIONS_SHOWN = 5
"""How many versions of a package a search names."""


@settings_flags(REPOSITORY_ROWS)
def list_packages(
    available: Annotated[bool, typer.Option("--available", "-a", help="What repositories have, installed or not.")] = False,
    repository: RepositoryName = "all",
    sync: Sync = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """List the installed packages, or with --available what the repositories have.

    Like `firebox packages list --available`. Several versions of one package may be installed; each is offered to requests.
    `firebox runtimes` lists what can run.
    """
    parts = open_parts(config, flags)
    if available:
        _list_available(parts, repository, sync=sync, as_json=as_json)
        return
    installed = parts.store.all()
    runtimes, problems = parts.store.runtimes()
    if as_json:
        print_json([{**as_installed(each), "runtimes": as_runtimes(runtimes, each)} for each in installed])
    else:
        rows = [
            (
                each.entry.language,
                each.entry.version,
                size_words(each.size_bytes),
                each.entry.repository,
                f"{each.installed_at:%Y-%m-%d}",
                ", ".join(_runtime_words(runtimes, each)),
            )
            for each in installed
        ]
        print_rows(("PACKAGE", "VERSION", "SIZE", "FROM", "SINCE", "BRINGS"), rows)
    for problem in problems:
        typer.echo(f"not usable: {problem}", err=True)


@settings_flags(REPOSITORY_ROWS)
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORD", help="Parts of a name, an alias or a summary; all must fit.")],
    sync: Sync = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Look for packages: in the repositories, among the installed ones and among the recipes.

    Like `firebox packages search node` or `firebox packages search python numpy`.
    """
    parts = open_parts(config, flags)
    with show_progress() as report:
        entries = usable(run(parts.repositories.entries("all", sync=sync, report=report)))
    installed = {package.id for package in parts.store.all()}
    everything = {entry.name: entry for entry in (*entries, *(package.entry for package in parts.store.all()))}
    recipes = _recipes()
    found = [
        _found(name, list(everything.values()), installed, recipes.get(name, []))
        for name in sorted({*recipes, *(entry.language for entry in everything.values())})
        if is_about(words, _texts(name, recipes.get(name, []), everything.values()))
    ]
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("nothing found; `firebox packages recipes` and `firebox packages list --available` show everything", err=True)
        raise typer.Exit(1)
    rows = [
        (
            each["package"],
            ", ".join((each["versions"] or each["recipes"])[:VERSIONS_SHOWN]),
            "installed" if each["installed"] else each["repository"] or "recipe",
            each["summary"],
        )
        for each in found
    ]
    print_rows(("PACKAGE", "VERSIONS", "WHERE", "WHAT"), rows)


@settings_flags(REPOSITORY_ROWS)
def info(
    package: Annotated[
        str,
        typer.Argument(metavar="NAME[@RANGE]", help="A package; of several versions the newest.", autocompletion=offer_packages),
    ],
    repository: RepositoryName = "all",
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Show what is known about a package: size, checksums, what it depends on, who made and who signed it.

    Like `firebox packages info python@3.13.x`.
    """
    parts = open_parts(config, flags)
    selector = read_selector(package)
    with show_progress() as report:
        entries = usable(run(parts.repositories.entries(repository, report=report)))
    from firebox.packages.versions import by_repository

    installed = {each.id: each for each in parts.store.all()}
    candidates = {entry.name: entry for entry in (*entries, *(each.entry for each in installed.values() if repository == "all"))}
    found = {entry.version: entry for entry in candidates.values() if matches(selector, entry)}
    recipes = _recipes()
    if not found:
        known = [(entry.language, entry.version) for entry in candidates.values()]
        raise unknown_package(selector, known, list(recipes))
    first = {entry.version: entry for entry in by_repository(found.values())[0]}
    entry = first[newest_first(first)[0]]
    there = installed.get(entry.name)
    others = newest_first(each.version for each in candidates.values() if each.language == entry.language)
    runtimes, _problems = parts.store.runtimes() if there else ([], [])
    own_recipes = recipes.get(entry.language, [])
    if as_json:
        details = {
            **as_entry(entry),
            "versions": others,
            "recipes": [recipe.series for recipe in own_recipes],
            "installed": None if there is None else {**as_installed(there), "runtimes": as_runtimes(runtimes, there)},
        }
        print_json(details)
        return
    print_fields(_details(entry, there, others, runtimes, own_recipes))


def _list_available(parts: Parts, repository: str, *, sync: bool, as_json: bool) -> None:
    with show_progress() as report:
        entries = usable(run(parts.repositories.entries(repository, sync=sync, report=report)))
    if not parts.repositories.names():
        typer.echo("no repository is set: docs/packages.md says how to get one", err=True)
    installed = {package.id for package in parts.store.all()}
    if as_json:
        print_json([{**as_entry(entry), "installed": entry.name in installed} for entry in entries])
        return
    rows = [
        (
            entry.language,
            entry.version,
            size_words(entry.size_bytes),
            entry.repository,
            "yes" if entry.signature else "",
            "yes" if entry.name in installed else "",
        )
        for entry in _sorted(entries)
    ]
    print_rows(("PACKAGE", "VERSION", "SIZE", "REPOSITORY", "SIGNED", "INSTALLED"), rows)


def _sorted(entries: Sequence[Entry]) -> list[Entry]:
    """By name, of one name the newest first."""
    from firebox.packages.versions import newest_first

    return sorted(newest_first(entries), key=lambda entry: entry.language)


def _recipes() -> dict[str, list[Recipe]]:
    """Read every recipe, by the package's name; of one package the newest series first."""
    found: dict[str, list[Recipe]] = {}
    for recipe in reversed(known_recipes()):
        found.setdefault(recipe.package, []).append(recipe)
    return found


def _texts(name: str, recipes: Sequence[Recipe], entries: Iterable[Entry]) -> list[str]:
    """Gather everything that is known about a package."""
    texts = [name, *(word for recipe in recipes for word in recipe_words(recipe))]
    return texts + [f"{entry.author} {entry.version}" for entry in entries if entry.language == name]


def _found(name: str, entries: Sequence[Entry], installed: set[str], recipes: Sequence[Recipe]) -> dict[str, Any]:
    own = [entry for entry in entries if entry.language == name]
    return {
        "package": name,
        "versions": newest_first(entry.version for entry in own),
        "repository": next((entry.repository for entry in own), ""),
        "installed": sorted(entry.version for entry in own if entry.name in installed),
        "recipes": [recipe.series for recipe in recipes],
        "summary": recipes[0].summary if recipes else "",
    }


def _runtime_words(runtimes: Iterable[Runtime], package: Installed) -> list[str]:
    """Name the runtimes that a package brings; one of its own version without it."""
    return [
        each.language if each.version == package.entry.version else f"{each.language} {each.version}"
        for each in runtimes
        if each.installed == package.id
    ]


def _details(
    entry: Entry, there: Installed | None, versions: Sequence[str], runtimes: Sequence[Runtime], recipes: Sequence[Recipe]
) -> Iterable[tuple[str, str]]:
    yield "package", entry.language
    yield "version", entry.version
    yield "all versions", ", ".join(versions) if len(versions) > 1 else ""
    yield "about", recipes[0].summary if recipes else ""
    yield "repository", entry.repository
    yield "author", entry.author
    yield "architecture", entry.architecture
    yield "unpacked", size_words(entry.size_bytes)
    yield "depends on", "\n".join(f"{name} {version_range}" for name, version_range in entry.dependencies.items())
    yield "signed", "yes" if entry.signature else "no"
    yield "checksums", "\n".join(f"{kind} {digits}" for kind, digits in entry.checksums.items())
    yield "built from", entry.buildfile
    yield "download", entry.download
    if there is None:
        yield "installed", "no"
        return
    yield "installed", f"{there.installed_at:%Y-%m-%d %H:%M} UTC, {size_words(there.size_bytes)}, as {_KINDS[there.kind]}"
    yield "needs", ", ".join(there.requires)
    yield "brings", "\n".join(f"{each.language} {each.version}" for each in runtimes if each.installed == there.id)


_KINDS = {"image": "an image that the kernel mounts", "folder": "an unpacked folder"}
