"""Spec files: which packages the rules select."""

from __future__ import annotations

import pytest

from firebox.domain.errors import InvalidRequest
from firebox.packages.entry import Entry
from firebox.packages.installed.spec_file import MAX_BYTES, MAX_LINE, read_rules, select_packages

AVAILABLE = (
    "python 3.11.9",
    "python 3.12.4",
    "python 3.13.5",
    "python 3.14.0-rc.1",
    "python-science 3.13.5",
    "node 20.1.0",
    "node 22.4.0",
    "c++ 14.2.0",
    "zig 0.17.0-dev.3",
    "debian-trixie 13.2.20260905",
)


def entries(*names: str) -> list[Entry]:
    return [
        Entry(language=language, version=version, download=f"file:///{language}")
        for language, version in (name.split() for name in names)
    ]


def chosen(text: str, *available: str) -> list[str]:
    """Return the packages selected by a file, as `language version`."""
    selection = select_packages(read_rules(text.encode()), entries(*(available or AVAILABLE)))
    return [f"{entry.language} {entry.version}" for entry in selection.entries]


def test_a_rule_prefers_the_first_repository_that_has_a_match() -> None:
    first, second = (
        [Entry(language="python", version=version, download="file:///x", repository=repository) for version in versions]
        for repository, versions in (("first", ("3.12.4", "3.13.5")), ("second", ("3.14.0", "99.0.0")))
    )
    for rule, expected in (("python *", first[1]), ("python 3.14.x", second[0]), (">=3.14", second[1])):
        text = rule if rule.startswith("python") else f"python {rule}"
        assert select_packages(read_rules(text.encode()), [*first, *second]).entries == (expected,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python *", ["python 3.13.5"]),
        ("python", ["python 3.13.5"]),
        ("python 3.11.x", ["python 3.11.9"]),
        ("python >=3.11 <3.13", ["python 3.12.4"]),
        ("python *\npython 3.11.x\npython 3.13.5", ["python 3.13.5", "python 3.11.9"]),
        ("p*n *", ["python 3.13.5"]),
        ("python* *", ["python 3.13.5", "python-science 3.13.5"]),
        ("{node,c++} *", ["node 22.4.0", "c++ 14.2.0"]),
        ("?ode 20.x", ["node 20.1.0"]),
        ("[mn]ode *", ["node 22.4.0"]),
        ("[^m]ode *", ["node 22.4.0"]),
        ("zig *", ["zig 0.17.0-dev.3"]),
        ("python >=3.14.0-rc.1", ["python 3.14.0-rc.1"]),
        ("  python\t3.11.x  ", ["python 3.11.9"]),
        ("python 3.11.x\r\nnode *\r\n", ["python 3.11.9", "node 22.4.0"]),
        ("\ufeffpython *", ["python 3.13.5"]),
    ],
)
def test_a_rule_selects_the_newest_version_of_each_matching_name(text: str, expected: list[str]) -> None:
    assert chosen(text) == expected


def test_an_exclusion_only_removes_packages_selected_above() -> None:
    assert chosen("python *\npython 3.11.x\nnode *\n!python 3.13.x") == ["python 3.11.9", "node 22.4.0"]


def test_the_order_of_rules_matters() -> None:
    assert chosen("!python *\npython *") == ["python 3.13.5"]
    assert chosen("python *\n! python *") == []


def test_an_exclusion_does_not_select_an_older_version() -> None:
    assert chosen("python *\n!python 3.13.5") == []


def test_comments_and_empty_lines_are_ignored() -> None:
    assert chosen("# all of it\n\n   \npython *   # the newest\n  # the end") == ["python 3.13.5"]


def test_a_name_may_contain_a_hash_sign() -> None:
    assert chosen("c# *", "c# 9.0.0", "c 14.2.0") == ["c# 9.0.0"]


def test_a_wildcard_selects_all_languages_but_no_bases() -> None:
    assert chosen("* *") == ["python 3.13.5", "python-science 3.13.5", "node 22.4.0", "c++ 14.2.0", "zig 0.17.0-dev.3"]
    assert chosen("debian-trixie *") == ["debian-trixie 13.2.20260905"]


def test_a_named_base_can_be_excluded_by_a_glob() -> None:
    assert chosen("debian-trixie *\n!debian-* *") == []


def test_unmatched_rules_are_reported() -> None:
    selection = select_packages(read_rules(b"python *\n\npyhton *\nnode 99.x\n!java *"), entries(*AVAILABLE))
    assert [(rule.line, rule.text, rule.exact) for rule in selection.unmatched] == [(3, "pyhton *", True), (4, "node 99.x", True)]
    assert [rule.exact for rule in select_packages(read_rules(b"java*"), entries(*AVAILABLE)).unmatched] == [False]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("python three", "line 1"),
        ("python *\n!", "line 2"),
        ("python *\n\nnode ><", "line 3"),
        ("x" * (MAX_LINE + 1), "line 1"),
        ("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b} *", "line 1"),
    ],
)
def test_an_invalid_line_is_named(text: str, where: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_rules(text.encode())
    assert caught.value.where == where


@pytest.mark.parametrize("data", [b"python *\n\xff", b"#" * (MAX_BYTES + 1), b"a *\n" * 10_001])
def test_an_invalid_spec_file_is_rejected(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_rules(data)


def test_a_hostile_glob_is_not_slower_than_a_plain_one() -> None:
    glob = "*a" * 200 + "b"
    assert chosen(f"{glob} *", "a" * 60 + " 1.0.0") == []
