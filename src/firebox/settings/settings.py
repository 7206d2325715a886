"""The settings of a server, from flags, environment, a file and the data folder, in this order; then the defaults.

Names of other systems (`PISTON_RUN_TIMEOUT`, `DOCKER_API_URL` ...) count as environment too, below `FIREBOX_` ones. The file is
TOML, or Runner's YAML.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from firebox.domain.errors import SettingsError
from firebox.domain.limits import LimitRequest, Limits, OutputMode, StageName
from firebox.domain.model import CacheLevel
from firebox.domain.redaction import HIDDEN
from firebox.settings.other_systems import runner_settings
from firebox.settings.other_systems.foreign_environment import read_other_environments
from firebox.settings.setting_values import Value
from firebox.settings.settings_table import (
    CONFIG_FILE_VARIABLE,
    ENVIRONMENT_PREFIX,
    LIMIT_NAMES,
    ROWS,
    STAGES,
    TABLE,
    Row,
    default_data_folder,
)

CORES_A_LAUNCHER = 8
"""One launcher keeps about so many cores busy with programs that do little."""

DATA_FILE = "firebox.toml"
"""The settings that lie in the data folder."""

_READY_AT_LEAST = 4
_CORES = os.cpu_count() or 1


class Given(NamedTuple):
    """A value somebody gave for a setting, before it is read. source: "flag", "environment NAME" or "file PATH"."""

    value: object
    source: str


class Settings:
    """Every setting, decided; never changes. Each row of the table is an attribute; those below have their types spelled out.

    The limits (`run_wall_ms`, `max_run_wall_ms` ...) are attributes too; `default_limits` and `maximum_limits` give them as
    `model.Limits`. warnings: words about names that were set without effect.
    """

    host: str
    port: int
    data_dir: Path
    runtimes_dir: Path
    slots: int
    reserved_slots: int
    slots_per_client: int
    interactive_slots: int
    interactive_wall_ms: int
    interactive_cpu_ms: int
    interactive_idle_ms: int
    queue_length: int
    queue_per_client: int
    ready_sandboxes: int
    launchers: int
    start_ahead: bool
    templates: bool
    template_age_s: int
    template_runs: int
    isolate_templates: bool
    max_body_bytes: int
    held_bytes: int
    held_bytes_per_client: int
    connections: int
    connections_per_client: int
    max_artifact_bytes: int
    max_artifact_files: int
    run_retention_s: int
    runs_kept: int
    allow_public: bool
    allow_weak_isolation: bool
    cors_origins: str
    prepare_toolchains: bool
    uid_base: int
    job_cache_bytes: int
    job_cache_s: int
    repositories: str
    trusted_keys_dir: Path
    allow_unsigned_packages: bool
    max_package_bytes: int
    uninstall_wait_ms: int
    require_login: bool
    admin_token: str
    user_runs_per_minute: int
    user_concurrent_runs: int
    user_cpu_seconds_per_day: int
    anonymous_runs_per_minute: int
    anonymous_concurrent_runs: int
    anonymous_cpu_seconds_per_day: int
    allowed_hosts: str
    trusted_proxies: str
    database_url: str
    database_upgrade: bool
    redis_url: str
    cache_s: int
    snippet_retention_s: int
    usage_retention_s: int
    disabled_user_retention_s: int
    docker_url: str
    docker_run_timeout_ms: int
    docker_memory_bytes: int
    base_url: str
    glot_output_bytes: int
    grounds_wall_ms: int
    grounds_memory_bytes: int
    grounds_repository: str
    grounds_tag: str
    grpc_port: int
    runner_timeout_ms: int
    metrics_port: int
    sso_address: str
    sso_timeout_ms: int
    sso_retries: int
    log_level: str
    log_format: str
    preload: Mapping[str, tuple[str, ...]]
    """Per language or package (lower case): names of modules."""
    cache_levels: Mapping[str, CacheLevel]
    """Per language or package (lower case)."""
    limit_overrides: Mapping[str, Mapping[str, int | str]]
    """Per language or package (lower case): limit settings by name, as `run_memory_bytes`."""
    warnings: tuple[str, ...]

    def __init__(self, values: Mapping[str, Value], sources: Mapping[str, str], warnings: Iterable[str] = ()) -> None:
        """values: by the names of the table, complete and checked: use `load_settings`."""
        vars(self).update(values, warnings=tuple(warnings), _sources=dict(sources))
        # Every request asks for them.
        vars(self)["_default_limits"] = lru_cache(maxsize=4096)(self._decide_default_limits)
        vars(self)["_maximum_limits"] = lru_cache(maxsize=4096)(self._decide_maximum_limits)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings do not change: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"settings do not change: {name}")

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{row.name}={self.shown(row.name)!r}' for row in TABLE)})"

    def value(self, name: str) -> Value:
        """Get a setting by the name of its row. Raises: KeyError."""
        return cast("Value", vars(self)[ROWS[name].name])

    def shown(self, name: str) -> Value:
        """Get a setting as it may be shown to anybody: tokens and passwords are hidden. Raises: KeyError."""
        return cast("Value", ROWS[name].shown(self.value(name)))

    def source(self, name: str) -> str:
        """Say where a setting's value came from: default, flag, environment NAME or file PATH. Raises: KeyError."""
        return cast("dict[str, str]", vars(self)["_sources"]).get(ROWS[name].name, "default")

    @property
    def slot_count(self) -> int:
        """How many jobs may run at once."""
        return self.slots or _CORES + self.reserved_count

    @property
    def reserved_count(self) -> int:
        """How many slots only clients without a running job get."""
        reserved = self.reserved_slots if self.reserved_slots >= 0 else max(1, (self.slots or _CORES) // 4)
        return min(reserved, self.slots - 1) if self.slots else reserved

    @property
    def interactive_slot_count(self) -> int:
        """How many interactive jobs may run at once."""
        return self.interactive_slots or 4 * (self.slots or _CORES)

    @property
    def interactive_reserved_count(self) -> int:
        """How many of them only clients without one get."""
        return max(1, self.interactive_slot_count // 4) if self.reserved_slots else 0

    @property
    def ready_count(self) -> int:
        """How many sandboxes of a kind are kept ready at most."""
        return self.ready_sandboxes if self.ready_sandboxes >= 0 else max(_READY_AT_LEAST, self.slot_count)

    @property
    def launcher_count(self) -> int:
        """How many processes make sandboxes."""
        return self.launchers or max(1, _CORES // CORES_A_LAUNCHER)

    def default_limits(self, stage: StageName, names: Iterable[str] = (), runtime: LimitRequest | None = None) -> Limits:
        """Give the limits of a stage when the request asks for none.

        names: for `limit_overrides`, the most exact first, see `Runtime.setting_names`. runtime: what the runtime's definition
        wants; it counts where the operator left the default alone, and never above the maximum.
        """
        return cast("Limits", vars(self)["_default_limits"](stage, tuple(names), runtime or LimitRequest()))

    def maximum_limits(self, stage: StageName, names: Iterable[str] = ()) -> Limits:
        """Give the most that a request may ask for a stage; 0 means no maximum. `output_mode` is the default one, not a maximum.

        names: as for `default_limits`: an override of a default lifts a lower maximum.
        """
        return cast("Limits", vars(self)["_maximum_limits"](stage, tuple(names)))

    def preloaded(self, names: Iterable[str]) -> tuple[str, ...]:
        """List the modules that an interpreter loads while it waits. names: as for `default_limits`."""
        return next((self.preload[name.lower()] for name in names if name.lower() in self.preload), ())

    def cache_level(self, names: Iterable[str]) -> CacheLevel | None:
        """Say what the operator wants kept of jobs; None: nothing was said. names: as for `default_limits`."""
        return next((self.cache_levels[name.lower()] for name in names if name.lower() in self.cache_levels), None)

    def _decide_default_limits(self, stage: StageName, names: tuple[str, ...], runtime: LimitRequest) -> Limits:
        limits = self._limits(f"{stage}_")
        maxima = self.maximum_limits(stage, names)
        for name in LIMIT_NAMES:
            wanted = getattr(runtime, name)
            if wanted is not None and self.source(f"{stage}_{name}") == "default":
                limits[name] = _capped(wanted, getattr(maxima, name))
        limits |= self._overridden(f"{stage}_", names)
        return msgspec.convert(limits, Limits)

    def _decide_maximum_limits(self, stage: StageName, names: tuple[str, ...]) -> Limits:
        maxima = self._limits(f"max_{stage}_")
        maxima |= self._overridden(f"max_{stage}_", names)
        return msgspec.convert(maxima, Limits)

    def _limits(self, prefix: str) -> dict[str, Any]:
        mode = self.value(prefix.removeprefix("max_") + "output_mode")
        return {name: vars(self).get(prefix + name, mode) for name in LIMIT_NAMES}

    def _overridden(self, prefix: str, names: Iterable[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in names:
            for key, value in self.limit_overrides.get(name.lower(), {}).items():
                if key.startswith(prefix):
                    found.setdefault(key.removeprefix(prefix), value)
        return found


def _capped(wanted: Any, maximum: Any) -> Any:
    """Hold a limit under its maximum. 0 is no cap, and no maximum."""
    if isinstance(wanted, OutputMode) or not maximum:
        return wanted
    return min(wanted, maximum) if wanted else maximum


def load_settings(
    flags: Mapping[str, object] | None = None,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings.

    flags: by the names of the table; None values count as not given. config_file: TOML, or Runner's YAML; None: what
    FIREBOX_CONFIG names, or CONFIG_PATH when that is YAML, or none. environ: `os.environ` when None.
    Raises: SettingsError, naming the setting, its value, what is allowed and where it came from.
    """
    environ = os.environ if environ is None else environ
    warnings: list[str] = []
    ours = _read_environment(environ, warnings) | _read_flags(flags or {})
    others = read_other_environments(environ, ours)
    warnings[:0] = others.warnings
    given: dict[str, Given] = {}
    file = config_file or _file_of(environ)
    if file is not None and file.suffix.lower() in runner_settings.SUFFIXES:
        of_runner = runner_settings.read_file(file, ROWS)
        given |= {name: Given(value, f"file {file} ({key})") for name, (value, key) in of_runner.values.items()}
        warnings += of_runner.warnings
    elif file is not None:
        given |= _read_file(file)
    given |= {name: Given(value, f"environment {variable}") for name, (value, variable) in others.values.items()}
    given |= ours
    given = _read_data_file(_data_folder(given, environ)) | given

    values: dict[str, Value] = {row.name: row.default for row in TABLE}
    for name, item in given.items():
        values[name] = _read(ROWS[name], item)
    overrides = given.get("limit_overrides", Given({}, "default"))
    values["limit_overrides"] = _read_overrides(
        cast("Mapping[str, Mapping[str, object]]", values["limit_overrides"]), overrides.source
    )
    data_folder = _data_folder(given, environ)
    values["data_dir"] = data_folder
    values |= {name: data_folder / str(values[name]) for name in ("runtimes_dir", "trusted_keys_dir")}
    _check_maxima(values, given)
    return Settings(values, {name: item.source for name, item in given.items()}, warnings)


def _data_folder(given: Mapping[str, Given], environ: Mapping[str, str]) -> Path:
    folder = _read(ROWS["data_dir"], given["data_dir"]) if "data_dir" in given else default_data_folder(environ, os.geteuid())
    path = Path(str(folder))
    return path if path.is_absolute() else Path.cwd() / path  # of a removed folder there is no name


def _read_data_file(folder: Path) -> dict[str, Given]:
    """Read the settings that lie in the data folder, if there are any. Raises: SettingsError."""
    file = folder / DATA_FILE
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError("config", str(file), "a file that can be read", hint=f"{error.strerror}") from None
    if mode & stat.S_IWOTH:
        # Nobody named this file, so nobody may have looked at it.
        raise SettingsError("config", str(file), "a file that not everybody can write", hint=f"chmod o-w {file}")
    given = _read_file(file)
    if "data_dir" in given:
        raise SettingsError("data_dir", given["data_dir"].value, "set elsewhere: this file lies in it", source=f"file {file}")
    return given


def _file_of(environ: Mapping[str, str]) -> Path | None:
    """The file that the environment names. CONFIG_PATH is Runner's, and other programs use that name for other files."""
    if named := environ.get(CONFIG_FILE_VARIABLE):
        return Path(named)
    named = environ.get(runner_settings.FILE_VARIABLE, "")
    return Path(named) if named.lower().endswith(runner_settings.SUFFIXES) else None


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Say "did you mean ...?" for a misspelt name, or "" when nothing is near. prefix: "FIREBOX_" to spell it as a variable."""
    import difflib  # no command that is right needs it

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {prefix + (close[0].upper() if prefix else close[0])}?" if close else ""


def _read(row: Row, item: Given, setting: str = "") -> Value:
    try:
        return row.read(item.value)
    except (ValueError, RuntimeError):  # RuntimeError: a "~user" that does not exist
        raise SettingsError(setting or row.name, row.shown(item.value), row.allowed, source=item.source) from None


def _unknown(name: str, value: object, source: str) -> SettingsError:
    """A misspelt name may be a token's: only numbers are shown."""
    shown = value if isinstance(value, int | float) else HIDDEN
    return SettingsError(name, shown, "a known setting", source=source, hint=nearest(name, ROWS))


def _read_flags(flags: Mapping[str, object]) -> dict[str, Given]:
    for name in flags:
        if name not in ROWS:
            raise _unknown(name, flags[name], "flag")
    given = {name: Given(value, "flag") for name, value in flags.items() if value is not None}
    return _parse_json(given)


def _read_environment(environ: Mapping[str, str], warnings: list[str]) -> dict[str, Given]:
    """Pick the FIREBOX_ names, and add a warning for each one that is no setting. Empty values count as not set."""
    variables = {row.variable: row.name for row in TABLE}
    given: dict[str, Given] = {}
    for variable, value in sorted(environ.items()):
        if variable in variables and value:
            given[variables[variable]] = Given(value, f"environment {variable}")
        elif variable.startswith(ENVIRONMENT_PREFIX) and variable not in variables and variable != CONFIG_FILE_VARIABLE:
            close = nearest(variable.removeprefix(ENVIRONMENT_PREFIX).lower(), ROWS, ENVIRONMENT_PREFIX)
            warnings.append(f"{variable} is no setting and has no effect" + (f"; {close}" if close else ""))
    return _parse_json(given)


def _parse_json(given: dict[str, Given]) -> dict[str, Given]:
    """Where only text can be given, the overrides are one JSON object."""
    item = given.get("limit_overrides")
    if item is not None and isinstance(item.value, str):
        import json  # most commands have no such text

        try:
            given["limit_overrides"] = Given(json.loads(item.value), item.source)
        except (ValueError, RecursionError):
            raise SettingsError("limit_overrides", item.value, "a JSON object", source=item.source) from None
    return given


def _read_file(path: Path) -> dict[str, Given]:
    source = f"file {path}"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError("config", str(path), "a file that can be read", hint=f"{error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError("config", str(path), "a TOML file", hint=str(error)) from None
    for name, value in table.items():
        if name not in ROWS:
            raise _unknown(name, value, source)
    return {name: Given(value, source) for name, value in table.items()}


def _read_overrides(overrides: Mapping[str, Mapping[str, object]], source: str) -> Mapping[str, Mapping[str, int | str]]:
    names = [prefix + stage + "_" + limit for prefix in ("", "max_") for stage in STAGES for limit in LIMIT_NAMES]
    result: dict[str, dict[str, int | str]] = {}
    for language, limits in overrides.items():
        result[language] = {}
        for name, value in limits.items():
            setting = f"limit_overrides.{language}.{name}"
            if name not in names or name not in ROWS:
                hint = nearest(name, names)
                raise SettingsError(setting, value, "a limit setting such as run_memory_bytes", source=source, hint=hint)
            result[language][name] = cast("int | str", _read(ROWS[name], Given(value, source), setting))
    return result


def _check_maxima(values: dict[str, Value], given: Mapping[str, Given]) -> None:
    """Refuse a default above its maximum where somebody set both; else the one that nobody set follows the other."""
    overrides = cast("dict[str, dict[str, int | str]]", values["limit_overrides"])
    for name in (f"{stage}_{limit}" for stage in STAGES for limit in LIMIT_NAMES if limit != "output_mode"):
        maximum_name = "max_" + name
        wanted, maximum = cast("int", values[name]), cast("int", values[maximum_name])
        if _above(wanted, maximum):
            if name in given and maximum_name in given:
                raise _too_high(name, wanted, maximum_name, maximum, given[name].source)
            values[name if maximum_name in given else maximum_name] = maximum if maximum_name in given else wanted
            maximum = cast("int", values[maximum_name])
        for language, limits in overrides.items():
            wanted = cast("int", limits.get(name, values[name]))
            if name in limits and maximum_name not in limits and _above(wanted, maximum):
                limits[maximum_name] = wanted
            elif maximum_name in limits and _above(wanted, cast("int", limits[maximum_name])):
                if name in limits:
                    setting = f"limit_overrides.{language}.{name}"
                    source = given["limit_overrides"].source
                    raise _too_high(setting, wanted, maximum_name, limits[maximum_name], source)
                limits[name] = limits[maximum_name]


def _too_high(setting: str, wanted: int, maximum_name: str, maximum: object, source: str) -> SettingsError:
    return SettingsError(setting, wanted, f"at most {maximum_name}, which is {maximum}", source=source)


def _above(wanted: int, maximum: int) -> bool:
    """0 is no cap, and no maximum."""
    return maximum != 0 and (wanted == 0 or wanted > maximum)
