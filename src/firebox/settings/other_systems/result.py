"""What a reader of another system's names gives back."""

from __future__ import annotations

from msgspec import Struct, field


class Found(Struct, frozen=True):
    """The settings that another system's names decide.

    values: setting -> value and the name it came from, as the user wrote that name; warnings: sentences about names that were
    set without effect.
    """

    values: dict[str, tuple[object, str]] = field(default_factory=dict[str, tuple[object, str]])
    warnings: list[str] = field(default_factory=list[str])


def no_effect(name: str, reason: str = "") -> str:
    """The warning about a name that means nothing here."""
    return f"{name} has no effect: {reason}" if reason else f"{name} has no meaning here and no effect"
