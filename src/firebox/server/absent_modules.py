"""Imports without what they can do without.

Several libraries look whether another one is installed and load it for features that are not used here: structlog loads
Rich, Litestar pydantic. That costs each command more time than its own modules.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

OF_NO_USE_TO_SERVERS = ("annotated_types", "attr", "attrs", "pydantic", "pygments", "rich")
"""Loaded by Litestar, httpx and structlog: much of the time of a start, and many megabytes of every server."""


@contextmanager
def absent(*names: str) -> Generator[None]:
    """Make the import of these modules fail while the context lasts, as if they were not installed.

    Modules that are loaded already stay. Source: importlib, "sys.modules": None in the place of a module.
    """
    hidden = [name for name in names if name not in sys.modules]
    cast("dict[str, ModuleType | None]", sys.modules).update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
