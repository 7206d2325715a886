"""`firebox packages apply`: install and remove packages to match a spec file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct, field

from firebox.cli import failures
from firebox.cli.packages.context import (
    PACKAGE_ROWS,
    AsJson,
    PackageContext,
    Sync,
    Yes,
    confirm,
    read_file_or_stdin,
    run,
    with_context,
)
from firebox.cli.packages.install_command import removal_order
from firebox.cli.packages.output_tables import as_entry, as_installed, format_size, print_json
from firebox.cli.packages.package_names import compatible, suggest_names
from firebox.cli.packages.progress import show_progress
from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.packages.entry import Entry, Report

if TYPE_CHECKING:
    from firebox.packages.installed.spec_file import Rule
    from firebox.packages.installed.store import Installed

INTERRUPTED = "only the changes listed above were made; run the command again to continue"


class Plan(Struct, frozen=True, kw_only=True):
    """The required changes."""

    install: tuple[Entry, ...] = ()
    """Selected packages that are not installed."""
    dependencies: tuple[Entry, ...] = ()
    """Their missing dependencies."""
    remove: tuple[str, ...] = ()
    """Ids, dependents first."""
    removes_everything: bool = False
    """Whether no installed package would be left."""

    @property
    def empty(self) -> bool:
        return not (self.install or self.remove)


class Outcome(Struct, kw_only=True):
    """The changes made."""

    installed: list[Installed] = field(default_factory=list["Installed"])
    removed: list[str] = field(default_factory=list[str])
    failed: list[tuple[str, FireboxError]] = field(default_factory=list[tuple[str, FireboxError]])


@with_context(PACKAGE_ROWS)
def apply(
    context: PackageContext,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The spec file; - for standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would change.")] = False,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="Continue if a line names an unknown package.")
    ] = False,
    sync: Sync = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Install and remove packages to match a spec file.

    Example: `firebox packages apply languages.pps --dry-run`. Each line is a glob over package names and a version range, as in
    Piston's spec files: `python *` is the newest python, `python 3.11.x` the newest 3.11, `* *` the newest version of every
    package. `!NAME RANGE` excludes packages selected above; `#` starts a comment. Dependencies are kept. The plan is printed
    first, and confirmed on a terminal. Packages are removed only after all installations have succeeded.
    """
    from firebox.packages.installed.spec_file import MAX_BYTES, read_rules

    rules = read_rules(read_file_or_stdin(file, MAX_BYTES))
    with show_progress() as report:
        plan = run(_plan(context, rules, report, sync=sync, ignore_missing=ignore_missing))
    if dry_run and as_json:
        install = [as_entry(entry, "repository", "size_bytes") for entry in (*plan.dependencies, *plan.install)]
        print_json({"install": install, "remove": plan.remove})
    if not as_json:
        _show(plan)
    if plan.removes_everything and not (yes or dry_run):
        message = "the file selects no packages: every package would be removed"
        raise InvalidRequest(message, where=file, hint="use --yes to remove them")
    if dry_run or (plan.empty and not as_json):
        return
    confirm("Continue?", yes=yes or plan.empty)
    _apply(context, plan, as_json=as_json)


async def _plan(context: PackageContext, rules: Sequence[Rule], report: Report, *, sync: bool, ignore_missing: bool) -> Plan:
    from firebox.packages.installed.spec_file import select_packages

    installed = {each.id: each for each in context.store.all()}
    known = {entry.name: entry for entry in compatible(await context.repositories.entries("all", sync=sync, report=report))}
    there = [each.entry for each in installed.values()]
    known |= {entry.name: entry for entry in there}
    selection = select_packages(rules, list(known.values()))
    for rule in selection.unmatched:
        _unmatched(rule, {entry.language for entry in known.values()}, skip=ignore_missing or not rule.exact)
    planned: list[Entry] = []
    install = [entry for entry in selection.entries if entry.name not in installed]
    for entry in install:
        planned += await context.repositories.plan(entry, [*there, *planned])
    wanted = {entry.name for entry in selection.entries}
    stays = _with_dependencies(wanted | _reused_packages(planned, there), installed)
    return Plan(
        install=tuple(install),
        dependencies=tuple(entry for entry in planned if entry.name not in wanted),
        remove=tuple(removal_order([each for id_, each in installed.items() if id_ not in stays])),
        removes_everything=bool(installed) and not selection.entries,
    )


def _unmatched(rule: Rule, names: Iterable[str], *, skip: bool) -> None:
    """Report a rule that matches nothing. Raises: InvalidRequest, because a typo must not remove the intended package."""
    if skip:
        typer.echo(f"line {rule.line}: nothing matches {rule.text!r}", err=True)
        return
    hint = "; ".join(filter(None, [suggest_names(rule.pattern, names), "--ignore-missing skips it"]))
    raise InvalidRequest(f"nothing matches {rule.text!r}", where=f"line {rule.line}", hint=hint)


def _reused_packages(planned: Iterable[Entry], installed: Sequence[Entry]) -> set[str]:
    """Return the installed packages that the planned ones will depend on."""
    from firebox.packages.versions import matching

    return {
        found[0].name
        for entry in planned
        for name, version_range in entry.dependencies.items()
        if (found := matching([each for each in installed if each.language == name], version_range))
    }


def _with_dependencies(wanted: Iterable[str], installed: dict[str, Installed]) -> set[str]:
    """Add the transitive dependencies among the installed packages."""
    stays: set[str] = set()
    left = list(wanted)
    while left:
        id_ = left.pop()
        if id_ not in stays:
            stays.add(id_)
            left += installed[id_].requires if id_ in installed else ()
    return stays


def _apply(context: PackageContext, plan: Plan, *, as_json: bool) -> None:
    outcome = Outcome()
    try:
        with show_progress() as report:
            run(_install_and_remove(context, plan, outcome, report), INTERRUPTED)
    finally:
        if as_json:
            failed = [{"package": name, "code": error.code, "message": error.message} for name, error in outcome.failed]
            installed = [as_installed(each) for each in outcome.installed]
            print_json({"installed": installed, "removed": outcome.removed, "failed": failed})
        else:
            for each in outcome.installed:
                print(f"installed {each.id}")
            for id_ in outcome.removed:
                print(f"removed {id_}")
    for _name, error in outcome.failed:
        failures.report(error)
    if outcome.failed:
        names = ", ".join(name for name, _ in outcome.failed)
        left = "; nothing was removed" if plan.remove and not outcome.removed else ""
        typer.echo(f"firebox: failed: {names}{left}; run the command again to retry", err=True)
        raise typer.Exit(failures.exit_status(outcome.failed[0][1]))


async def _install_and_remove(context: PackageContext, plan: Plan, outcome: Outcome, report: Report) -> None:
    """Install everything first, then remove: a failed download must not leave fewer packages than before."""
    installer = context.installer()
    for entry in plan.install:
        if context.store.get(entry.name) is not None:
            continue  # installed as a dependency of another package
        try:
            outcome.installed += await installer.install(entry, report)
        except FireboxError as error:
            outcome.failed.append((entry.name, error))
    if outcome.failed:
        return
    installed = {each.id: each for each in context.store.all()}
    stays = _with_dependencies([id_ for id_ in installed if id_ not in plan.remove], installed)
    for id_ in plan.remove:
        if id_ in stays or id_ not in installed:
            continue
        try:
            await installer.uninstall(id_, report)
        except FireboxError as error:
            outcome.failed.append((id_, error))
        else:
            outcome.removed.append(id_)


def _show(plan: Plan) -> None:
    for entry in (*plan.dependencies, *plan.install):
        size = format_size(entry.size_bytes)
        source = f" from {entry.repository}" if entry.repository else ""
        print(f"install  {entry.name}{source}{f' ({size})' if size else ''}")
    for id_ in plan.remove:
        print(f"remove   {id_}")
    if plan.empty:
        print("nothing to do: the installed packages match the file")
