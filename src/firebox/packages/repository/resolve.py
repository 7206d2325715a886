"""Dependency resolution with resolvelib, and the installation order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import resolvelib
from resolvelib.resolvers import RequirementInformation, Result

from firebox.domain.errors import DependencyConflict
from firebox.packages.entry import Entry
from firebox.packages.machine import fits
from firebox.packages.repository.repository_state import is_same_content
from firebox.packages.repository.sources import BUILT
from firebox.packages.versions import group, is_in_range, newest_first

MAX_ROUNDS = 500
MAX_PACKAGES = 100
"""Per plan."""
MAX_CANDIDATES = 100
"""Newest versions tried per package."""

_OPERATOR_ORIGINS = {"", BUILT}
"""Origins the operator controls: local files and local builds."""


class Catalog:
    """The packages of every repository, in the order of the settings."""

    def __init__(self, repositories: Mapping[str, Iterable[Entry]]) -> None:
        self._by_repository = {name: group(entries, normalized_name) for name, entries in repositories.items()}

    def all_packages(self) -> list[Entry]:
        """List the packages of the meta-repository `all`: every version of every name, in repository order.

        The first repository that has a version wins, unless its package is for other architectures only.
        """
        found: list[Entry] = []
        taken: set[tuple[str, str]] = set()
        for names in self._by_repository.values():
            own = [each for entries in names.values() for each in entries if (normalized_name(each), each.version) not in taken]
            taken |= {(normalized_name(entry), entry.version) for entry in own if fits(entry.architecture)}
            found += own
        return found

    def owner(self, name: str) -> str | None:
        """Return the repository that owns a name: the first one that has it."""
        return next((repository for repository, names in self._by_repository.items() if name in names), None)

    def candidates_for(self, name: str, repository: str) -> list[list[Entry]]:
        """List the candidates for a dependency of a package in `repository`: from that repository, then from the name's owner."""
        places = dict.fromkeys(place for place in (repository, self.owner(name)) if place in self._by_repository)
        return [found for place in places if (found := self._by_repository[str(place)].get(name))]


class Requirement(NamedTuple):
    """A dependency. requirer: None for the requested package itself."""

    name: str
    version_range: str
    requirer: Entry | None

    @property
    def repository(self) -> str:
        """Repository of the requirer."""
        return self.requirer.repository if self.requirer else ""

    @property
    def words(self) -> str:
        return f"{self.requirer.name} requires {self.name} {self.version_range}" if self.requirer else f"{self.name} is requested"


def plan(entry: Entry, installed: Sequence[Entry], catalog: Catalog) -> list[Entry]:
    """Resolve what to install for an entry: dependencies first, the entry last, without installed packages.

    Installed versions are preferred, then those of the requiring package's own repository, then the newest.
    Raises: DependencyConflict naming the conflicting requirements or the cycle.
    """
    provider = _Provider(entry, installed, catalog)
    resolver: Any = resolvelib.Resolver(provider, resolvelib.BaseReporter())
    try:
        root = Requirement(normalized_name(entry), entry.version, None)
        result: Result[Requirement, Entry, str] = resolver.resolve([root], max_rounds=MAX_ROUNDS)
    except resolvelib.ResolutionTooDeep:
        raise DependencyConflict(f"no set of packages satisfies all dependencies of {entry.name}") from None
    except resolvelib.ResolutionError as error:
        raise _explain_conflict(entry, getattr(error, "causes", ()), provider) from None
    there = {each.name: each for each in installed}
    missing: list[Entry] = []
    for each in _topological_order(entry, result.mapping):
        present = there.get(each.name)
        if present is None:
            missing.append(each)
        elif not is_same_content(present.checksums, each.checksums):
            raise DependencyConflict(
                f"{entry.name} needs {each.name} from {each.repository or 'a file'}, but a different package of that name and "
                f"version is installed from {present.repository or 'a file'}",
                hint=f"uninstall {present.name} first",
            )
    return missing


def normalized_name(entry: Entry) -> str:
    """Return the case-insensitive name of a package."""
    return entry.language.lower()


class _Provider(resolvelib.AbstractProvider[Requirement, Entry, str]):
    """Provides candidates and requirements to resolvelib."""

    def __init__(self, entry: Entry, installed: Sequence[Entry], catalog: Catalog) -> None:
        self._entry = entry
        self._catalog = catalog
        self._installed = group(installed, normalized_name)

    def identify(self, requirement_or_candidate: Requirement | Entry) -> str:
        if isinstance(requirement_or_candidate, Requirement):
            return requirement_or_candidate.name
        return normalized_name(requirement_or_candidate)

    def get_preference(
        self,
        identifier: str,
        resolutions: Mapping[str, Entry],  # noqa: ARG002 - resolvelib passes these by name
        candidates: Mapping[str, Iterator[Entry]],
        information: Mapping[str, Iterator[RequirementInformation[Requirement, Entry]]],  # noqa: ARG002
        backtrack_causes: Sequence[RequirementInformation[Requirement, Entry]],
    ) -> tuple[bool, int, str]:
        """Resolve conflicting names first, then those with the fewest candidates."""
        troubled = any(cause.requirement.name == identifier for cause in backtrack_causes)
        return not troubled, sum(1 for _ in candidates[identifier]), identifier

    def find_matches(
        self, identifier: str, requirements: Mapping[str, Iterator[Requirement]], incompatibilities: Mapping[str, Iterator[Entry]]
    ) -> list[Entry]:
        wanted = list(requirements[identifier])
        refused = list(incompatibilities[identifier])
        candidates = [self._entry] if identifier == normalized_name(self._entry) else self.candidates(wanted)
        left = [each for each in candidates if each not in refused]
        found = [each for each in left if all(is_in_range(each.version, within=asked.version_range) for asked in wanted)]
        return (found or [each for each in left if all(_in_range(each, asked) for asked in wanted)])[:MAX_CANDIDATES]

    def is_satisfied_by(self, requirement: Requirement, candidate: Entry) -> bool:
        return _in_range(candidate, requirement)

    def get_dependencies(self, candidate: Entry) -> list[Requirement]:
        return [Requirement(name.lower(), wanted, candidate) for name, wanted in sorted(candidate.dependencies.items())]

    def candidates(self, requirements: Sequence[Requirement]) -> list[Entry]:
        """List the allowed candidates that satisfy the origin rules of all requirements, preferred first, in any version."""
        found = newest_first(self._installed.get(requirements[0].name, []))
        for asked in requirements:
            for offered in self._catalog.candidates_for(asked.name, asked.repository):
                found += [each for each in newest_first(offered) if fits(each.architecture) and each not in found]
        return [each for each in found if all(self._has_allowed_origin(each, asked) for asked in requirements)]

    def _has_allowed_origin(self, candidate: Entry, asked: Requirement) -> bool:
        """Check the origin of a candidate for a requirement.

        Allowed origins: the requirer's repository, the repository that owns the name, and the operator. An installed package from
        elsewhere qualifies only if its content is identical, so an installed package cannot take over a name that it does not
        own.
        """
        owner = self._catalog.owner(asked.name)
        if candidate.repository in {asked.repository, *_OPERATOR_ORIGINS} or owner in {None, candidate.repository}:
            return True
        offered = [each for entries in self._catalog.candidates_for(asked.name, asked.repository) for each in entries]
        same_version = [each for each in offered if each.version == candidate.version]
        return any(each.checksums and is_same_content(each.checksums, candidate.checksums) for each in same_version)


def _in_range(candidate: Entry, asked: Requirement) -> bool:
    return any(is_in_range(candidate.version, within=asked.version_range, as_release=each) for each in (False, True))


def _topological_order(entry: Entry, chosen: Mapping[str, Entry]) -> list[Entry]:
    """Return dependencies before dependents. Raises: DependencyConflict naming a cycle."""
    ordered: dict[str, Entry] = {}
    path: list[str] = []
    waiting: list[tuple[str, bool]] = [(normalized_name(entry), False)]
    while waiting:
        name, done = waiting.pop()
        if done:
            ordered[name] = chosen[path.pop()]
        elif name in path:
            circle = " needs ".join(chosen[each].name for each in (*path[path.index(name) :], name))
            raise DependencyConflict(f"{entry.name} cannot be installed: its dependencies form a cycle: {circle}")
        elif name not in ordered:
            path.append(name)
            waiting.append((name, True))
            waiting += [(needed.lower(), False) for needed in sorted(chosen[name].dependencies, reverse=True)]
    if len(ordered) > MAX_PACKAGES:
        raise DependencyConflict(f"{entry.name} needs {len(ordered) - 1} other packages; the maximum is {MAX_PACKAGES}")
    return list(ordered.values())


def _explain_conflict(entry: Entry, causes: Iterable[Any], provider: _Provider) -> DependencyConflict:
    """Explain why there is no solution. causes: `RequirementInformation`, all about one name."""
    asked: list[Requirement] = [cause.requirement for cause in causes]
    words = " and ".join(dict.fromkeys(each.words for each in asked))
    name = asked[0].name
    there = [entry] if name == normalized_name(entry) else provider.candidates([each for each in asked if each.name == name])
    versions = list(dict.fromkeys(each.version for each in newest_first(there)))
    hint = f"versions of {name}: {', '.join(versions[:20])}"
    if not versions:
        words += ", which no repository provides for this architecture"
        hint = "run `firebox packages sync`, or add the repository that provides it to the setting `repositories`"
    return DependencyConflict(f"{entry.name} cannot be installed: {words}", hint=hint)
