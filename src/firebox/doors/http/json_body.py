"""Strict JSON: one parser for all doors, with errors that name the problem and its place."""

from __future__ import annotations

import json
import re
import sys
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, NoReturn, TypeVar, Union, cast, get_args, get_origin

import msgspec

from firebox.domain.errors import InvalidRequest
from firebox.doors.http.json_size import Checked

T = TypeVar("T")

SHOWN_CHARACTERS = 64
SHOWN_PATH_CHARACTERS = 512
SHOWN_MESSAGE_CHARACTERS = 1000
EXACT_FLOATS = 2**53
_TOO_DEEP = "the JSON is nested too deeply"


def decode(body: Checked, type_: type[T]) -> T:
    """Decode a JSON document as `type_`, without duplicate keys, unknown keys, NaN or type coercion. Raises: InvalidRequest;
    `where` is a path such as "files[0].name", or a position in the text for invalid JSON.
    """
    return convert(parse(body), type_)


def parse(body: Checked) -> object:
    """Parse a JSON document into dicts, lists, strings, numbers, booleans and None.

    Lone surrogates pass (an escape can spell half a character): encoding the text rejects them later, with the name of the field.
    Raises: InvalidRequest for anything but one JSON document in UTF-8.
    """
    repeated: tuple[dict[str, object], str] | None = None

    def as_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeated
        found = dict(pairs)
        if len(found) != len(pairs):
            # The last value wins: what a duplicate key removes comes before the object that has both.
            repeated = found, _first_repeated(name for name, _ in pairs)
        return found

    try:
        text = body.removeprefix(BOM_UTF8).decode()
        document: object = json.loads(text, object_pairs_hook=as_object, parse_float=_number, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest("the body is not UTF-8", where=f"byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidRequest(f"the body is not JSON: {error.msg}", where=where) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    except ValueError:  # the only other cause; see sys.set_int_max_str_digits
        raise InvalidRequest(f"a number has more than {sys.int_info.default_max_str_digits} digits") from None
    if repeated is not None:
        holder, key = repeated
        raise InvalidRequest(f"duplicate key {_cut(key)!r}", where=_join(_path_to(document, holder) or "", key))
    return document


def parse_object(body: Checked) -> dict[str, Any]:
    """Parse a JSON object, as `parse` does. Raises: InvalidRequest."""
    document = parse(body)
    if not isinstance(document, dict):
        raise InvalidRequest("the body is not a JSON object")
    return cast("dict[str, Any]", document)


def convert(document: object, type_: type[T]) -> T:
    """Validate a parsed document against a msgspec type. Raises: InvalidRequest with the path and, for an unknown key, the
    closest known one as a hint.
    """
    try:
        return msgspec.convert(document, type_)
    except msgspec.ValidationError as error:
        raise _explain(str(error), document, type_) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None


def _number(text: str) -> float:
    """Parse a whole number as an int in any notation: some clients write 3000.0 for 3000."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= EXACT_FLOATS else value


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not a JSON number", name, 0)


_PLACE = re.compile(r" - at `(?:key in )?\$\.?(?P<path>.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`$")


def _explain(words: str, document: object, type_: object) -> InvalidRequest:
    place = _PLACE.search(words)
    path = place["path"] if place else ""
    words = words[: place.start()] if place else words
    if unknown := _UNKNOWN.search(words):
        name = _cut(unknown["name"])
        near = get_close_matches(name, _keys_at(type_, path), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(_keys_at(type_, path))}"
        return InvalidRequest(f"unknown key {name!r}", where=_join(path, name), hint=hint)
    if missing := _MISSING.search(words):
        return InvalidRequest(f"{missing['name']} is required", where=_join(path, missing["name"]))
    words = words[:SHOWN_MESSAGE_CHARACTERS]  # it may quote the request
    return InvalidRequest(words[:1].lower() + words[1:], where=path or ("" if isinstance(document, dict) else "body"))


def _keys_at(type_: object, path: str) -> list[str]:
    """Return the keys that the object at `path` may have."""
    structs = _structs(type_)
    for step in re.findall(r"[^.\[\]]+", path):
        if not step.isdigit() and step != "...":
            fields = [field for struct in structs for field in msgspec.structs.fields(struct)]
            structs = [inner for field in fields if field.encode_name == step for inner in _structs(field.type)]
    return [field.encode_name for struct in structs for field in msgspec.structs.fields(struct)]


def _structs(type_: object) -> list[type[msgspec.Struct]]:
    """Return the structs within a type: `list[File] | None` contains `File`."""
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return [type_]
    if get_origin(type_) is Annotated:
        return _structs(get_args(type_)[0])
    if get_origin(type_) in {list, tuple, dict, Union, UnionType}:
        return [struct for inner in get_args(type_) if inner is not NoneType for struct in _structs(inner)]
    return []


def _first_repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise ValueError("no name is repeated")


def _path_to(document: object, target: object) -> str | None:
    """Return the path of an object in a document, found by identity. The path is built only for the match: documents may be as
    deep as the parser allows, with long keys, and wide at the end.
    """
    if document is target:
        return ""
    steps: list[str | int] = []
    waiting = [_members(document)]
    while waiting:
        for step, value in waiting[-1]:
            if value is target:
                return _path([*steps, step])
            if isinstance(value, dict | list):
                steps.append(step)
                waiting.append(_members(cast(object, value)))
                break
        else:
            waiting.pop()
            del steps[-1:]
    return None


def _members(value: object) -> Iterator[tuple[str | int, object]]:
    if isinstance(value, dict):
        return iter(cast("dict[str | int, object]", value).items())
    return enumerate(cast("list[object]", value)) if isinstance(value, list) else iter(())


def _path(steps: Iterable[str | int]) -> str:
    path = ""
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else _join(path, step)
        if len(path) > SHOWN_PATH_CHARACTERS:
            return path[:SHOWN_PATH_CHARACTERS] + "..."
    return path


def _join(path: str, key: str) -> str:
    return f"{path}.{_cut(key)}" if path else _cut(key)


def _cut(name: str) -> str:
    """Shorten a client's text for an error message."""
    return name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "..."
