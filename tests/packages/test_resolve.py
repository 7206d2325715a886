"""Dependency resolution: selection, order and error messages."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from firebox.domain.errors import DependencyConflict
from firebox.packages.entry import Entry
from firebox.packages.machine import architecture
from firebox.packages.repository.resolve import Catalog, plan


def entry(name: str, repository: str = "main", content: str = "", **more: Any) -> Entry:
    """Create an entry. name: `python-1.0.0`; content: determines the checksum."""
    language, _, version = name.partition("-")
    dependencies = {key.replace("_", "-"): value for key, value in more.pop("needs", {}).items()}
    digest = hashlib.sha256(f"{name} {content}".encode()).hexdigest()
    return Entry(
        language=language,
        version=version,
        checksums={"sha256": digest},
        download=f"http://example.org/{name}",
        repository=repository,
        dependencies=dependencies,
        **more,
    )


def names(entries: list[Entry]) -> list[str]:
    return [each.name for each in entries]


def catalog(*entries: Entry) -> Catalog:
    found: dict[str, list[Entry]] = {}
    for each in entries:
        found.setdefault(each.repository, []).append(each)
    return Catalog(found)


def test_package_without_dependencies_is_installed_alone() -> None:
    python = entry("python-3.13.5")
    assert plan(python, [], catalog(python)) == [python]


def test_dependencies_come_before_dependents() -> None:
    science = entry("science-1.0.0", needs={"python": "3.x", "blas": "*"})
    python = entry("python-3.13.5", needs={"base": "13.2.20260905"})
    blas = entry("blas-0.3.0", needs={"base": ">=13"})
    base = entry("base-13.2.20260905")
    ordered = names(plan(science, [], catalog(science, python, blas, base)))
    assert set(ordered) == {"science-1.0.0", "python-3.13.5", "blas-0.3.0", "base-13.2.20260905"}
    assert ordered[0] == "base-13.2.20260905"
    assert ordered[-1] == "science-1.0.0"


def test_newest_version_in_range_is_chosen_and_pre_releases_as_a_fallback() -> None:
    app = entry("app-1.0.0", needs={"lua": "5.x"})
    choice = [entry(f"lua-{version}") for version in ("5.1.5", "5.4.7", "5.4.10", "5.5.0-beta", "6.0.0")]
    assert names(plan(app, [], catalog(app, *choice))) == ["lua-5.4.10", "app-1.0.0"]
    assert names(plan(app, [], catalog(app, entry("lua-5.5.0-beta")))) == ["lua-5.5.0-beta", "app-1.0.0"]


def test_installed_version_is_preferred_to_a_newer_one() -> None:
    app = entry("app-1.0.0", needs={"lua": "5.x"})
    old, new = entry("lua-5.1.5"), entry("lua-5.4.7")
    assert names(plan(app, [old], catalog(app, old, new))) == ["app-1.0.0"]
    assert names(plan(app, [entry("lua-4.0.0")], catalog(app, old, new))) == ["lua-5.4.7", "app-1.0.0"]


def test_installed_packages_are_not_installed_again() -> None:
    app = entry("app-1.0.0", needs={"lua": "5.x"})
    lua = entry("lua-5.4.7")
    assert plan(app, [lua, app], catalog(app, lua)) == []
    assert names(plan(app, [app], catalog(app, lua))) == ["lua-5.4.7"]


def test_older_version_is_chosen_to_resolve_a_conflict() -> None:
    app = entry("app-1.0.0", needs={"python": "*", "base": "12.0.0"})
    new = entry("python-3.13.5", needs={"base": "13.0.0"})
    old = entry("python-3.11.2", needs={"base": "12.0.0"})
    chosen = plan(app, [], catalog(app, new, old, entry("base-12.0.0"), entry("base-13.0.0")))
    assert names(chosen) == ["base-12.0.0", "python-3.11.2", "app-1.0.0"]


def test_conflict_names_both_requirements() -> None:
    app = entry("app-1.0.0", needs={"left": "*", "right": "*"})
    left, right = entry("left-1.0.0", needs={"base": "12.x"}), entry("right-2.0.0", needs={"base": ">=13 <14"})
    with pytest.raises(DependencyConflict) as refused:
        plan(app, [], catalog(app, left, right, entry("base-12.0.0"), entry("base-13.0.0")))
    message = refused.value.message
    assert message.startswith("app-1.0.0 cannot be installed: ")
    assert "left-1.0.0 requires base 12.x" in message
    assert "right-2.0.0 requires base >=13 <14" in message
    assert refused.value.hint == "versions of base: 13.0.0, 12.0.0"


def test_missing_dependency_is_named() -> None:
    app = entry("app-1.0.0", needs={"lua": "5.x"})
    with pytest.raises(
        DependencyConflict, match=r"app-1\.0\.0 requires lua 5\.x, which no repository provides for this architecture"
    ):
        plan(app, [], catalog(app))
    with pytest.raises(DependencyConflict, match=r"app-1\.0\.0 requires lua 5\.x") as refused:
        plan(app, [], catalog(app, entry("lua-4.0.0")))
    assert refused.value.hint == "versions of lua: 4.0.0"


def test_dependency_cycle_is_rejected_and_named() -> None:
    a = entry("a-1.0.0", needs={"b": "*"})
    b = entry("b-1.0.0", needs={"c": "*"})
    c = entry("c-1.0.0", needs={"b": "1.x"})
    with pytest.raises(DependencyConflict, match=r"form a cycle: b-1\.0\.0 needs c-1\.0\.0 needs b-1\.0\.0"):
        plan(a, [], catalog(a, b, c))
    with pytest.raises(DependencyConflict, match=r"form a cycle: c-1\.0\.0 needs b-1\.0\.0 needs c-1\.0\.0"):
        plan(c, [], catalog(a, b, c))
    self = entry("self-1.0.0", needs={"self": "*"})
    with pytest.raises(DependencyConflict, match=r"cycle: self-1\.0\.0 needs self-1\.0\.0"):
        plan(self, [], catalog(self))


def test_dependency_cycle_through_installed_packages_is_rejected() -> None:
    a = entry("a-1.0.0", needs={"b": "*"})
    b = entry("b-1.0.0", needs={"a": "*"})
    with pytest.raises(DependencyConflict, match="cycle"):
        plan(a, [b], catalog(a))


def test_package_that_requires_another_version_of_itself_is_rejected() -> None:
    new = entry("lua-2.0.0", needs={"lua": "1.x"})
    with pytest.raises(DependencyConflict, match=r"lua-2\.0\.0 requires lua 1\.x"):
        plan(new, [], catalog(new, entry("lua-1.0.0")))


def test_names_are_case_insensitive() -> None:
    app = entry("app-1.0.0", needs={"LUA": "*"})
    assert names(plan(app, [], catalog(app, entry("Lua-5.4.7")))) == ["Lua-5.4.7", "app-1.0.0"]


def test_dependencies_are_searched_in_the_same_repository_first() -> None:
    first = entry("base-13.0.1", "first")
    app, second = entry("app-1.0.0", "second", needs={"base": "13.x"}), entry("base-13.0.0", "second")
    assert [(each.name, each.repository) for each in plan(app, [], catalog(first, app, second))] == [
        ("base-13.0.0", "second"),
        ("app-1.0.0", "second"),
    ]
    other = entry("app-1.0.0", "second", needs={"base": "13.0.1"})
    assert plan(other, [], catalog(first, other, second))[0] is first


def test_later_repository_cannot_provide_a_dependency_owned_by_an_earlier_one() -> None:
    app, base = entry("app-1.0.0", "first", needs={"base": ">=13"}), entry("base-13.0.0", "first")
    evil = entry("base-99.0.0", "second", content="evil")
    assert plan(app, [], catalog(app, base, evil)) == [base, app]
    assert plan(app, [evil], catalog(app, base, evil)) == [base, app], "to be installed does not make it the right one"


def test_same_version_with_different_content_is_a_conflict() -> None:
    app, base = entry("app-1.0.0", "first", needs={"base": "13.0.0"}), entry("base-13.0.0", "first")
    evil = entry("base-13.0.0", "second", content="evil")
    with pytest.raises(DependencyConflict, match=r"needs base-13\.0\.0 from first, but a different") as refused:
        plan(app, [evil], catalog(app, base, evil))
    assert refused.value.hint == "uninstall base-13.0.0 first"


def test_same_content_from_another_origin_is_accepted() -> None:
    app, base = entry("app-1.0.0", "first", needs={"base": "13.0.0"}), entry("base-13.0.0", "first")
    assert plan(app, [entry("base-13.0.0", "second")], catalog(app, base)) == [app]


@pytest.mark.parametrize("origin", ["", "built"])
def test_packages_from_the_operator_can_satisfy_a_dependency(origin: str) -> None:
    app = entry("app-1.0.0", "first", needs={"base": "13.x"})
    own = entry("base-13.5.0", origin, content="own")
    assert plan(app, [own], catalog(app, entry("base-13.0.0", "first"))) == [app]


def test_installed_version_that_left_its_repository_is_accepted() -> None:
    app, old = entry("app-1.0.0", needs={"base": "13.x"}), entry("base-13.0.0")
    assert plan(app, [old], catalog(app, entry("base-13.1.0"))) == [app]
    assert plan(entry("app-1.0.0", "", needs={"base": "13.x"}), [old], catalog()) == [
        entry("app-1.0.0", "", needs={"base": "13.x"})
    ]


def test_packages_for_other_architectures_are_ignored() -> None:
    app = entry("app-1.0.0", needs={"lua": "*"})
    foreign = entry("lua-5.5.0", architecture="m68k")
    fitting = entry("lua-5.4.0", architecture=architecture())
    assert names(plan(app, [], catalog(app, foreign, fitting))) == ["lua-5.4.0", "app-1.0.0"]
    with pytest.raises(DependencyConflict, match="which no repository provides for this architecture"):
        plan(app, [], catalog(app, foreign))


def test_each_version_is_listed_once_from_its_first_repository() -> None:
    first, other, only = entry("lua-5.1.0", "first"), entry("LUA-5.4.0", "second"), entry("c-1.0.0", "second")
    again = entry("Lua-5.1.0", "second", content="evil")
    assert catalog(first, again, other, only).all_packages() == [first, other, only]
    foreign, fitting = entry("go-1.0.0", "first", architecture="m68k"), entry("go-1.0.0", "second")
    assert catalog(foreign, fitting).all_packages() == [foreign, fitting]


def test_unsolvable_dependencies_terminate() -> None:
    packages = [
        entry(f"p{level}-{version}.0.0", needs={f"p{level + 1}": "*", "base": f"{version}.x"} if level < 9 else {"nowhere": "*"})
        for level in range(10)
        for version in range(1, 9)
    ]
    packages += [entry(f"base-{version}.0.0") for version in range(1, 9)]
    with pytest.raises(DependencyConflict):
        plan(packages[0], [], catalog(*packages))


def test_dependency_chain_length_is_limited() -> None:
    packages = [entry(f"p{level}-1.0.0", needs={f"p{level + 1}": "*"} if level < 300 else {}) for level in range(301)]
    with pytest.raises(DependencyConflict, match="needs 300 other packages; the maximum is 100"):
        plan(packages[0], [], catalog(*packages))
