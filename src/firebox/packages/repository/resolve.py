"""Which packages an installation takes: a set in which every dependency is met, found by resolvelib, in an order that works."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import resolvelib
from resolvelib.resolvers import RequirementInformation, Result

from firebox.domain.errors import DependencyConflict
from firebox.packages.entry import Entry
from firebox.packages.machine import fits
from firebox.packages.repository.repository_state import same_content
from firebox.packages.repository.sources import BUILT
from firebox.packages.versions import allows, newest_first

MOST_ROUNDS = 500
MOST_PACKAGES = 100
"""In one plan."""
MOST_CANDIDATES = 100
"""Versions of one package that are tried, the newest ones."""

_OPERATORS = {"", BUILT}
"""Where packages come from that the operator brought in himself."""


class Offers:
    """What every repository has, in the order of the settings."""

    def __init__(self, repositories: Mapping[str, Iterable[Entry]]) -> None:
        self._by_repository: dict[str, dict[str, list[Entry]]] = {}
        self._owners: dict[str, str] = {}
        for repository, entries in repositories.items():
            names = self._by_repository.setdefault(repository, {})
            for entry in entries:
                names.setdefault(name_of(entry), []).append(entry)
                self._owners.setdefault(name_of(entry), repository)

    def everything(self) -> list[Entry]:
        """What the meta-repository has: every version of every name, in the order of the repositories.

        One version that several have is the first one's, unless that is for other machines only.
        """
        found: list[Entry] = []
        taken: set[tuple[str, str]] = set()
        for names in self._by_repository.values():
            own = [entry for entries in names.values() for entry in entries if (name_of(entry), entry.version) not in taken]
            taken |= {(name_of(entry), entry.version) for entry in own if fits(entry.architecture)}
            found += own
        return found

    def owner(self, name: str) -> str | None:
        """The repository that a name belongs to."""
        return self._owners.get(name)

    def of(self, name: str, repository: str) -> list[list[Entry]]:
        """What may stand for a name that a package of this repository asks for: its own repository's, then the owner's."""
        places = dict.fromkeys(place for place in (repository, self._owners.get(name)) if place in self._by_repository)
        return [found for place in places if (found := self._by_repository[str(place)].get(name))]


class Requirement(NamedTuple):
    """One package asks for another. requirer: None for the package that is to be installed."""

    name: str
    version_range: str
    requirer: Entry | None

    @property
    def words(self) -> str:
        return f"{self.requirer.name} wants {self.name} {self.version_range}" if self.requirer else f"{self.name} is asked for"


def plan(entry: Entry, installed: Sequence[Entry], offers: Offers) -> list[Entry]:
    """List what has to be installed for an entry: dependencies first, the entry last, nothing that is there already.

    Installed versions are preferred, then those of the requiring package's own repository, then the newest.
    Raises: DependencyConflict naming those who disagree, or the circle.
    """
    provider = _Provider(entry, installed, offers)
    resolver: Any = resolvelib.Resolver(provider, resolvelib.BaseReporter())
    try:
        root = Requirement(name_of(entry), entry.version, None)
        result: Result[Requirement, Entry, str] = resolver.resolve([root], max_rounds=MOST_ROUNDS)
    except resolvelib.ResolutionTooDeep:
        raise DependencyConflict(f"no set of packages was found in which {entry.name} has all that it depends on") from None
    except resolvelib.ResolutionError as error:
        raise _conflict(entry, getattr(error, "causes", ()), provider) from None
    there = {each.name: each for each in installed}
    missing: list[Entry] = []
    for each in _in_order(entry, result.mapping):
        present = there.get(each.name)
        if present is None:
            missing.append(each)
        elif not same_content(present.checksums, each.checksums):
            _refuse_taken(each, present, entry)
    return missing


def name_of(entry: Entry) -> str:
    """What a package is known by among others: its language, however that is capitalised."""
    return entry.language.lower()


class _Provider(resolvelib.AbstractProvider[Requirement, Entry, str]):
    """What resolvelib asks: which candidates there are, what they require."""

    def __init__(self, entry: Entry, installed: Sequence[Entry], offers: Offers) -> None:
        self._entry = entry
        self._offers = offers
        self._installed: dict[str, list[Entry]] = {}
        for each in installed:
            self._installed.setdefault(name_of(each), []).append(each)

    def identify(self, requirement_or_candidate: Requirement | Entry) -> str:
        if isinstance(requirement_or_candidate, Requirement):
            return requirement_or_candidate.name
        return name_of(requirement_or_candidate)

    def get_preference(
        self,
        identifier: str,
        resolutions: Mapping[str, Entry],  # noqa: ARG002 - resolvelib passes these by name
        candidates: Mapping[str, Iterator[Entry]],
        information: Mapping[str, Iterator[RequirementInformation[Requirement, Entry]]],  # noqa: ARG002
        backtrack_causes: Sequence[RequirementInformation[Requirement, Entry]],
    ) -> tuple[bool, int, str]:
        """Decide those first that disagree, then those with the fewest possibilities."""
        troubled = any(cause.requirement.name == identifier for cause in backtrack_causes)
        return not troubled, sum(1 for _ in candidates[identifier]), identifier

    def find_matches(
        self,
        identifier: str,
        requirements: Mapping[str, Iterator[Requirement]],
        incompatibilities: Mapping[str, Iterator[Entry]],
    ) -> list[Entry]:
        wanted = list(requirements[identifier])
        refused = list(incompatibilities[identifier])
        possible = [self._entry] if identifier == name_of(self._entry) else self.possible(wanted)
        left = [each for each in possible if each not in refused]
        found = [each for each in left if all(allows(asked.version_range, version=each.version) for asked in wanted)]
        return (found or [each for each in left if all(_in_range(each, asked) for asked in wanted)])[:MOST_CANDIDATES]

    def is_satisfied_by(self, requirement: Requirement, candidate: Entry) -> bool:
        return _in_range(candidate, requirement)

    def get_dependencies(self, candidate: Entry) -> list[Requirement]:
        return [Requirement(name.lower(), wanted, candidate) for name, wanted in sorted(candidate.dependencies.items())]

    def possible(self, requirements: Sequence[Requirement]) -> list[Entry]:
        """List what may stand for a name that all of these ask for, the preferred first, whatever its version."""
        found = newest_first(self._installed.get(requirements[0].name, []))
        for asked in requirements:
            for offered in self._offers.of(asked.name, _repository(asked)):
                found += [each for each in newest_first(offered) if fits(each.architecture) and each not in found]
        return [each for each in found if all(self._may_stand_for(each, asked) for asked in requirements)]

    def _may_stand_for(self, candidate: Entry, asked: Requirement) -> bool:
        """Say whether a package may be used for this requirement, going by where it is from.

        From where it is asked for, from the repository that the name belongs to, from the operator's own hands: or, to be
        installed already, with the same content. To have been installed once gives a stranger no name that belongs to others.
        """
        own, owner = _repository(asked), self._offers.owner(asked.name)
        if candidate.repository in {own, *_OPERATORS} or owner in {None, candidate.repository}:
            return True
        offered = [each for entries in self._offers.of(asked.name, own) for each in entries]
        same_version = [each for each in offered if each.version == candidate.version]
        return any(each.checksums and same_content(each.checksums, candidate.checksums) for each in same_version)


def _repository(asked: Requirement) -> str:
    return asked.requirer.repository if asked.requirer else ""


def _in_range(candidate: Entry, asked: Requirement) -> bool:
    return allows(asked.version_range, version=candidate.version) or allows(
        asked.version_range, version=candidate.version, as_release=True
    )


def _in_order(entry: Entry, chosen: Mapping[str, Entry]) -> list[Entry]:
    """Put dependencies before what needs them. Raises: DependencyConflict naming a circle."""
    ordered: dict[str, Entry] = {}
    path: list[str] = []
    waiting: list[tuple[str, bool]] = [(name_of(entry), False)]
    while waiting:
        name, done = waiting.pop()
        if done:
            ordered[name] = chosen[path.pop()]
        elif name in path:
            circle = " needs ".join(chosen[each].name for each in (*path[path.index(name) :], name))
            raise DependencyConflict(f"{entry.name} cannot be installed: its dependencies go in a circle: {circle}")
        elif name not in ordered:
            path.append(name)
            waiting.append((name, True))
            waiting += [(needed.lower(), False) for needed in sorted(chosen[name].dependencies, reverse=True)]
    if len(ordered) > MOST_PACKAGES:
        raise DependencyConflict(f"{entry.name} needs {len(ordered) - 1} other packages; {MOST_PACKAGES} is the most")
    return list(ordered.values())


def _conflict(entry: Entry, causes: Iterable[Any], provider: _Provider) -> DependencyConflict:
    """Put into words why there is no solution. causes: `RequirementInformation`, all about one name."""
    asked: list[Requirement] = [cause.requirement for cause in causes]
    words = " and ".join(dict.fromkeys(each.words for each in asked))
    name = asked[0].name
    there = [entry] if name == name_of(entry) else provider.possible([each for each in asked if each.name == name])
    versions = list(dict.fromkeys(each.version for each in newest_first(there)))
    if not versions:
        words += ", which no repository has for this machine"
        return DependencyConflict(
            f"{entry.name} cannot be installed: {words}",
            hint="sync, or add the repository that has it to the setting `repositories`",
        )
    return DependencyConflict(
        f"{entry.name} cannot be installed: {words}",
        hint=f"versions of {name}: {', '.join(versions[:20])}",
    )


def _refuse_taken(wanted: Entry, present: Entry, entry: Entry) -> None:
    raise DependencyConflict(
        f"{entry.name} needs {wanted.name} of repository {wanted.repository or 'a file'}, and another package of that name and "
        f"version is installed, from {present.repository or 'a file'}",
        hint=f"uninstall {present.name} first",
    )
