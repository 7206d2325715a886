"""grounds-exec's environment names, read as our settings.

`DOCKER_HOST` is what every client of the Docker Engine reads; `DOCKER_HOST_RUNNERS` goes before it, as in the reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from firebox.settings.other_systems.result import Found, no_effect

SYSTEM = "grounds-exec"

NAMES: Mapping[str, str] = {
    "DOCKER_HOST": "docker_url",
    "DOCKER_HOST_RUNNERS": "docker_url",
    "REPOSITORY": "grounds_repository",
    "TAG": "grounds_tag",
}
"""A later name goes before an earlier one of the same setting."""


def read_environment(environ: Mapping[str, str]) -> Found:
    """Translate the names of grounds-exec that are set. Empty values count as not set, as there."""
    found = Found()
    for variable, setting in NAMES.items():
        if value := environ.get(variable):
            found.values[setting] = (value, variable)
    if "docker_url" in found.values and environ.get("DOCKER_TLS_VERIFY"):
        found.warnings.append(no_effect("DOCKER_TLS_VERIFY", "the engine is spoken to without TLS; use its socket or a tunnel"))
    return found
