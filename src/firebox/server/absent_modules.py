"""Hide optional dependencies while libraries are imported.

Several libraries import another one whenever it is installed, for features that are not used here: structlog imports Rich,
Litestar pydantic. That costs a command more time than its own modules do.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

UNUSED_BY_SERVERS = ("annotated_types", "attr", "attrs", "pydantic", "pygments", "rich")
"""Imported by Litestar, httpx and structlog: much of the startup time, and many megabytes of every server."""


@contextmanager
def absent(*names: str) -> Generator[None]:
    """Make importing these modules fail inside the context, as if they were not installed. Modules that are already loaded stay.
    Source: importlib, "sys.modules": None in place of a module.
    """
    hidden = [name for name in names if name not in sys.modules]
    cast("dict[str, ModuleType | None]", sys.modules).update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
