"""A setting: what its declaration states in addition to name, type and default, and what derives from all of these."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from msgspec import Struct, structs

from firebox.domain.errors import SettingsError
from firebox.domain.redaction import hide_secret
from firebox.settings.other_systems.aliases import Alias
from firebox.settings.setting_values import KINDS, Kind, Value

ENVIRONMENT_PREFIX = "FIREBOX_"

_UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "": 1}


class Given(Struct, frozen=True):
    """A value as the operator wrote it. source: "flag", "environment NAME" or "file PATH"."""

    value: Any
    source: str


class Setting(Struct, frozen=True, eq=False):
    """One setting. Its field in `SettingsTable` states the first group of attributes; the others derive from the field.

    kind: stated for mappings only. least: where 0 means no limit, the lowest other value. secret: never shown. section: title
    of the section of docs/reference/settings.md that starts here.
    """

    help: str
    aliases: tuple[Alias, ...] = ()
    minimum: int = 0
    maximum: int | None = None
    least: int = 0
    kind: Kind = "text"
    secret: bool = False
    section: str = ""

    name: str = ""
    default: Value = ""
    choices: tuple[str, ...] = ()

    def of_field(self, name: str, type_: object, default: Value, **changes: Any) -> Setting:
        """Return the setting that a field declares. An integer has the unit that is part of its name."""
        kind = self.kind
        if type_ is int:
            kind = "ms" if name.endswith("_ms") else "s" if name.endswith("_s") else "bytes" if "_bytes" in name else "int"
        elif type_ is bool:
            kind = "bool"
        elif type_ is Path:
            kind = "path"
        elif type_ is not str and get_origin(type_) is Literal:
            changes["choices"] = get_args(type_)
        return structs.replace(self, name=name, kind=kind, default=default, **changes)

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def allowed(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        return KINDS[self.kind][1].format(range=self.range)

    @property
    def range(self) -> str:
        if self.minimum < self.least - 1:
            return f"{self.minimum}, or {self.least} or more"
        return f"from {self.minimum} to {self.maximum}" if self.maximum is not None else f"{self.minimum} or more"

    @property
    def default_text(self) -> str:
        """Return the default as a person would write it, or "" if it is empty."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if self.kind == "bytes" and isinstance(self.default, int) and self.default:
            unit = next(unit for unit, size in _UNITS.items() if self.default % size == 0)
            return f"{self.default // _UNITS[unit]}{unit}"
        return "" if isinstance(self.default, Mapping) else str(self.default)

    def shown(self, value: object) -> object:
        """Return a value, valid or not, without secrets."""
        return hide_secret(value, self.secret)

    def read(self, value: object) -> Value:
        """Parse a value from a flag, the environment or a file. Raises: ValueError if it is not one of the `allowed` ones."""
        result = KINDS[self.kind][0](value)
        if isinstance(result, int) and not self._in_range(result):
            raise ValueError(value)
        if self.choices and result not in self.choices:
            raise ValueError(value)
        return result

    def read_given(self, given: Given, name: str = "") -> Value:
        """Parse what the operator wrote. name: the setting in an error, by default its own. Raises: SettingsError."""
        try:
            return self.read(given.value)
        except (ValueError, RuntimeError):  # RuntimeError: a "~user" that does not exist
            raise SettingsError(
                name or self.name, value=self.shown(given.value), allowed=self.allowed, source=given.source
            ) from None

    def translate(self, alias: Alias, value: object, source: str) -> Any:
        """Translate the value of an alias. Return None if it does not decide the setting. Raises: SettingsError."""
        try:
            return alias.read(value)
        except ValueError as error:
            raise SettingsError(self.name, value=self.shown(value), allowed=str(error), source=source) from None

    def _in_range(self, number: int) -> bool:
        return self.minimum <= number and not 0 < number < self.least and (self.maximum is None or number <= self.maximum)


def unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError("config", value=str(path), allowed="a readable file", hint=f"{error.strerror}")
