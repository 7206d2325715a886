"""A strict YAML subset for untrusted input: mappings, lists and strings only, with bounded size and depth.

Aliases (exponential expansion) and tags (arbitrary types) are rejected before anything is constructed. Scalars stay strings, so
a version such as `3.10` is not parsed as a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
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
    events = _nodes(content)
    try:
        documents = [_value(event, events, depth=0) for event in events]
    except yaml.YAMLError as error:
        raise InvalidYaml(" ".join(str(error).split())[:300]) from None
    except UnicodeError:
        raise InvalidYaml("not UTF-8") from None
    if len(documents) != 1:
        raise InvalidYaml("it contains several documents" if documents else "it is empty")
    return documents[0]


def _nodes(content: bytes) -> Iterator[Any]:
    """Yield the allowed events of strings and collections."""
    for number, event in enumerate(yaml.parse(content, Loader=_LOADER)):
        if number > MAX_EVENTS:
            raise InvalidYaml("too many elements")
        if isinstance(event, yaml.AliasEvent):
            raise _error(event, "aliases are not allowed")
        if isinstance(event, yaml.NodeEvent):
            if event.anchor is not None:
                raise _error(event, "anchors are not allowed")
            if getattr(event, "tag", None) is not None:
                raise _error(event, "tags are not allowed")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_STRING_CHARS:
                raise _error(event, "a string is too long")
            yield event
        elif isinstance(event, yaml.CollectionEndEvent):
            yield event


def _value(event: Any, events: Iterator[Any], *, depth: int) -> YamlValue:
    """Build the value that starts with this event; take the rest of it from `events`."""
    if isinstance(event, yaml.ScalarEvent):
        return None if event.implicit[0] and event.value in _NULLS else event.value
    if depth >= MAX_DEPTH:
        raise _error(event, "nested too deeply")
    inside = takewhile(lambda each: not isinstance(each, yaml.CollectionEndEvent), events)
    if isinstance(event, yaml.SequenceStartEvent):
        return [_value(each, events, depth=depth + 1) for each in inside]
    mapping: dict[str, YamlValue] = {}
    for key in inside:
        if not isinstance(key, yaml.ScalarEvent):
            raise _error(key, "a key must be a string")
        if key.value in mapping:
            raise _error(key, f"{key.value[:40]!r} is a duplicate key")
        mapping[key.value] = _value(next(events), events, depth=depth + 1)
    return mapping


def _error(event: Any, why: str) -> InvalidYaml:
    return InvalidYaml(f"line {event.start_mark.line + 1}: {why}")
