"""`firebox packages repos` and `sync`: show and update the repositories."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from msgspec import Struct, field

from firebox.cli.packages.context import REPOSITORY_ROWS, AsJson, PackageContext, run, with_context
from firebox.cli.packages.output_tables import print_json, print_rows
from firebox.cli.packages.progress import show_progress
from firebox.cli.packages.trust_commands import as_key
from firebox.domain.errors import PackageError


class Repository(Struct, kw_only=True):
    """The state of a repository."""

    name: str
    location: str
    synced_at: datetime | None = None
    """None: never, or it is a local file, which needs no synchronization."""
    signed_at: datetime | None = None
    """Signature time of the latest index; None if it has no trusted signature."""
    packages: int | None = None
    """Number of packages; None if unknown."""
    trusted: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The trusted keys."""
    problem: str = ""


@with_context(REPOSITORY_ROWS)
def repos(context: PackageContext, as_json: AsJson = False) -> None:
    """List the repositories: location, time of the last sync, and trusted keys.

    Example: `firebox packages repos --repositories main=https://packages.example.org/index.yaml`. Repositories come from the
    setting `repositories`; local builds are in the repository `built`.
    """
    found = run(_repository_states(context))
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("no repository is configured: see docs/operate/packages.md", err=True)
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


@with_context(REPOSITORY_ROWS)
def sync(
    context: PackageContext,
    repository: Annotated[str, typer.Argument(metavar="NAME", help="A repository. Default: all of them.")] = "all",
    as_json: AsJson = False,
) -> None:
    """Fetch the repository indexes again.

    Example: `firebox packages sync`. An index that lost its trusted signature, or is older than the last one, is rejected.
    """
    with show_progress() as report:
        run(context.repositories.sync(repository, report))
    found = [each for each in run(_repository_states(context)) if repository in {"all", each.name}]
    if as_json:
        print_json(found)
        return
    for each in found:
        print(f"{each.name}: {each.packages} packages")


async def _repository_states(context: PackageContext) -> list[Repository]:
    """Collect the repository states without network access."""
    from firebox.packages.repository.repository_state import StateFolder
    from firebox.packages.repository.signatures import trusted_keys
    from firebox.packages.repository.sources import read_sources

    found: list[Repository] = []
    for source in read_sources(context.settings):
        repository = Repository(name=source.name, location=source.location)
        found.append(repository)
        try:
            repository.trusted = [as_key(each) for each in trusted_keys(context.settings, source.name)]
            folder = StateFolder(context.settings, source.name)
            state = folder.state()
            if not source.on_network or (state.location == source.location and state.synced_at is not None):
                repository.packages = len(await context.repositories.entries(source.name))
                state = folder.state()
            repository.synced_at = state.synced_at if source.on_network else None
            repository.signed_at = state.signed_at
        except PackageError as error:
            repository.problem = error.message
    return found


def _trust_words(repository: Repository) -> str:
    number = len(repository.trusted)
    if number:
        return f"{number} key" if number == 1 else f"{number} keys"
    return "" if repository.location.startswith("file:") else "none"
