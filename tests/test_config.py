"""Settings: one table, four sources, errors that name setting, value, what is allowed and where the value came from."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from firebox.domain.limits import LimitRequest, Limits, NamedLanguage, OutputMode
from firebox.domain.model import CacheLevel
from firebox.runtimes.runtime import Runtime
from firebox.settings.limit_policy import limit_policy
from firebox.settings.other_systems import glot_settings, grounds_settings, piston_settings, runner_settings
from firebox.settings.settings import Settings, load_settings
from firebox.settings.settings_page import settings_page
from firebox.settings.settings_table import LIMIT_NAMES, LIMIT_ROWS, OVERRIDES_ROW, ROWS, TABLE

MIB = 1 << 20

CORES = os.cpu_count() or 1


def load(environ: dict[str, str] | None = None, flags: dict[str, object] | None = None, file: Path | None = None) -> Settings:
    return load_settings(flags, file, environ or {})


def write(folder: Path, text: str) -> Path:
    file = folder / "firebox.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_default_is_one_its_row_allows() -> None:
    for row in TABLE:
        assert row.read(row.default) == row.default, row.name


def test_settings_declares_every_row_but_the_limits_with_its_type() -> None:
    hints = typing.get_type_hints(Settings)
    types: dict[str, object] = {"int": int, "bytes": int, "ms": int, "s": int, "bool": bool, "text": str, "path": Path}
    types["modules"], types["levels"] = Mapping[str, tuple[str, ...]], Mapping[str, CacheLevel]
    for row in TABLE:
        if row in LIMIT_ROWS or row is OVERRIDES_ROW:
            continue
        assert hints.pop(row.name) == types[row.kind], row.name
    assert set(hints) == {OVERRIDES_ROW.name, "warnings"}


def test_names_of_settings_flags_and_variables_are_unique() -> None:
    for names in ([row.name for row in TABLE], [row.flag for row in TABLE], [row.variable for row in TABLE]):
        assert len(names) == len(set(names))


def test_the_settings_page_is_current(checkout: Path) -> None:
    assert (checkout / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page(), "run `make docs`"


def test_defaults_without_anything() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.slots) == ("127.0.0.1", 2000, 0)
    assert settings.warnings == ()
    assert {settings.source(row.name) for row in TABLE} == {"default"}
    assert limit_policy(settings).default_limits("run") == Limits(
        wall_ms=3000,
        cpu_ms=3000,
        memory_bytes=512 * MIB,
        stack_bytes=0,
        processes=128,
        open_files=1024,
        file_size_bytes=64 * MIB,
        writable_bytes=256 * MIB,
        writable_inodes=20_000,
        output_bytes=MIB,
        output_mode=OutputMode.CUT,
    )
    assert limit_policy(settings).default_limits("compile").wall_ms == 10_000


def test_settings_never_change() -> None:
    settings = load()
    with pytest.raises(AttributeError):
        settings.port = 1
    with pytest.raises(AttributeError):
        del settings.port


def test_flag_goes_before_environment_before_piston_before_file_before_default(tmp_path: Path) -> None:
    file = write(tmp_path, "port = 1\nslots = 1\nqueue_length = 1\nlog_level = 'error'\n")
    environ = {"FIREBOX_PORT": "3", "FIREBOX_SLOTS": "3", "PISTON_MAX_CONCURRENT_JOBS": "2", "PISTON_LOG_LEVEL": "WARN"}
    settings = load(environ, {"port": 4, "queue_length": None}, file)
    assert [(settings.value(name), settings.source(name)) for name in ("port", "slots", "log_level", "queue_length")] == [
        (4, "flag"),
        (3, "environment FIREBOX_SLOTS"),
        ("warning", "environment PISTON_LOG_LEVEL"),
        (1, f"file {file}"),
    ]
    assert settings.source("host") == "default"


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "port = 1234\n")
    settings = load({"FIREBOX_CONFIG": str(file)})
    assert settings.port == 1234
    assert settings.warnings == ()


def test_an_empty_variable_counts_as_not_set() -> None:
    settings = load({"FIREBOX_PORT": "", "PISTON_RUN_TIMEOUT": ""})
    assert settings.port == 2000
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("65536", 65536),
        ("64KiB", 65536),
        ("64k", 65536),
        ("64K", 65536),
        ("64 kib", 65536),
        ("64KB", 64_000),
        ("64m", 64 * MIB),
        ("64MiB", 64 * MIB),
        ("1.5GiB", 1536 * MIB),
        ("1g", 1024 * MIB),
        ("4096b", 4096),
        ("0.000001t", 1_099_511),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert load({"FIREBOX_RUN_FILE_SIZE_BYTES": text}).value("run_file_size_bytes") == value


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1.5", "64 MiB MiB", "64x", "1e9", "0x10", "64MiBs", "99999999999999999999", "٣"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        ROWS["run_file_size_bytes"].read(text)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("run_wall_ms", "1500", 1500),
        ("run_wall_ms", "1500ms", 1500),
        ("run_wall_ms", "2s", 2000),
        ("run_wall_ms", "0.25s", 250),
        ("run_retention_s", "90", 90),
        ("run_retention_s", "10m", 600),
        ("run_retention_s", "1h", 3600),
        ("run_retention_s", "5000ms", 5),
    ],
)
def test_times(name: str, text: str, value: int) -> None:
    assert load({ROWS[name].variable: text}).value(name) == value


def test_templates_can_be_turned_off_everywhere(tmp_path: Path) -> None:
    assert (load().templates, load().isolate_templates) == (True, False)
    assert (load().template_age_s, load().template_runs) == (600, 1000)
    for text in ("'off'", "false"):
        assert load(file=write(tmp_path, f"templates = {text}\n")).templates is False
    settings = load({"FIREBOX_TEMPLATES": "off", "FIREBOX_ISOLATE_TEMPLATES": "on"}, {"template_age_s": "1h"})
    assert (settings.templates, settings.isolate_templates, settings.template_age_s) == (False, True, 3600)


def test_part_of_a_second_is_no_number_of_seconds() -> None:
    with pytest.raises(SettingsError):
        load({"FIREBOX_RUN_RETENTION_S": "1500ms"})


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("YES", True), ("on", True), ("1", True), ("false", False), ("off", False)]
)
def test_switches(text: str, value: bool) -> None:
    assert load({"FIREBOX_ALLOW_PUBLIC": text}).allow_public is value


@pytest.mark.parametrize(
    ("environ", "name", "allowed"),
    [
        ({"FIREBOX_PORT": "70000"}, "port", "a whole number, from 0 to 65535"),
        ({"FIREBOX_PORT": "http"}, "port", "a whole number, from 0 to 65535"),
        ({"FIREBOX_RUN_WALL_MS": "0"}, "run_wall_ms", "milliseconds, 1 or more"),
        ({"FIREBOX_MAX_BODY_BYTES": "12 parsecs"}, "max_body_bytes", "a size in bytes, 1024 or more"),
        ({"FIREBOX_ALLOW_PUBLIC": "maybe"}, "allow_public", "true or false"),
        ({"FIREBOX_TEMPLATES": "maybe"}, "templates", "true or false"),
        ({"FIREBOX_TEMPLATE_AGE_S": "0"}, "template_age_s", "seconds, from 1 to 86400"),
        ({"FIREBOX_TEMPLATE_RUNS": "0"}, "template_runs", "a whole number, from 1 to 1000000"),
        ({"FIREBOX_LOG_FORMAT": "xml"}, "log_format", "one of text, json"),
        ({"FIREBOX_RUN_OUTPUT_MODE": "drop"}, "run_output_mode", "one of cut, kill"),
        ({"FIREBOX_DATA_DIR": "~nobody-of-that-name/x"}, "data_dir", "a path"),
        ({"FIREBOX_LIMIT_OVERRIDES": "{"}, "limit_overrides", "a JSON object"),
        ({"FIREBOX_PRELOAD": "python"}, "preload", "names of modules"),
        ({"FIREBOX_PRELOAD": "python:os;system"}, "preload", "names of modules"),
        ({"FIREBOX_LIMIT_OVERRIDES": '{"java": 3}'}, "limit_overrides", "for each language or package a table"),
    ],
)
def test_an_error_names_setting_value_what_is_allowed_and_source(environ: dict[str, str], name: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    (variable,) = environ
    error = caught.value
    assert error.setting == name
    assert error.source == f"environment {variable}"
    assert allowed in error.allowed
    for part in (name, variable, allowed, repr(error.value)):
        assert part in error.message


def test_values_in_the_file_keep_their_types(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="port is True"):
        load(file=write(tmp_path, "port = true"))
    with pytest.raises(SettingsError, match="host is 12"):
        load(file=write(tmp_path, "host = 12"))
    assert load(file=write(tmp_path, 'allow_public = true\nrun_memory_bytes = "64m"')).allow_public is True


def test_an_unknown_name_in_the_file_is_an_error_with_the_nearest_one(tmp_path: Path) -> None:
    file = write(tmp_path, "queue_lenght = 3\n")
    with pytest.raises(SettingsError) as caught:
        load(file=file)
    assert caught.value.hint == "did you mean queue_length?"
    assert str(file) in caught.value.message


@pytest.mark.parametrize("text", ["port = ", "[x", "port = 1\nport = 2"])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(SettingsError, match="a TOML file"):
        load(file=file)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a file that can be read") as caught:
        load(file=tmp_path / "none.toml")
    assert caught.value.hint == "No such file or directory"
    (tmp_path / "bytes.toml").write_bytes(b"host = '\xff'")
    with pytest.raises(SettingsError, match="a TOML file"):
        load(file=tmp_path / "bytes.toml")


def test_an_unknown_flag_is_an_error() -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags={"prot": 1})
    assert caught.value.hint == "did you mean port?"


def test_an_unknown_variable_is_a_warning() -> None:
    settings = load({"FIREBOX_PRT": "1", "FIREBOX_XYZZY_QUUX": "1", "OTHER": "1"})
    assert settings.warnings == (
        "FIREBOX_PRT is no setting and has no effect; did you mean FIREBOX_PORT?",
        "FIREBOX_XYZZY_QUUX is no setting and has no effect",
    )


@pytest.mark.parametrize(
    ("flags", "slots", "reserved"),
    [
        ({}, CORES + max(1, CORES // 4), max(1, CORES // 4)),
        ({"reserved_slots": 3}, CORES + 3, 3),
        ({"reserved_slots": 0}, CORES, 0),
        ({"slots": 1}, 1, 0),
        ({"slots": 2}, 2, 1),
        ({"slots": 32}, 32, 8),
        ({"slots": 4, "reserved_slots": 9}, 4, 3),
    ],
)
def test_some_slots_are_reserved(flags: dict[str, object], slots: int, reserved: int) -> None:
    settings = load(flags=flags)
    assert (settings.slot_count, settings.reserved_count) == (slots, reserved)


def test_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load({"FIREBOX_DATA_DIR": "data"})
    assert settings.data_dir == tmp_path / "data"
    assert settings.runtimes_dir == tmp_path / "data" / "runtimes"
    assert load({"FIREBOX_RUNTIMES_DIR": "/etc/firebox"}).runtimes_dir == Path("/etc/firebox")


def test_data_folder_of_root_and_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert load().data_dir == Path("/var/lib/firebox")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert load({"HOME": "/home/x", "XDG_DATA_HOME": "/data"}).data_dir == Path("/data/firebox")
    # The base directory specification: relative values are to be ignored.
    assert load({"HOME": "/home/x", "XDG_DATA_HOME": "data"}).data_dir == Path("/home/x/.local/share/firebox")


def test_modules_to_preload(tmp_path: Path) -> None:
    wanted = {"python": ("json", "os.path"), "node": ("fs/promises",)}
    file = tmp_path / "firebox.toml"
    file.write_text("[preload]\nPython = ['json', 'os.path']\nnode = ['fs/promises']\n")
    of_file = load_settings({}, file, {})
    assert of_file.preload == load_settings({"preload": "Python:json,os.path node:fs/promises"}, None, {}).preload == wanted
    assert of_file.preloaded(["py", "Python"]) == ("json", "os.path")
    assert of_file.preloaded(["ruby"]) == ()


def test_the_file_of_the_data_folder_counts_below_everything_else(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other.toml"
    data.mkdir()
    file = data / "firebox.toml"
    file.write_text("port = 1\nslots = 2\ncompile_wall_ms = '20s'\nrun_wall_ms = '5s'\n")
    other.write_text(f"port = 3\nslots = 4\ndata_dir = '{data}'\n")
    settings = load_settings({}, other, {"FIREBOX_PORT": "5", "PISTON_RUN_TIMEOUT": "7000"})
    found = {name: (settings.value(name), settings.source(name)) for name in ("port", "slots", "compile_wall_ms", "run_wall_ms")}
    assert found == {
        "port": (5, "environment FIREBOX_PORT"),
        "slots": (4, f"file {other}"),
        "compile_wall_ms": (20_000, f"file {file}"),
        "run_wall_ms": (7_000, "environment PISTON_RUN_TIMEOUT"),
    }
    assert load_settings({"data_dir": data}, None, {}).port == 1
    assert load_settings({"data_dir": other / "no-folder"}, None, {}).source("port") == "default"


@pytest.mark.parametrize(
    ("text", "words"), [("data_dir = '/elsewhere'", "data_dir is"), ("prot = 1", "prot is 1"), ("=", "a TOML file")]
)
def test_a_file_of_the_data_folder_that_cannot_be_meant_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "firebox.toml").write_text(text)
    with pytest.raises(SettingsError, match=words):
        load_settings({"data_dir": tmp_path}, None, {})


def test_a_file_of_the_data_folder_that_everybody_can_write_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, "port = 1\n")
    file.chmod(0o666)
    with pytest.raises(SettingsError, match="not everybody can write"):
        load_settings({"data_dir": tmp_path}, None, {})
    file.chmod(0o664)
    assert load_settings({"data_dir": tmp_path}, None, {}).port == 1


def test_cache_levels(tmp_path: Path) -> None:
    file = write(tmp_path, "[cache_levels]\nPython = 'output'\n'lua-5.4.7' = 'none'\n")
    for settings in (load(file=file), load({"FIREBOX_CACHE_LEVELS": "Python:output lua-5.4.7:none"})):
        assert settings.cache_levels == {"python": "output", "lua-5.4.7": "none"}
        assert settings.cache_level(["lua-5.4.7", "lua"]) == "none"
        assert settings.cache_level(["lua-5.4.6", "lua"]) is None
    for wrong in ("python", "python:some", ":none"):
        with pytest.raises(SettingsError, match="none, binary or output"):
            load({"FIREBOX_CACHE_LEVELS": wrong})


def test_an_installed_package_goes_before_its_language() -> None:
    text = '{"lua": {"compile_wall_ms": 1000, "run_wall_ms": 1000}, "lua-5.4.7": {"compile_wall_ms": "50s"}}'
    settings = load({"FIREBOX_LIMIT_OVERRIDES": text})
    runtime = Runtime(
        language="lua", version="5.4.7", aliases=("l",), main_name="x", run=("x",), installed="lua-5.4.7", package="bundle"
    )
    assert runtime.setting_names == ("lua-5.4.7", "bundle", "lua", "l")
    assert limit_policy(settings).default_limits("compile", runtime).wall_ms == 50_000
    assert limit_policy(settings).default_limits("run", runtime).wall_ms == 1000


def test_overrides_of_a_language_in_the_file(tmp_path: Path) -> None:
    text = "[limit_overrides.Java]\nrun_memory_bytes = '1GiB'\nmax_run_wall_ms = '2m'\nrun_output_mode = 'kill'\n"
    settings = load(file=write(tmp_path, text))
    java = limit_policy(settings).default_limits("run", NamedLanguage(("java", "jdk")))
    assert (java.memory_bytes, java.output_mode, java.wall_ms) == (1 << 30, OutputMode.KILL, 3000)
    assert limit_policy(settings).maximum_limits("run", NamedLanguage(("java",))).wall_ms == 120_000
    assert limit_policy(settings).default_limits("run", NamedLanguage(("python",))) == limit_policy(settings).default_limits(
        "run"
    )


def test_an_override_goes_by_any_name_of_the_language() -> None:
    settings = load({"FIREBOX_LIMIT_OVERRIDES": '{"golang": {"compile_wall_ms": "50s"}}'})
    assert limit_policy(settings).default_limits("compile", NamedLanguage(("go", "golang"))).wall_ms == 50_000


@pytest.mark.parametrize("name", ["run_memory", "memory_bytes", "port", "max_run_output_mode", "slots"])
def test_an_override_of_no_limit_is_an_error(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"FIREBOX_LIMIT_OVERRIDES": f'{{"java": {{"{name}": 1}}}}'})
    assert caught.value.setting == f"limit_overrides.java.{name}"


def test_an_override_of_a_wrong_value_names_the_language() -> None:
    with pytest.raises(SettingsError, match=r"limit_overrides\.java\.run_wall_ms is 'soon'"):
        load({"FIREBOX_LIMIT_OVERRIDES": '{"java": {"run_wall_ms": "soon"}}'})


def test_a_default_above_a_maximum_that_was_set_too_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"run_wall_ms is 5000.*at most max_run_wall_ms, which is 4000"):
        load({"FIREBOX_RUN_WALL_MS": "5s", "FIREBOX_MAX_RUN_WALL_MS": "4s"})
    with pytest.raises(SettingsError, match="run_memory_bytes is 0"):
        load({"FIREBOX_RUN_MEMORY_BYTES": "0", "FIREBOX_MAX_RUN_MEMORY_BYTES": "1g"})


def test_a_maximum_nobody_set_follows_the_default_and_the_other_way_round() -> None:
    assert limit_policy(load({"FIREBOX_RUN_WALL_MS": "2m"})).maximum_limits("run").wall_ms == 120_000
    assert limit_policy(load({"FIREBOX_MAX_RUN_WALL_MS": "1s"})).default_limits("run").wall_ms == 1000
    assert limit_policy(load({"FIREBOX_RUN_MEMORY_BYTES": "0"})).maximum_limits("run").memory_bytes == 0
    settings = load({"FIREBOX_LIMIT_OVERRIDES": '{"a": {"run_wall_ms": 70000}, "b": {"max_run_wall_ms": 1000}}'})
    assert limit_policy(settings).maximum_limits("run", NamedLanguage(("a",))).wall_ms == 70_000
    assert limit_policy(settings).default_limits("run", NamedLanguage(("b",))).wall_ms == 1000
    with pytest.raises(SettingsError, match=r"limit_overrides\.a\.run_wall_ms"):
        load({"FIREBOX_LIMIT_OVERRIDES": '{"a": {"run_wall_ms": 2, "max_run_wall_ms": 1}}'})


def test_a_runtime_gets_what_it_wants_where_the_operator_left_the_default_alone() -> None:
    wanted = LimitRequest(wall_ms=20_000, memory_bytes=2 << 30, processes=999_999)
    runtime = Runtime(language="x", version="1.0.0", main_name="x", run=("x",), compile_limits=wanted)
    limits = limit_policy(load()).default_limits("compile", runtime)
    assert (limits.wall_ms, limits.memory_bytes) == (20_000, 2 << 30)
    assert limits.processes == limit_policy(load()).maximum_limits("compile").processes, "never above the maximum"
    strict = load({"FIREBOX_COMPILE_WALL_MS": "5s", "FIREBOX_LIMIT_OVERRIDES": '{"x": {"compile_memory_bytes": 7000000}}'})
    limits = limit_policy(strict).default_limits("compile", runtime)
    assert (limits.wall_ms, limits.memory_bytes) == (5000, 7_000_000)


def test_a_runtime_that_wants_no_cap_gets_the_maximum() -> None:
    runtime = Runtime(language="x", version="1.0.0", main_name="x", run=("x",), run_limits=LimitRequest(memory_bytes=0))
    assert limit_policy(load()).default_limits("run", runtime).memory_bytes == 4 << 30


def test_piston_names_set_default_and_maximum() -> None:
    environ = {
        "PISTON_BIND_ADDRESS": "0.0.0.0:2001",
        "PISTON_DATA_DIRECTORY": "/piston",
        "PISTON_DISABLE_NETWORKING": "true",
        "PISTON_OUTPUT_MAX_SIZE": "1024",
        "PISTON_MAX_PROCESS_COUNT": "64",
        "PISTON_MAX_OPEN_FILES": "2048",
        "PISTON_MAX_FILE_SIZE": "10000000",
        "PISTON_COMPILE_TIMEOUT": "11000",
        "PISTON_RUN_TIMEOUT": "4000",
        "PISTON_COMPILE_CPU_TIME": "12000",
        "PISTON_RUN_CPU_TIME": "5000",
        "PISTON_COMPILE_MEMORY_LIMIT": "-1",
        "PISTON_RUN_MEMORY_LIMIT": "100000000",
        "PISTON_MAX_CONCURRENT_JOBS": "32",
        "PISTON_LIMIT_OVERRIDES": '{"c++": {"run_timeout": 9000, "max_process_count": 7, "compile_memory_limit": -1}}',
        "PISTON_REPO_URL": "https://example.org/index",
        "PISTON_LOG_LEVEL": "DEBUG",
    }
    settings = load(environ)
    assert settings.warnings == ()
    assert (settings.host, settings.port, settings.data_dir) == ("0.0.0.0", 2001, Path("/piston"))
    assert (settings.slots, settings.repositories, settings.log_level) == (32, "https://example.org/index", "debug")
    policy = limit_policy(settings)
    for limits in (policy.default_limits("run"), policy.maximum_limits("run")):
        assert (limits.wall_ms, limits.cpu_ms, limits.memory_bytes) == (4000, 5000, 100_000_000)
        assert (limits.processes, limits.open_files, limits.file_size_bytes) == (64, 2048, 10_000_000)
        assert (limits.output_bytes, limits.output_mode) == (1024, OutputMode.KILL)
    for limits in (policy.default_limits("compile"), policy.maximum_limits("compile")):
        assert (limits.wall_ms, limits.cpu_ms, limits.memory_bytes) == (11_000, 12_000, 0)
    for limits in (
        limit_policy(settings).default_limits("run", NamedLanguage(("c++", "cpp"))),
        limit_policy(settings).maximum_limits("run", NamedLanguage(("c++",))),
    ):
        assert (limits.wall_ms, limits.processes) == (9000, 7)


def test_every_piston_name_of_the_table_is_understood() -> None:
    names = {alias for row in TABLE for alias in row.aliases if alias.startswith(piston_settings.PREFIX)}
    for variable in names:
        value = "{}" if variable == "PISTON_LIMIT_OVERRIDES" else "100"
        found = piston_settings.read_environment({variable: value})
        assert found.values
        assert set(found.values) <= {row.name for row in TABLE if variable in row.aliases}
        assert found.warnings == []


def test_the_table_and_the_readers_of_other_systems_know_the_same_names() -> None:
    aliases = {(alias, row.name) for row in TABLE for alias in row.aliases if not alias.startswith(piston_settings.PREFIX)}
    assert aliases == {*glot_settings.NAMES.items(), *grounds_settings.NAMES.items()}
    keys = {(key, row.name) for row in TABLE for key in row.file_keys}
    assert keys == {(key, setting) for key, settings in runner_settings.NAMES.items() for setting in settings}


def test_piston_output_is_cut_where_nobody_asks_for_its_limit() -> None:
    assert limit_policy(load({"PISTON_RUN_TIMEOUT": "1000"})).default_limits("run").output_mode is OutputMode.CUT


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("0.0.0.0:2001", "0.0.0.0", 2001), ("[::1]:3000", "::1", 3000), ("[::]", "::", 2000), ("localhost", "localhost", 2000)],
)
def test_piston_address(address: str, host: str, port: int) -> None:
    settings = load({"PISTON_BIND_ADDRESS": address})
    assert (settings.host, settings.port) == (host, port)


def test_a_piston_name_without_meaning_is_mentioned() -> None:
    settings = load({"PISTON_RUNNER_UID_MIN": "1001", "PISTON_DISABLE_NETWORKING": "false"})
    assert settings.warnings == (
        "PISTON_DISABLE_NETWORKING is 'false' and has no effect: programs never get a network here",
        "PISTON_RUNNER_UID_MIN has no meaning here and no effect",
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PISTON_RUN_TIMEOUT", "-1"),
        ("PISTON_RUN_MEMORY_LIMIT", "-2"),
        ("PISTON_BIND_ADDRESS", "0.0.0.0:http"),
        ("PISTON_LOG_LEVEL", "LOUD"),
        ("PISTON_LIMIT_OVERRIDES", "[]"),
        ("PISTON_LIMIT_OVERRIDES", '{"c": {"run_time": 1}}'),
        ("PISTON_LIMIT_OVERRIDES", '{"c": {"run_timeout": "x"}}'),
    ],
)
def test_a_piston_value_that_is_not_allowed(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({variable: value})
    assert caught.value.source == f"environment {variable}"


def test_limit_names_are_the_fields_of_limits() -> None:
    assert Limits.__struct_fields__ == LIMIT_NAMES
