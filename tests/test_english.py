"""Plain English: words and phrases that docs and code avoid. docs/concepts/glossary.md has the terms to use instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

BANNED = {
    r"processor time": "CPU time",
    r"control groups?": "cgroup",
    r"whoever": "the client, the user, the operator, anyone who",
    r"what is kept of": "cache, storage",
    r"in the words? of": "as, like",
    r"looked at with suspicion|handled with suspicion": "validated, untrusted",
    r"got in the way": "conflict",
    r"used least lately|used longest ago": "least recently used",
    r"before anybody asks": "in advance, idle",
    r"kinds? of sandbox(es)?": "sandbox spec",
    r"started ahead": "prestarted",
    r"(?:somebody|nobody)(?= [a-z])": "someone, no one, or name the role",
    r"[.;] in words:": "see",
    r"makes? room": "evict",
    r"is had\b|that there is\b": "exists, available",
    r"(without|the) right to be the only one": "single-flight lock",
    r"when nothing is said": "by default",
    r"what (it|a client|one) may use": "quota",
}
"""What not to write (a regular expression, in any case), and what to write instead."""

PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs")
"""Pages and folders of pages."""

EXEMPT = ("tests/test_english.py",)
"""Files that quote what they ban."""

PARTS = ("native", "scripts", "src", "tests")
"""Folders of code."""

CODE = {".py", ".c", ".h", ".toml", ".sh"}


def files() -> Iterator[Path]:
    """Yield every page and every file of code that is held to the list."""
    exempt = [ROOT / name for name in EXEMPT]
    for names, endings in ((PAGES, {".md"}), (PARTS, CODE)):
        for name in names:
            start = ROOT / name
            assert start.exists(), f"{name} is not there"
            for path in [start] if start.is_file() else sorted(start.rglob("*")):
                if path.suffix in endings and not any(path.is_relative_to(place) for place in exempt):
                    yield path


@pytest.mark.parametrize("pattern", BANNED)
def test_plain_english(pattern: str) -> None:
    # Lines are joined, so that a phrase is found across a line break; quoted code and links keep their names.
    wanted = re.compile(rf"\b(?:{pattern})".replace(" ", r"\s+(?:#\s+)?"), re.IGNORECASE)
    wrong: list[str] = []
    for path in files():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            text = re.sub(r"\]\([^)]*\)|`[^`\n]*`", lambda found: " " * len(found[0]), text)
        wrong += [
            f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]}" for found in wanted.finditer(text)
        ]
    assert not wrong, f"write {BANNED[pattern]!r} instead:\n" + "\n".join(wrong)
