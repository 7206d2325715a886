"""Lookup of packages by selector, among the installed ones and in the repositories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firebox.cli.packages.context import PackageContext
from firebox.cli.packages.package_names import Selector, compatible, matches, not_installed, read_selector, unknown_package
from firebox.cli.packages.recipes_command import packages_providing, recipe_names
from firebox.domain.errors import NotFound
from firebox.packages.entry import Entry

if TYPE_CHECKING:
    from firebox.packages.installed.store import Installed


async def find_package(context: PackageContext, selector: Selector, repository: str) -> Entry:
    """Find the newest matching package. Falls back to installed packages that no repository has.

    Raises: NotFound with similar names as a hint; and as `Repositories.find`.
    """
    try:
        return await context.repositories.find(selector.name, selector.version_range, repository=repository)
    except NotFound as error:
        if error.kind != "package":
            raise
    known = compatible(await context.repositories.entries(repository))
    for entry in known:
        if entry.name == selector.word:
            return entry
    for package in context.store.all():
        if matches(selector, package.entry):
            return package.entry
    provided_by = packages_providing(selector.name.lower())
    raise unknown_package(selector, [(entry.language, entry.version) for entry in known], recipe_names(), provided_by)


def find_installed(installed: Sequence[Installed], word: str) -> list[Installed]:
    """List the installed packages that match a word. Raises: NotFound with similar names as a hint; InvalidRequest."""
    selector = read_selector(word)
    found = [package for package in installed if matches(selector, package.entry)]
    if not found:
        raise not_installed(selector, [(package.entry.language, package.entry.version) for package in installed])
    return found
