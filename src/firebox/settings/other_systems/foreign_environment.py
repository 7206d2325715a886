"""Environment variables of other systems, read as our settings.

If two systems disagree about a setting, the one named first in its declaration wins, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from firebox.settings.declaration import Given, Setting
from firebox.settings.other_systems.aliases import Alias, Piston, Runner
from firebox.settings.settings_table import TABLE

_GLOT_ONLY = ("API_ENVIRONMENT", "API_HTTP_LISTEN_IP", "API_HTTP_LISTEN_PORT", "DOCKER_API_URL", "DOCKER_RUN_TIMEOUT")
"""Variables that no other program uses."""

_ALIASED = [setting for setting in TABLE if setting.aliases]


def read_foreign_environment(environ: Mapping[str, str], decided: Container[str], warnings: list[str]) -> dict[str, Given]:
    """Read the settings that variables of other systems set, and add a warning for each variable without effect.

    Empty values count as unset. decided: settings that have a value of higher precedence.
    Raises: SettingsError for a value that the other system would reject too.
    """
    is_glot = any(environ.get(name) for name in _GLOT_ONLY)
    warnings += _without_effect(environ, is_glot=is_glot)
    given: dict[str, Given] = {}
    for setting in _ALIASED:
        values = list(_values(setting, environ, is_glot=is_glot))
        for name, value in values[:1]:
            given[setting.name] = Given(value, f"environment {name}")
        for name, value in values[1:]:
            if str(value) != str(values[0][1]) and setting.name not in decided:
                warnings.append(f"{values[0][0]} and {name} disagree about {setting.name}: {values[0][0]} wins")
    if "limit_overrides" in given:
        from firebox.settings.other_systems.piston_settings import translate_overrides  # rarely needed

        given["limit_overrides"] = replace(given["limit_overrides"], value=translate_overrides(given["limit_overrides"].value))
    return given


def _values(setting: Setting, environ: Mapping[str, str], *, is_glot: bool) -> Iterator[tuple[str, Any]]:
    """Yield variable and value of each system that sets the setting."""
    systems: set[type[Alias]] = set()
    for alias in setting.aliases:
        text = environ.get(alias.name)
        if not text or isinstance(alias, Runner) or type(alias) in systems or (alias.shared and not is_glot):
            continue
        value = setting.translate(alias, text, f"environment {alias.name}")
        if value is not None:
            systems.add(type(alias))
            yield alias.name, value


def _without_effect(environ: Mapping[str, str], *, is_glot: bool) -> Iterator[str]:
    known = {alias.name for setting in _ALIASED for alias in setting.aliases}
    for name, value in sorted(environ.items()):
        if name.startswith(Piston.prefix) and value and name not in known:
            if name != "PISTON_DISABLE_NETWORKING":
                yield f"{name} is not supported and has no effect"
            elif value.strip().lower() != "true":
                yield f"{name} is {value!r} and has no effect: programs never have network access"
    if is_glot and environ.get("API_ENVIRONMENT"):
        yield "API_ENVIRONMENT has no effect: nothing is recompiled while the server runs"
    if is_glot and environ.get("LOG_PATH"):
        yield "LOG_PATH has no effect: logs go to standard error"
    if environ.get("DOCKER_TLS_VERIFY") and (environ.get("DOCKER_HOST") or environ.get("DOCKER_HOST_RUNNERS")):
        yield "DOCKER_TLS_VERIFY has no effect: connections to the engine do not use TLS; use its socket or a tunnel"
