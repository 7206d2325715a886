"""Libraries of other people publish few types, and may be missing on a laptop."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tests.conftest import missing


def load(name: str) -> Any:
    """Import a library; without it skip the test, or fail it where everything must be there."""
    try:
        return import_module(name)
    except ImportError:
        missing(f"{name} is not installed")
