"""The environment as all other systems together would read it.

Two systems that disagree about a setting: the one that comes first in `SYSTEMS` counts, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from firebox.settings.other_systems import glot_settings, grounds_settings, piston_settings
from firebox.settings.other_systems.result import Found

SYSTEMS = (piston_settings, glot_settings, grounds_settings)
"""Runner is not among them: it reads a file, see runner.py."""


def read_other_environments(environ: Mapping[str, str], decided: Container[str]) -> Found:
    """Translate the names of every other system. decided: settings that something above them decides already.

    Raises: SettingsError for a value that the other system would refuse too.
    """
    together = Found()
    for system in SYSTEMS:
        found = system.read_environment(environ)
        together.warnings.extend(found.warnings)
        for setting, (value, variable) in found.values.items():
            first = together.values.setdefault(setting, (value, variable))
            if setting not in decided and str(first[0]) != str(value):
                together.warnings.append(f"{first[1]} and {variable} disagree about {setting}: {first[1]} counts")
    return together
