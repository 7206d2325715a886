"""`firebox packages apply`: makes the installed packages those of a spec file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct, field

from firebox.cli import failures
from firebox.cli.options import ConfigFile, settings_flags
from firebox.cli.packages.context import PACKAGE_ROWS, AsJson, Parts, Sync, Yes, agreed, open_parts, read_operators_file, run
from firebox.cli.packages.json_output import as_installed
from firebox.cli.packages.output_tables import print_json, size_words
from firebox.cli.packages.package_names import near_names, usable
from firebox.cli.packages.progress import show_progress
from firebox.cli.packages.uninstall_command import removal_order
from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.packages.entry import Entry, Report

if TYPE_CHECKING:
    from firebox.packages.installed.spec_file import Rule
    from firebox.packages.installed.store import Installed

INTERRUPTED = "what is listed above is done, the rest is as it was; the same command goes on from here"


class Plan(Struct, frozen=True, kw_only=True):
    """What has to be done."""

    install: tuple[Entry, ...] = ()
    """Chosen by the file and not there yet."""
    along: tuple[Entry, ...] = ()
    """What those need besides, and is not there either."""
    remove: tuple[str, ...] = ()
    """Ids, each before what it needs."""
    everything_goes: bool = False
    """True: nothing would be left of what there is."""

    @property
    def empty(self) -> bool:
        return not (self.install or self.remove)


class Outcome(Struct, kw_only=True):
    """What was done of it."""

    installed: list[Installed] = field(default_factory=list["Installed"])
    removed: list[str] = field(default_factory=list[str])
    failed: list[tuple[str, FireboxError]] = field(default_factory=list[tuple[str, FireboxError]])


@settings_flags(PACKAGE_ROWS)
def apply(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The spec file; - for standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="Go on when a line names a package that nobody has.")
    ] = False,
    sync: Sync = False,
    yes: Yes = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Make the installed packages those that a spec file chooses: install what is missing, remove what it does not choose.

    Like `firebox packages apply languages.pps --dry-run`. A line is a glob over names and a version range, as in Piston's spec
    files: `python *` is the newest python, `python 3.11.x` the newest 3.11, `* *` the newest of everything; `!NAME RANGE` takes
    out what lines above chose, `#` begins a comment. What a chosen package needs stays. The plan is shown first, and whoever sits
    at a terminal is asked. Packages are removed only when everything that was to be installed is there.
    """
    from firebox.packages.installed.spec_file import MAX_BYTES, read_rules

    parts = open_parts(config, flags)
    rules = read_rules(read_operators_file(file, MAX_BYTES))
    with show_progress() as report:
        plan = run(_plan(parts, rules, sync=sync, ignore_missing=ignore_missing, report=report))
    if dry_run and as_json:
        print_json({"install": [_named(entry) for entry in (*plan.along, *plan.install)], "remove": plan.remove})
    if not as_json:
        _show(plan)
    if plan.everything_goes and not (yes or dry_run):
        raise InvalidRequest("the file chooses nothing: every package would be removed", where=file, hint="--yes does that")
    if dry_run or (plan.empty and not as_json):
        return
    if not agreed("Go on?", yes=yes or plan.empty):
        raise typer.Exit(1)
    _carry_out(parts, plan, as_json=as_json)


async def _plan(parts: Parts, rules: Sequence[Rule], *, sync: bool, ignore_missing: bool, report: Report) -> Plan:
    from firebox.packages.installed.spec_file import choose

    installed = {each.id: each for each in parts.store.all()}
    known = {entry.name: entry for entry in usable(await parts.repositories.entries("all", sync=sync, report=report))}
    known.update((id_, each.entry) for id_, each in installed.items())
    choice = choose(rules, list(known.values()))
    for rule in choice.unmatched:
        _unmatched(rule, {entry.language for entry in known.values()}, go_on=ignore_missing or not rule.exact)
    there = {id_: each.entry for id_, each in installed.items()}
    planned: dict[str, Entry] = {}
    install = [entry for entry in choice.entries if entry.name not in installed]
    for entry in install:
        for needed in await parts.repositories.plan(entry, [*there.values(), *planned.values()]):
            planned.setdefault(needed.name, needed)
    wanted = {entry.name for entry in choice.entries} | _used_of_installed(planned.values(), list(there.values()))
    stays = _with_requirements(wanted, installed)
    chosen = {entry.name for entry in install}
    return Plan(
        install=tuple(install),
        along=tuple(entry for entry in planned.values() if entry.name not in chosen and entry.name not in installed),
        remove=tuple(removal_order([each for id_, each in installed.items() if id_ not in stays])),
        everything_goes=bool(installed) and not choice.entries,
    )


def _unmatched(rule: Rule, names: Iterable[str], *, go_on: bool) -> None:
    """Complain about a line that chose nothing. Raises: InvalidRequest: a misspelt name must not remove the right one."""
    if go_on:
        typer.echo(f"line {rule.line}: nothing matches {rule.text!r}", err=True)
        return
    near = near_names(rule.pattern, names)
    hint = f"{near}; --ignore-missing goes on without it" if near else "--ignore-missing goes on without it"
    raise InvalidRequest(f"nothing matches {rule.text!r}", where=f"line {rule.line}", hint=hint)


def _used_of_installed(planned: Iterable[Entry], installed: Sequence[Entry]) -> set[str]:
    """Name the installed packages that new ones are going to use."""
    from firebox.packages.versions import matching

    return {
        found[0].name
        for entry in planned
        for name, version_range in entry.dependencies.items()
        if (found := matching([each for each in installed if each.language == name], version_range))
    }


def _with_requirements(wanted: Iterable[str], installed: dict[str, Installed]) -> set[str]:
    """Add what installed packages need, and what that needs."""
    stays: set[str] = set()
    left = list(wanted)
    while left:
        id_ = left.pop()
        if id_ not in stays:
            stays.add(id_)
            left += installed[id_].requires if id_ in installed else ()
    return stays


def _carry_out(parts: Parts, plan: Plan, *, as_json: bool) -> None:
    outcome = Outcome()
    try:
        with show_progress() as report:
            run(_install_and_remove(parts, plan, outcome, report), INTERRUPTED)
    finally:
        if as_json:
            print_json(_as_json(outcome))
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
        typer.echo(f"firebox: not done: {names}{left}; the same command tries again", err=True)
        raise typer.Exit(failures.exit_status(outcome.failed[0][1]))


async def _install_and_remove(parts: Parts, plan: Plan, outcome: Outcome, report: Report) -> None:
    """Install everything, and only then remove: a machine is never left with less than it had for want of a download."""
    installer = parts.installer()
    for entry in plan.install:
        if parts.store.get(entry.name) is not None:
            continue  # another one brought it along
        try:
            outcome.installed += await installer.install(entry, report)
        except FireboxError as error:
            outcome.failed.append((entry.name, error))
    if outcome.failed:
        return
    installed = {each.id: each for each in parts.store.all()}
    stays = _with_requirements([id_ for id_ in installed if id_ not in plan.remove], installed)
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
    for entry in (*plan.along, *plan.install):
        size = size_words(entry.size_bytes)
        source = f" from {entry.repository}" if entry.repository else ""
        print(f"install  {entry.name}{source}{f' ({size})' if size else ''}")
    for id_ in plan.remove:
        print(f"remove   {id_}")
    if plan.empty:
        print("nothing to do: what is installed is what the file says")


def _named(entry: Entry) -> dict[str, Any]:
    return {"package": entry.language, "version": entry.version, "repository": entry.repository, "size_bytes": entry.size_bytes}


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "installed": [as_installed(each) for each in outcome.installed],
        "removed": outcome.removed,
        "failed": [{"package": name, "code": error.code, "message": error.message} for name, error in outcome.failed],
    }
