"""The settings of a server. In order of precedence: flags, environment, configuration file, file in the data folder, defaults.

The environment includes other systems' variables (`PISTON_RUN_TIMEOUT`, `DOCKER_API_URL` ...); `FIREBOX_` ones take precedence.
The configuration file is TOML, or Runner's YAML.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from firebox.domain.errors import SettingsError
from firebox.domain.model import CacheLevel
from firebox.domain.redaction import HIDDEN
from firebox.settings.declaration import ENVIRONMENT_PREFIX, Given, unreadable
from firebox.settings.limit_policy import LIMIT_SETTINGS, read_overrides, reconcile_maxima
from firebox.settings.other_systems.foreign_environment import read_foreign_environment
from firebox.settings.setting_values import Value
from firebox.settings.settings_table import ROWS, TABLE, SettingsTable, nearest

CONFIG_FILE_VARIABLE = "FIREBOX_CONFIG"

CORES_PER_LAUNCHER = 8
"""Cores that one launcher keeps busy with small programs, roughly."""

DATA_FILE = "firebox.toml"
"""Name of the settings file in the data folder."""

_RUNNER_FILE_VARIABLE = "CONFIG_PATH"
_RUNNER_FILE_SUFFIXES = (".yaml", ".yml")
_MIN_READY = 4
_CORES = os.cpu_count() or 1
_VARIABLES = {setting.variable: setting.name for setting in TABLE}


class Settings(SettingsTable, frozen=True, kw_only=True, eq=False):
    """Every setting with its final value, and what follows from several of them; immutable. `load_settings` creates it."""

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{setting.name}={self.shown(setting.name)!r}' for setting in TABLE)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(setting.name, self.shown(setting.name)) for setting in TABLE]

    def value(self, name: str) -> Value:
        """Return the value of a setting. Raises: KeyError."""
        return cast("Value", self.limits[name] if name in self.limits else getattr(self, ROWS[name].name))

    def shown(self, name: str) -> Value:
        """Return the value of a setting without tokens and passwords. Raises: KeyError."""
        return cast("Value", ROWS[name].shown(self.value(name)))

    def source(self, name: str) -> str:
        """Return where a value came from: default, flag, environment NAME or file PATH. Raises: KeyError."""
        return self.sources.get(ROWS[name].name, "default")

    def refused(self, name: str, *, allowed: str, value: object = None, hint: str = "") -> SettingsError:
        """Return the error for the value of a setting. value: in place of it, None to show it without secrets."""
        shown = self.shown(name) if value is None else value
        return SettingsError(name, value=shown, allowed=allowed, source=self.source(name), hint=hint)

    @property
    def slot_count(self) -> int:
        """Maximum jobs running at once."""
        return self.slots or _CORES + self.reserved_count

    @property
    def reserved_count(self) -> int:
        """Slots reserved for clients without a running job."""
        reserved = self.reserved_slots if self.reserved_slots >= 0 else max(1, (self.slots or _CORES) // 4)
        return min(reserved, self.slots - 1) if self.slots else reserved

    @property
    def interactive_slot_count(self) -> int:
        """Maximum interactive jobs running at once."""
        return self.interactive_slots or 4 * (self.slots or _CORES)

    @property
    def interactive_reserved_count(self) -> int:
        """Interactive slots reserved for clients without an interactive job."""
        return max(1, self.interactive_slot_count // 4) if self.reserved_slots else 0

    @property
    def ready_count(self) -> int:
        """Maximum idle sandboxes per configuration."""
        return self.ready_sandboxes if self.ready_sandboxes >= 0 else max(_MIN_READY, self.slot_count)

    @property
    def launcher_count(self) -> int:
        """Number of launcher processes."""
        return self.launchers or max(1, _CORES // CORES_PER_LAUNCHER)

    def preloaded(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the modules that a prestarted interpreter loads. names: the most specific first, see `Runtime.setting_names`."""
        return next((self.preload[name.lower()] for name in names if name.lower() in self.preload), ())

    def cache_level(self, names: Iterable[str]) -> CacheLevel | None:
        """Return the configured cache level, or None. names: as for `preloaded`."""
        return next((self.cache_levels[name.lower()] for name in names if name.lower() in self.cache_levels), None)


def load_settings(
    flags: Mapping[str, object] | None = None, config_file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Load the settings.

    flags: by name; None counts as unset. config_file: TOML, or Runner's YAML; None: the file that FIREBOX_CONFIG names, or
    CONFIG_PATH if that is YAML, or none. environ: `os.environ` if None.
    Raises: SettingsError, naming the setting, its value, what is allowed and the source of the value.
    """
    environ = os.environ if environ is None else environ
    foreign_warnings: list[str] = []
    warnings: list[str] = []
    ours = _read_environment(environ, warnings) | _read_flags(flags or {})
    foreign = read_foreign_environment(environ, ours, foreign_warnings)
    file = config_file or _file_named_in(environ)
    given = (_read_config_file(file, warnings) if file is not None else {}) | foreign | ours
    data_folder = _data_folder(given, environ)
    given = _read_data_file(data_folder) | given

    values: dict[str, Any] = {name: ROWS[name].read_given(item) for name, item in given.items() if name != "limit_overrides"}
    if "limit_overrides" in given:
        values["limit_overrides"] = read_overrides(given["limit_overrides"])
    values["data_dir"] = data_folder
    values |= {name: data_folder / values.get(name, ROWS[name].default) for name in ("runtimes_dir", "trusted_keys_dir")}
    reconcile_maxima(values, given)
    limits = {name: values.pop(name, ROWS[name].default) for name in LIMIT_SETTINGS}
    sources = {name: item.source for name, item in given.items()}
    return Settings(**values, limits=limits, sources=sources, warnings=(*foreign_warnings, *warnings))


def _data_folder(given: Mapping[str, Given], environ: Mapping[str, str]) -> Path:
    path = Path(str(ROWS["data_dir"].read_given(given["data_dir"]))) if "data_dir" in given else _default_data_folder(environ)
    return path if path.is_absolute() else Path.cwd() / path  # Path.absolute would fail in a deleted folder


def _default_data_folder(environ: Mapping[str, str]) -> Path:
    """Return the system's data folder for root, and the user's own for others.

    Source: XDG Base Directory Specification, "XDG_DATA_HOME" (a relative value is to be ignored).
    """
    if os.geteuid() == 0:
        return SettingsTable().data_dir
    data_home = Path(environ.get("XDG_DATA_HOME", ""))
    if not data_home.is_absolute():
        data_home = Path(environ.get("HOME") or Path.home()) / ".local" / "share"
    return data_home / "firebox"


def _file_named_in(environ: Mapping[str, str]) -> Path | None:
    """Return the configuration file that the environment names. Programs other than Runner use CONFIG_PATH too."""
    if named := environ.get(CONFIG_FILE_VARIABLE):
        return Path(named)
    named = environ.get(_RUNNER_FILE_VARIABLE, "")
    return Path(named) if named.lower().endswith(_RUNNER_FILE_SUFFIXES) else None


def _read_config_file(path: Path, warnings: list[str]) -> dict[str, Given]:
    if path.suffix.lower() not in _RUNNER_FILE_SUFFIXES:
        return _read_toml(path)
    from firebox.settings.other_systems.runner_file import read_runner_file  # loads a YAML parser

    return read_runner_file(path, warnings)


def _read_data_file(folder: Path) -> dict[str, Given]:
    """Read the settings file in the data folder, if there is one. Raises: SettingsError."""
    file = folder / DATA_FILE
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable(file, error) from None
    if mode & stat.S_IWOTH:
        # The operator did not name this file and may not know of it.
        raise SettingsError("config", value=str(file), allowed="a file that is not world-writable", hint=f"chmod o-w {file}")
    given = _read_toml(file)
    if item := given.get("data_dir"):
        raise SettingsError("data_dir", value=item.value, allowed="set elsewhere: this file is in it", source=item.source)
    return given


def _read_toml(path: Path) -> dict[str, Given]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError("config", value=str(path), allowed="a TOML file", hint=str(error)) from None
    return _known(table, f"file {path}")


def _read_flags(flags: Mapping[str, object]) -> dict[str, Given]:
    return _parse_json({name: given for name, given in _known(flags, "flag").items() if given.value is not None})


def _known(values: Mapping[str, object], source: str) -> dict[str, Given]:
    """Return the values with their source. Raises: SettingsError for an unknown name."""
    for name, value in values.items():
        if name not in ROWS:
            shown = value if isinstance(value, int | float) else HIDDEN  # it may be a token
            raise SettingsError(name, value=shown, allowed="a known setting", source=source, hint=nearest(name, ROWS))
    return {name: Given(value, source) for name, value in values.items()}


def _read_environment(environ: Mapping[str, str], warnings: list[str]) -> dict[str, Given]:
    """Read the FIREBOX_ variables, and add a warning for each one that is no setting. Empty values count as unset."""
    given: dict[str, Given] = {}
    for variable, value in sorted(environ.items()):
        if variable in _VARIABLES and value:
            given[_VARIABLES[variable]] = Given(value, f"environment {variable}")
        elif variable.startswith(ENVIRONMENT_PREFIX) and variable not in {*_VARIABLES, CONFIG_FILE_VARIABLE}:
            hint = nearest(variable.removeprefix(ENVIRONMENT_PREFIX).lower(), ROWS, ENVIRONMENT_PREFIX)
            warnings.append(f"{variable} is not a setting and has no effect" + (f"; {hint}" if hint else ""))
    return _parse_json(given)


def _parse_json(given: dict[str, Given]) -> dict[str, Given]:
    """Parse the limit overrides, which are a JSON object in a flag or variable."""
    item = given.get("limit_overrides")
    if item is not None and isinstance(item.value, str):
        import json  # rarely needed

        try:
            given["limit_overrides"] = Given(json.loads(item.value), item.source)
        except (ValueError, RecursionError):
            raise SettingsError("limit_overrides", value=item.value, allowed="a JSON object", source=item.source) from None
    return given
