"""`firebox packages repos` and `sync`: the repositories of the settings."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from msgspec import Struct

from firebox.cli.options import ConfigFile, settings_flags
from firebox.cli.packages.context import REPOSITORY_ROWS, AsJson, Parts, open_parts, run
from firebox.cli.packages.output_tables import print_json, print_rows
from firebox.cli.packages.progress import show_progress
from firebox.cli.packages.trust_commands import as_key
from firebox.domain.errors import PackageError


class Repository(Struct, frozen=True, kw_only=True):
    """A repository as it stands."""

    name: str
    location: str
    synced_at: datetime | None
    """None: never, or it is a file of this machine, which needs no synchronising."""
    signed_at: datetime | None
    """When the index that was seen last was signed; None for one that no trusted key signed."""
    packages: int | None
    """How many it announces; None when nobody knows."""
    trusted: list[dict[str, Any]]
    """Keys that may sign for it."""
    problem: str = ""


@settings_flags(REPOSITORY_ROWS)
def repos(as_json: AsJson = False, config: ConfigFile = None, **flags: object) -> None:
    """List the repositories: where each is, when its index was fetched, and whether keys are trusted for it.

    Like `firebox packages repos --repositories main=https://packages.example.org/index.yaml`; they come from the setting of that
    name. What `firebox packages build` made is in one called `built`.
    """
    parts = open_parts(config, flags)
    found = run(_look(parts))
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("no repository is set: docs/operate/packages.md says how to get one", err=True)
    rows = [
        (
            each.name,
            "?" if each.packages is None else str(each.packages),
            f"{each.synced_at:%Y-%m-%d %H:%M}" if each.synced_at else "",
            _trust_words(each),
            each.location,
        )
        for each in found
    ]
    print_rows(("NAME", "PACKAGES", "SYNCED", "TRUST", "WHERE"), rows)
    for each in found:
        if each.problem:
            typer.echo(f"{each.name}: {each.problem}", err=True)


@settings_flags(REPOSITORY_ROWS)
def sync(
    repository: Annotated[str, typer.Argument(metavar="NAME", help="One repository; without it every one.")] = "all",
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Fetch the indices of the repositories again, to see what is new.

    Like `firebox packages sync`. An index that is not signed by a trusted key any more, or older than the last one, is refused.
    """
    parts = open_parts(config, flags)
    with show_progress() as report:
        run(parts.repositories.sync(repository, report))
    found = [each for each in run(_look(parts)) if repository in {"all", each.name}]
    if as_json:
        print_json(found)
        return
    for each in found:
        print(f"{each.name}: {each.packages} packages")


async def _look(parts: Parts) -> list[Repository]:
    """Gather what is known, from this machine alone."""
    from firebox.packages.repository.repository_state import StateFolder
    from firebox.packages.repository.signatures import trusted_keys
    from firebox.packages.repository.sources import packages_folder, sources_of

    found: list[Repository] = []
    for source in sources_of(parts.settings):
        packages, problem, synced_at, signed_at = None, "", None, None
        trusted: list[dict[str, Any]] = []
        try:
            trusted = [as_key(each) for each in trusted_keys(parts.settings, source.name)]
            folder = StateFolder(source.name, packages_folder(parts.settings) / "repositories" / source.name)
            state = folder.state()
            if not source.on_network or (state.location == source.location and state.synced_at is not None):
                packages = len(await parts.repositories.entries(source.name))
                state = folder.state()
            synced_at = state.synced_at if source.on_network else None
            signed_at = state.signed_at
        except PackageError as error:
            problem = error.message
        found.append(
            Repository(
                name=source.name,
                location=source.location,
                synced_at=synced_at,
                signed_at=signed_at,
                packages=packages,
                trusted=trusted,
                problem=problem,
            )
        )
    return found


def _trust_words(repository: Repository) -> str:
    number = len(repository.trusted)
    if number:
        return f"{number} key" if number == 1 else f"{number} keys"
    return "" if repository.location.startswith("file:") else "none"
