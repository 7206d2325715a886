"""Spec files: the packages that should be installed, in the format of Piston's command line.

Each line is a rule: a glob over package names and a version range. Rules apply from top to bottom:

    # a comment
    python *          the newest python
    python 3.11.x     additionally the newest 3.11
    {c,go,rust}*      the newest version of every package whose name matches; the default range is `*`
    !rust-science *   removes packages that the lines above selected

A rule selects the newest version of each matching name; several rules may select several versions of one name. Packages that no
rule selects are removed unless another package requires them. A base provides no language and is installed and removed with the
packages built on it: globs do not select it, only its full name does.

Source: Piston's command line, "ppman spec". Piston ends a range at the first space, so `>=3.9 <4` means `>=3.9`; here the range
is the rest of the line. In Piston, a line without a range matches nothing, and `!` also removes whatever was selected after the
match.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from firebox.domain.errors import InvalidRequest
from firebox.packages.entry import Entry
from firebox.packages.versions import group, is_range, preferred

MAX_BYTES = 1 << 20
MAX_RULES = 10_000
MAX_LINE = 512
MAX_ALTERNATIVES = 64
"""Maximum number of globs that the braces of one rule may expand to."""

BASE_NAME = re.compile(r"debian-[a-z]+")
"""Name of a base, which contains a Debian release and no language."""

_COMMENT = re.compile(r"(?:^|\s)#.*")
_BRACES = re.compile(r"\{([^{}]*)\}")
_WILD = re.compile(r"[*?\[{]")


class Rule(Struct, frozen=True, kw_only=True):
    """A line of a spec file."""

    line: int
    """Line number, from 1."""
    text: str
    """The rule as written, without comment and surrounding spaces."""
    pattern: str
    """Glob over package names: `*`, `?`, `[...]`, `{a,b}`."""
    version_range: str
    excludes: bool = False

    @property
    def exact(self) -> bool:
        """Whether the rule names a single package instead of a glob."""
        return not _WILD.search(self.pattern)

    def matches_name(self, name: str) -> bool:
        """Check whether the rule applies to packages of this name, in any version."""
        if not self.exact and not self.excludes and BASE_NAME.fullmatch(name):
            return False
        return any(re.fullmatch(fnmatch.translate(glob), name) for glob in _alternatives(self.pattern))

    def select(self, entries: Iterable[Entry]) -> list[Entry]:
        """List the matching entries; per name, the newest of the first repository that has it comes first."""
        named = group((entry for entry in entries if self.matches_name(entry.language)), lambda entry: entry.language)
        return [entry for versions in named.values() for entry in preferred(versions, self.version_range)]


class Selection(Struct, frozen=True, kw_only=True):
    """The result of applying a spec file."""

    entries: tuple[Entry, ...]
    """The selected packages, without duplicates, in rule order."""
    unmatched: tuple[Rule, ...]
    """Rules that selected nothing."""


def read_rules(data: bytes) -> list[Rule]:
    """Parse a spec file. Raises: InvalidRequest naming the invalid line."""
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"the spec file is larger than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest("the spec file is not UTF-8 text") from None
    rules: list[Rule] = []
    for number, line in enumerate(text.split("\n"), 1):
        rule = _rule(number, line)
        if rule is not None:
            rules.append(rule)
        if len(rules) > MAX_RULES:
            raise InvalidRequest(f"the spec file has more than {MAX_RULES} rules", where=f"line {number}")
    return rules


def select_packages(rules: Sequence[Rule], entries: Sequence[Entry]) -> Selection:
    """Apply the rules. entries: all installed and available packages."""
    chosen: dict[str, Entry] = {}
    unmatched: list[Rule] = []
    for rule in rules:
        if rule.excludes:
            for entry in rule.select(chosen.values()):
                del chosen[entry.name]
            continue
        matches = rule.select(entries)
        if not matches:
            unmatched.append(rule)
        newest: dict[str, Entry] = {}
        for entry in matches:
            newest.setdefault(entry.language, entry)
        for entry in newest.values():
            chosen.setdefault(entry.name, entry)
    return Selection(entries=tuple(chosen.values()), unmatched=tuple(unmatched))


def _rule(number: int, line: str) -> Rule | None:
    where = f"line {number}"
    if len(line) > MAX_LINE:
        raise InvalidRequest(f"the line is longer than {MAX_LINE} characters", where=where)
    text = _COMMENT.sub("", line).strip()
    if not text:
        return None
    words = text.removeprefix("!").split(None, 1)
    if not words:
        raise InvalidRequest("the package name is missing", where=where, hint="example: `!python 2.x`")
    version_range = words[1] if len(words) > 1 else "*"
    if not is_range(version_range):
        hint = "expected NAME RANGE, with a range like *, 3.x, ^3.11, >=3.9 <4 or 3.11.7"
        raise InvalidRequest(f"{version_range!r} is not a valid version range", where=where, hint=hint)
    try:
        _alternatives(words[0])
    except ValueError as error:
        raise InvalidRequest(str(error), where=where) from None
    return Rule(line=number, text=text, pattern=words[0], version_range=version_range, excludes=text.startswith("!"))


def _alternatives(pattern: str) -> list[str]:
    """Expand the braces of a glob. Raises: ValueError if there are too many alternatives."""
    patterns = [pattern.replace("[^", "[!")]
    while found := next((match for each in patterns if (match := _BRACES.search(each))), None):
        words = found[1].split(",")
        holding = [each for each in patterns if found[0] in each]
        patterns = [each for each in patterns if found[0] not in each]
        patterns += [each.replace(found[0], word, 1) for each in holding for word in words]
        if len(patterns) > MAX_ALTERNATIVES:
            raise ValueError(f"{pattern!r} expands to more than {MAX_ALTERNATIVES} names")
    return patterns
