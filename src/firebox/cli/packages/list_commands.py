"""`firebox packages list`, `search` and `info`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firebox.cli.completion import offer_packages
from firebox.cli.packages.context import REPOSITORY_ROWS, AsJson, PackageContext, RepositoryName, Sync, run, with_context
from firebox.cli.packages.output_tables import as_details, as_installed, format_size, print_fields, print_json, print_rows, select
from firebox.cli.packages.package_names import compatible, matches, names_argument, read_selector, sort_versions, unknown_package
from firebox.cli.packages.progress import show_progress
from firebox.cli.packages.recipes_command import contains_words, known_recipes, searchable_texts
from firebox.packages.entry import Entry

if TYPE_CHECKING:
    from firebox.packages.building.recipe import Recipe
    from firebox.packages.installed.store import Installed
    from firebox.runtimes.runtime import Runtime

VERSIONS_SHOWN = 5
"""Maximum versions per package in search results."""


@with_context(REPOSITORY_ROWS)
def list_packages(
    context: PackageContext,
    available: Annotated[bool, typer.Option("--available", "-a", help="List the packages in the repositories instead.")] = False,
    repository: RepositoryName = "all",
    sync: Sync = False,
    as_json: AsJson = False,
) -> None:
    """List the installed packages, or with --available those in the repositories.

    Example: `firebox packages list --available`. Several versions of a package can be installed, and requests can use all of
    them. `firebox runtimes` lists the resulting runtimes.
    """
    if available:
        _list_available(context, repository, sync=sync, as_json=as_json)
        return
    installed = context.store.all()
    runtimes, problems = context.store.runtimes()
    if as_json:
        print_json([_with_runtimes(each, runtimes) for each in installed])
    else:
        rows = [
            (
                each.entry.language,
                each.entry.version,
                format_size(each.size_bytes),
                each.entry.repository,
                f"{each.installed_at:%Y-%m-%d}",
                _runtime_words(runtimes, each),
            )
            for each in installed
        ]
        print_rows(("PACKAGE", "VERSION", "SIZE", "FROM", "SINCE", "BRINGS"), rows)
    for problem in problems:
        typer.echo(f"unusable: {problem}", err=True)


@with_context(REPOSITORY_ROWS)
def search(
    context: PackageContext,
    words: Annotated[list[str], typer.Argument(metavar="WORD", help="Parts of a name, alias or summary; all must match.")],
    sync: Sync = False,
    as_json: AsJson = False,
) -> None:
    """Search the repositories, the installed packages and the recipes.

    Example: `firebox packages search node` or `firebox packages search python numpy`.
    """
    with show_progress() as report:
        entries = compatible(run(context.repositories.entries("all", sync=sync, report=report)))
    installed = {package.id for package in context.store.all()}
    everything = {entry.name: entry for entry in (*entries, *(package.entry for package in context.store.all()))}
    recipes = _recipes()
    found = [
        _search_result(name, list(everything.values()), installed, recipes.get(name, []))
        for name in sorted({*recipes, *(entry.language for entry in everything.values())})
        if contains_words(words, _texts(name, recipes.get(name, []), everything.values()))
    ]
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("nothing found; see `firebox packages recipes` and `firebox packages list --available`", err=True)
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


@with_context(REPOSITORY_ROWS)
def info(
    context: PackageContext,
    package: Annotated[str, names_argument("A package; the newest matching version is shown.", offer_packages)],
    repository: RepositoryName = "all",
    as_json: AsJson = False,
) -> None:
    """Show the details of a package: size, checksums, dependencies, author, signature.

    Example: `firebox packages info python@3.13.x`.
    """
    selector = read_selector(package)
    with show_progress() as report:
        entries = compatible(run(context.repositories.entries(repository, report=report)))
    from firebox.packages.versions import group_by_repository

    installed = {each.id: each for each in context.store.all()}
    candidates = {entry.name: entry for entry in (*entries, *(each.entry for each in installed.values() if repository == "all"))}
    found = {entry.version: entry for entry in candidates.values() if matches(selector, entry)}
    recipes = _recipes()
    if not found:
        raise unknown_package(selector, candidates.values(), list(recipes))
    first = {entry.version: entry for entry in group_by_repository(found.values())[0]}
    entry = first[sort_versions(first)[0]]
    there = installed.get(entry.name)
    others = sort_versions(each.version for each in candidates.values() if each.language == entry.language)
    runtimes, _problems = context.store.runtimes() if there else ([], [])
    own_recipes = recipes.get(entry.language, [])
    if as_json:
        details = {
            **as_details(entry),
            "versions": others,
            "recipes": [recipe.series for recipe in own_recipes],
            "installed": None if there is None else _with_runtimes(there, runtimes),
        }
        print_json(details)
        return
    print_fields(_details(entry, there, others, runtimes, own_recipes))


def _list_available(context: PackageContext, repository: str, *, sync: bool, as_json: bool) -> None:
    from firebox.packages.versions import newest_first

    with show_progress() as report:
        entries = compatible(run(context.repositories.entries(repository, sync=sync, report=report)))
    if not context.repositories.names():
        typer.echo("no repository is configured: see docs/operate/packages.md", err=True)
    installed = {package.id for package in context.store.all()}
    if as_json:
        print_json([{**as_details(entry), "installed": entry.name in installed} for entry in entries])
        return
    rows = [
        (
            entry.language,
            entry.version,
            format_size(entry.size_bytes),
            entry.repository,
            "yes" if entry.signature else "",
            "yes" if entry.name in installed else "",
        )
        for entry in sorted(newest_first(entries), key=lambda entry: entry.language)
    ]
    print_rows(("PACKAGE", "VERSION", "SIZE", "REPOSITORY", "SIGNED", "INSTALLED"), rows)


def _recipes() -> dict[str, list[Recipe]]:
    """Read all recipes, by package name, newest series first."""
    found: dict[str, list[Recipe]] = {}
    for recipe in reversed(known_recipes()):
        found.setdefault(recipe.package, []).append(recipe)
    return found


def _texts(name: str, recipes: Sequence[Recipe], entries: Iterable[Entry]) -> list[str]:
    """Collect the searchable texts of a package."""
    texts = [name, *(word for recipe in recipes for word in searchable_texts(recipe))]
    return texts + [f"{entry.author} {entry.version}" for entry in entries if entry.language == name]


def _search_result(name: str, entries: Sequence[Entry], installed: set[str], recipes: Sequence[Recipe]) -> dict[str, Any]:
    own = [entry for entry in entries if entry.language == name]
    return {
        "package": name,
        "versions": sort_versions(entry.version for entry in own),
        "repository": next((entry.repository for entry in own), ""),
        "installed": sorted(entry.version for entry in own if entry.name in installed),
        "recipes": [recipe.series for recipe in recipes],
        "summary": recipes[0].summary if recipes else "",
    }


def _with_runtimes(package: Installed, runtimes: Iterable[Runtime]) -> dict[str, Any]:
    """Convert an installed package and its runtimes to JSON."""
    own = [select(each, "language", "version", "aliases") for each in runtimes if each.installed == package.id]
    return {**as_installed(package), "runtimes": own}


def _runtime_words(runtimes: Iterable[Runtime], package: Installed) -> str:
    """Name the runtimes of a package; the version is omitted if it is the package's own."""
    own = [each for each in runtimes if each.installed == package.id]
    version = package.entry.version
    return ", ".join(each.language if each.version == version else f"{each.language} {each.version}" for each in own)


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
    yield "unpacked", format_size(entry.size_bytes)
    yield "depends on", "\n".join(f"{name} {version_range}" for name, version_range in entry.dependencies.items())
    yield "signed", "yes" if entry.signature else "no"
    yield "checksums", "\n".join(f"{kind} {digits}" for kind, digits in entry.checksums.items())
    yield "built from", entry.buildfile
    yield "download", entry.download
    if there is None:
        yield "installed", "no"
        return
    yield "installed", f"{there.installed_at:%Y-%m-%d %H:%M} UTC, {format_size(there.size_bytes)}, as {_KINDS[there.kind]}"
    yield "needs", ", ".join(there.requires)
    yield "brings", "\n".join(f"{each.language} {each.version}" for each in runtimes if each.installed == there.id)


_KINDS = {"image": "a mounted image", "folder": "an unpacked folder"}
