"""A file that says which packages are to be installed: the spec format of Piston's command line.

Each line is a rule, a glob over names and a version range, and the rules are taken from top to bottom:

    # a comment
    python *          the newest python
    python 3.11.x     and the newest 3.11 besides it
    {c,go,rust}*      the newest of every package whose name begins so; without a range `*` is meant
    !rust-science *   takes out again what the lines above chose

A rule chooses the newest version of each name that matches; several rules may choose several versions of one name. What no rule
chooses is to be removed, unless another package needs it. A base, which brings no language, comes and goes with the packages that
are built on it: a glob does not choose it, only its full name does.

Source: Piston's command line, "ppman spec". There a range ends at its first space, which makes `>=3.9 <4` mean `>=3.9`; here it
is the rest of the line. There a line without a range matches nothing, and `!` also takes out whatever was chosen after the match.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from firebox.domain.errors import InvalidRequest
from firebox.packages.entry import Entry
from firebox.packages.versions import is_range, preferred

MAX_BYTES = 1 << 20
MAX_RULES = 10_000
MAX_LINE = 512
MAX_ALTERNATIVES = 64
"""How many globs the braces of one rule may stand for."""

BASE_NAME = re.compile(r"debian-[a-z]+")
"""What a base is called: it holds a release of Debian and no language."""

_COMMENT = re.compile(r"(?:^|\s)#.*")
_BRACES = re.compile(r"\{([^{}]*)\}")
_WILD = re.compile(r"[*?\[{]")


class Rule(Struct, frozen=True, kw_only=True):
    """A line of a spec file."""

    line: int
    """Its number in the file, from 1."""
    text: str
    """As somebody wrote it, without what is around it."""
    pattern: str
    """Glob over names: `*`, `?`, `[...]`, `{a,b}`."""
    version_range: str
    excludes: bool = False

    @property
    def exact(self) -> bool:
        """Whether it names one package, not a kind of name."""
        return not _WILD.search(self.pattern)

    def matches_name(self, name: str) -> bool:
        """Say whether a package of this name is meant, whatever its version."""
        if not self.exact and not self.excludes and BASE_NAME.fullmatch(name):
            return False
        return any(re.fullmatch(fnmatch.translate(glob), name) for glob in _alternatives(self.pattern))

    def chooses(self, entries: Iterable[Entry]) -> list[Entry]:
        """Give those that the rule matches, of each name the preferred first: the newest of the first repository that has it."""
        named: dict[str, list[Entry]] = {}
        for entry in entries:
            if self.matches_name(entry.language):
                named.setdefault(entry.language, []).append(entry)
        return [entry for versions in named.values() for entry in preferred(versions, self.version_range)]


class Choice(Struct, frozen=True, kw_only=True):
    """What a spec file comes to."""

    entries: tuple[Entry, ...]
    """The packages that are to be there, each once, in the order of the rules."""
    unmatched: tuple[Rule, ...]
    """Rules that should have chosen something and found nothing."""


def read_rules(data: bytes) -> list[Rule]:
    """Read a spec file.

    Raises: InvalidRequest naming the line that cannot be read.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"a spec file has at most {MAX_BYTES} bytes")
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
            raise InvalidRequest(f"a spec file has at most {MAX_RULES} rules", where=f"line {number}")
    return rules


def choose(rules: Sequence[Rule], entries: Sequence[Entry]) -> Choice:
    """Decide which packages there are to be. entries: everything that is installed or can be."""
    chosen: dict[str, Entry] = {}
    unmatched: list[Rule] = []
    for rule in rules:
        if rule.excludes:
            for entry in rule.chooses(chosen.values()):
                del chosen[entry.name]
            continue
        matches = rule.chooses(entries)
        if not matches:
            unmatched.append(rule)
        newest: dict[str, Entry] = {}
        for entry in matches:
            newest.setdefault(entry.language, entry)
        for entry in newest.values():
            chosen.setdefault(entry.name, entry)
    return Choice(entries=tuple(chosen.values()), unmatched=tuple(unmatched))


def _rule(number: int, line: str) -> Rule | None:
    where = f"line {number}"
    if len(line) > MAX_LINE:
        raise InvalidRequest(f"a line has at most {MAX_LINE} characters", where=where)
    text = _COMMENT.sub("", line).strip()
    if not text:
        return None
    words = text.removeprefix("!").split(None, 1)
    if not words:
        raise InvalidRequest("no package is named", where=where, hint="like `!python 2.x`")
    version_range = words[1] if len(words) > 1 else "*"
    if not is_range(version_range):
        hint = "a line is NAME RANGE, and a range looks like *, 3.x, ^3.11, >=3.9 <4 or 3.11.7"
        raise InvalidRequest(f"{version_range!r} is no version range", where=where, hint=hint)
    try:
        _alternatives(words[0])
    except ValueError as error:
        raise InvalidRequest(str(error), where=where) from None
    return Rule(line=number, text=text, pattern=words[0], version_range=version_range, excludes=text.startswith("!"))


def _alternatives(pattern: str) -> list[str]:
    """Write a glob without braces: one for each of their alternatives. Raises: ValueError when it would be too many."""
    patterns = [pattern.replace("[^", "[!")]
    while found := next((match for each in patterns if (match := _BRACES.search(each))), None):
        words = found[1].split(",")
        holding = [each for each in patterns if found[0] in each]
        patterns = [each for each in patterns if found[0] not in each]
        patterns += [each.replace(found[0], word, 1) for each in holding for word in words]
        if len(patterns) > MAX_ALTERNATIVES:
            raise ValueError(f"{pattern!r} stands for more than {MAX_ALTERNATIVES} names")
    return patterns
