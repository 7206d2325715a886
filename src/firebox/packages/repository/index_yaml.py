"""A strict YAML subset for untrusted input: mappings, lists and strings only, with bounded size and depth.

Aliases (exponential expansion) and tags (arbitrary types) are rejected before anything is constructed. Scalars stay strings, so
a version such as `3.10` is not parsed as a number.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import yaml

Plain: TypeAlias = "str | list[Plain] | dict[str, Plain] | None"
"""A parsed YAML value: string, list or mapping; None for `null` and empty values."""

MOST_EVENTS = 4_000_000
"""Scalars plus start and end events of collections: about 80 for each of 50,000 packages."""
DEEPEST = 6
LONGEST_TEXT = 64 << 10
_NOTHING = {"", "~", "null", "Null", "NULL"}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser if available: ten times as fast."""


class RefusedYaml(ValueError):
    """Invalid or unsupported YAML. The message includes the line number."""


def read_yaml(content: bytes) -> Plain:
    """Parse a single YAML document. Raises: RefusedYaml."""
    reader = _Reader()
    try:
        for number, event in enumerate(yaml.parse(content, Loader=_LOADER)):
            if number > MOST_EVENTS:
                raise RefusedYaml("too many elements")
            reader.take(event)
    except yaml.YAMLError as error:
        raise RefusedYaml(" ".join(str(error).split())[:300]) from None
    except UnicodeError:
        raise RefusedYaml("not UTF-8") from None
    return reader.result()


class _Reader:
    """Builds values from parser events."""

    def __init__(self) -> None:
        self._documents: list[Plain] = []
        self._open: list[list[Plain] | dict[str, Plain]] = []
        self._keys: list[str | None] = []
        """Per open collection: the mapping key awaiting its value; None if a key is expected next, and for lists."""

    def result(self) -> Plain:
        if len(self._documents) != 1:
            raise RefusedYaml("it is empty" if not self._documents else "it contains several documents")
        return self._documents[0]

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise _refused(event, "aliases are not allowed")
        if isinstance(event, yaml.NodeEvent):
            if event.anchor is not None:
                raise _refused(event, "anchors are not allowed")
            if getattr(event, "tag", None) is not None:
                raise _refused(event, "tags are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._begin(event, {} if isinstance(event, yaml.MappingStartEvent) else [])
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._open.pop()
            self._keys.pop()

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        if len(text) > LONGEST_TEXT:
            raise _refused(event, "a string is too long")
        inside = self._open[-1] if self._open else None
        if isinstance(inside, dict) and self._keys[-1] is None:
            if text in inside:
                raise _refused(event, f"{text[:40]!r} is a duplicate key")
            self._keys[-1] = text
            return
        self._add(event, None if event.implicit[0] and text in _NOTHING else text)

    def _begin(self, event: Any, value: list[Plain] | dict[str, Plain]) -> None:
        if len(self._open) >= DEEPEST:
            raise _refused(event, "nested too deeply")
        self._add(event, value)
        self._open.append(value)
        self._keys.append(None)

    def _add(self, event: Any, value: Plain) -> None:
        if not self._open:
            self._documents.append(value)
            return
        inside = self._open[-1]
        if isinstance(inside, list):
            inside.append(value)
            return
        key = self._keys[-1]
        if key is None:
            raise _refused(event, "a key must be a string")
        inside[key] = value
        self._keys[-1] = None


def _refused(event: Any, why: str) -> RefusedYaml:
    return RefusedYaml(f"line {event.start_mark.line + 1}: {why}")
