"""Every error there is, for the tests of the doors' tables. Errors are known once the modules that define them are loaded."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from firebox.domain import errors


def all_errors() -> list[type[errors.FireboxError]]:
    """List every class of ours that is loaded, each once."""
    return [class_ for class_ in dict.fromkeys(_family(errors.FireboxError)) if class_.__module__.startswith("firebox.")]


def make_error(class_: type[errors.FireboxError], words: str = "words") -> errors.FireboxError:
    """Make an error with something plausible for each argument. words: for those that are text."""
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(class_).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            is_number = "float" in str(parameter.annotation) or "int" in str(parameter.annotation)
            values[name] = 3 if is_number else words
    return class_(**values)


def _family(class_: type[errors.FireboxError]) -> Iterator[type[errors.FireboxError]]:
    yield class_
    for child in class_.__subclasses__():
        yield from _family(child)
