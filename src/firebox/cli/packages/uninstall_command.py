"""`firebox packages uninstall`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from firebox.cli.completion import offer_installed
from firebox.cli.options import ConfigFile, settings_flags
from firebox.cli.packages.context import PACKAGE_ROWS, AsJson, open_context, run
from firebox.cli.packages.find_package import find_installed
from firebox.cli.packages.output_tables import print_json
from firebox.cli.packages.package_names import NAMES_METAVAR
from firebox.cli.packages.progress import show_progress
from firebox.packages.entry import Report

if TYPE_CHECKING:
    from firebox.packages.installed.store import Installed


@settings_flags(PACKAGE_ROWS)
def uninstall(
    packages: Annotated[
        list[str],
        typer.Argument(
            metavar=NAMES_METAVAR, help="Installed packages; all matching versions are removed.", autocompletion=offer_installed
        ),
    ],
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Uninstall packages, after waiting for active runs (at most `uninstall_wait_ms`).

    Example: `firebox packages uninstall python@3.11.x`. A package that another one requires is not removed: uninstall both, or
    the other one first. Dependencies are kept; `firebox packages apply` removes unneeded ones. A corrupt package is given by its
    id, as shown in the log of `firebox serve`.
    """
    context = open_context(config, flags)
    installed = context.store.all()
    damaged = [word for word in packages if word in context.store.damaged()]
    words = [word for word in packages if word not in damaged]
    chosen = {each.id: each for word in words for each in find_installed(installed, word)}
    removed: list[str] = []

    async def work(report: Report) -> None:
        installer = context.installer()
        for id_ in (*damaged, *removal_order(list(chosen.values()))):
            await installer.uninstall(id_, report)
            removed.append(id_)

    try:
        with show_progress() as report:
            run(work(report), "only the packages listed above were removed")
    finally:
        if as_json:
            print_json(removed)
        for id_ in () if as_json else removed:
            print(f"removed {id_}")


def removal_order(packages: Sequence[Installed]) -> list[str]:
    """Sort packages so that each comes before its dependencies."""
    ordered: list[str] = []
    left = {each.id: each for each in packages}
    while left:
        needed = {requirement for each in left.values() for requirement in each.requires}
        free = [id_ for id_ in left if id_ not in needed] or list(left)
        ordered += free
        for id_ in free:
            del left[id_]
    return ordered
