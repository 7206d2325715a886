"""`firebox --version`."""

from __future__ import annotations

import firebox

FLAGS = ("--version", "-V")


def show_version() -> None:
    """Print the version."""
    print(f"firebox {firebox.__version__}")
