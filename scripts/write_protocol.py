"""native/protocol.h, from the declarations in src/firebox/sandbox/protocol/messages.py: `make docs` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

from firebox.sandbox.protocol import messages

HEADER = Path(__file__).resolve().parent.parent / "native/protocol.h"
_TYPES = {"I": "uint32_t", "i": "int32_t", "Q": "uint64_t"}


def protocol_header() -> str:
    """Return the text of the header."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "/* The messages between the server, the launcher and PID 1 of a sandbox."
    yield " *"
    yield " * Written by `make docs` from src/firebox/sandbox/protocol/messages.py, which explains every field:"
    yield " * change it there. */"
    yield "#ifndef FIREBOX_PROTOCOL_H"
    yield "#define FIREBOX_PROTOCOL_H"
    yield ""
    yield "#include <stdint.h>"
    yield ""
    for name in messages.CONSTANTS:
        value = getattr(messages, name)
        yield f"#define PROTOCOL_{name} " + (f'"{value}"' if isinstance(value, str) else f"{value}U")
    for enumeration in declared(IntEnum, IntFlag):
        prefix = _snake(enumeration.__name__)
        yield ""
        yield f"enum {prefix} {{"
        for member in enumeration:
            yield f"    {prefix.upper()}_{member.name} = {member.value},"
        yield "};"
    for structure in declared(tuple):
        name = _snake(structure.__name__)
        yield ""
        yield f"struct {name} {{"
        for field, kind in structure.__annotations__.items():
            yield f"    {_TYPES[kind.__metadata__[0]]} {field};"
        yield "};"
        yield f'_Static_assert(sizeof(struct {name}) == {messages.layout(structure).size}, "layout of {name}");'
    yield ""
    yield "#endif"


def declared(*kinds: type) -> list[Any]:
    """Return the types that the module declares, in its order. kinds: what they are subclasses of."""
    own = (each for each in vars(messages).values() if isinstance(each, type) and each.__module__ == messages.__name__)
    return [each for each in own if issubclass(each, kinds)]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
