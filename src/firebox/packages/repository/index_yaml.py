"""A strict YAML subset for untrusted input: mappings, lists and strings only, with bounded size and depth.

Aliases (exponential expansion) and tags (arbitrary types) are rejected before anything is constructed. Scalars stay strings, so
a version such as `3.10` is not parsed as a number.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import yaml

YamlValue: TypeAlias = "str | list[YamlValue] | dict[str, YamlValue] | None"
"""A parsed YAML value: string, list or mapping; None for `null` and empty values."""

MAX_EVENTS = 4_000_000
"""Scalars plus start and end events of collections: about 80 for each of 50,000 packages."""
MAX_DEPTH = 6
MAX_STRING_CHARS = 64 << 10
_NULLS = {"", "~", "null", "Null", "NULL"}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser if available: ten times as fast."""


class InvalidYaml(ValueError):
    """Invalid or unsupported YAML. The message includes the line number."""


def parse_yaml(content: bytes) -> YamlValue:
    """Parse a single YAML document. Raises: InvalidYaml."""
    reader = _Builder()
    try:
        for number, event in enumerate(yaml.parse(content, Loader=_LOADER)):
            if number > MAX_EVENTS:
                raise InvalidYaml("too many elements")
            reader.handle(event)
    except yaml.YAMLError as error:
        raise InvalidYaml(" ".join(str(error).split())[:300]) from None
    except UnicodeError:
        raise InvalidYaml("not UTF-8") from None
    return reader.result()


class _Builder:
    """Builds values from parser events."""

    def __init__(self) -> None:
        self._documents: list[YamlValue] = []
        self._open: list[list[YamlValue] | dict[str, YamlValue]] = []
        self._keys: list[str | None] = []
        """Per open collection: the mapping key awaiting its value; None if a key is expected next, and for lists."""

    def result(self) -> YamlValue:
        if len(self._documents) != 1:
            raise InvalidYaml("it is empty" if not self._documents else "it contains several documents")
        return self._documents[0]

    def handle(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise _error(event, "aliases are not allowed")
        if isinstance(event, yaml.NodeEvent):
            if event.anchor is not None:
                raise _error(event, "anchors are not allowed")
            if getattr(event, "tag", None) is not None:
                raise _error(event, "tags are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._begin(event, {} if isinstance(event, yaml.MappingStartEvent) else [])
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._open.pop()
            self._keys.pop()

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        if len(text) > MAX_STRING_CHARS:
            raise _error(event, "a string is too long")
        inside = self._open[-1] if self._open else None
        if isinstance(inside, dict) and self._keys[-1] is None:
            if text in inside:
                raise _error(event, f"{text[:40]!r} is a duplicate key")
            self._keys[-1] = text
            return
        self._add(event, None if event.implicit[0] and text in _NULLS else text)

    def _begin(self, event: Any, value: list[YamlValue] | dict[str, YamlValue]) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise _error(event, "nested too deeply")
        self._add(event, value)
        self._open.append(value)
        self._keys.append(None)

    def _add(self, event: Any, value: YamlValue) -> None:
        if not self._open:
            self._documents.append(value)
            return
        inside = self._open[-1]
        if isinstance(inside, list):
            inside.append(value)
            return
        key = self._keys[-1]
        if key is None:
            raise _error(event, "a key must be a string")
        inside[key] = value
        self._keys[-1] = None


def _error(event: Any, why: str) -> InvalidYaml:
    return InvalidYaml(f"line {event.start_mark.line + 1}: {why}")
