"""Strict JSON: one way to read a body, and errors that say what is wrong and where."""

from __future__ import annotations

import json
import re
from collections import Counter
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, NoReturn, TypeVar, Union, cast, get_args, get_origin

import msgspec

from firebox.errors import InvalidRequest

T = TypeVar("T")

SHOWN_CHARACTERS = 64
EXACT_FLOATS = 2**53
_TOO_DEEP = "the JSON is nested too deeply"


def decode(body: bytes | str, type_: type[T]) -> T:
    """Read a JSON document as `type_`: no duplicate keys, no unknown keys, no NaN, no guessing of types.

    Raises: InvalidRequest; `where` is a path like "files[0].name", or a position in the text when it is no JSON.
    """
    return convert(parse(body), type_)


def parse(body: bytes | str) -> object:
    """Read a JSON document into dicts, lists, strings, numbers, booleans and None.

    Lone surrogates (a JSON escape can spell half a character) pass: whoever encodes the text refuses them with the field's name.
    Raises: InvalidRequest for anything but one JSON document in UTF-8.
    """
    repeated: list[tuple[dict[str, object], str]] = []

    def as_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            repeated.append((found, next(name for name, count in counts.items() if count > 1)))
        return found

    try:
        text = body if isinstance(body, str) else body.decode("utf-8-sig")
        document: object = json.loads(text, object_pairs_hook=as_object, parse_float=_number, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest("the body is not UTF-8", where=f"byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidRequest(f"the body is not JSON: {error.msg}", where=where) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    except ValueError as error:  # an integer of more than 4,300 digits
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if repeated:
        holder, key = repeated[0]
        raise InvalidRequest(f"the key {_cut(key)!r} is there twice", where=_join(_path_to(document, holder) or "", key))
    return document


def convert(document: object, type_: type[T]) -> T:
    """Check a parsed document against a msgspec type.

    Raises: InvalidRequest with the path, and for an unknown key the nearest known one as a hint.
    """
    try:
        return msgspec.convert(document, type_)
    except msgspec.ValidationError as error:
        raise _explain(str(error), document, type_) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None


def _number(text: str) -> float:
    """Read a whole number as one however it is written: to some clients 3000.0 is the same as 3000."""
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
    return InvalidRequest(words[:1].lower() + words[1:], where=path or ("" if isinstance(document, dict) else "body"))


def _keys_at(type_: object, path: str) -> list[str]:
    """List the keys that the object at `path` may have."""
    structs = _structs(type_)
    for step in re.findall(r"[^.\[\]]+", path):
        if not step.isdigit() and step != "...":
            fields = [field for struct in structs for field in msgspec.structs.fields(struct)]
            structs = [inner for field in fields if field.encode_name == step for inner in _structs(field.type)]
    return [field.encode_name for struct in structs for field in msgspec.structs.fields(struct)]


def _structs(type_: object) -> list[type[msgspec.Struct]]:
    """List the structs that a type is made of: `list[File] | None` holds `File`."""
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return [type_]
    if get_origin(type_) is Annotated:
        return _structs(get_args(type_)[0])
    if get_origin(type_) in {list, tuple, dict, Union, UnionType}:
        return [struct for inner in get_args(type_) if inner is not NoneType for struct in _structs(inner)]
    return []


def _path_to(document: object, target: object) -> str | None:
    """Find an object in a document by identity. Walks with a list: a document may be as deep as the parser allows."""
    waiting: list[tuple[str, object]] = [("", document)]
    while waiting:
        path, value = waiting.pop()
        if value is target:
            return path
        if isinstance(value, dict):
            waiting += [(_join(path, key), inner) for key, inner in cast("dict[str, object]", value).items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", inner) for index, inner in enumerate(cast("list[object]", value))]
    return None


def _join(path: str, key: str) -> str:
    return f"{path}.{_cut(key)}" if path else _cut(key)


def _cut(name: str) -> str:
    """Shorten what a client sent to what is worth repeating."""
    return name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "..."
