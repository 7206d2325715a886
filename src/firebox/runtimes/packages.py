"""Which packages bring a language whose tools are not on this machine."""

from __future__ import annotations

from collections.abc import Iterable

from firebox.runtimes.definition import Definition


def named(definitions: Iterable[Definition], name: str) -> list[Definition]:
    """List the definitions that a name stands for: the language of that name first, then those it is an alias of.

    Of several the one with the highest rank comes first, as when it is to be run.
    """
    wanted = name.strip().lower()
    found = sorted(definitions, key=lambda definition: -definition.rank)
    own = [definition for definition in found if definition.language.lower() == wanted]
    return own + [each for each in found if each not in own and wanted in {alias.lower() for alias in each.aliases}]


def packages_hint(definitions: Iterable[Definition], name: str) -> str:
    """Say what has to be installed for a language, "" when the name is unknown or nothing is known."""
    return next((words for definition in named(definitions, name) if (words := definition.packages.words())), "")
