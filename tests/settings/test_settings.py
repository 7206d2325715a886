"""Loading settings: four sources, their precedence, and errors that name setting, value, allowed values and source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from firebox.domain.limits import Limits, OutputMode
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import load_settings
from firebox.settings.settings_table import TABLE
from tests.settings.loading import load, write

MIB = 1 << 20

CORES = os.cpu_count() or 1


def test_everything_has_its_default_in_an_empty_environment() -> None:
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


def test_settings_are_immutable() -> None:
    settings = load()
    for name in ("port", "warnings", "unknown"):
        with pytest.raises(AttributeError):
            setattr(settings, name, 1)
        with pytest.raises(AttributeError):
            delattr(settings, name)


def test_precedence_is_flag_environment_piston_file_default(tmp_path: Path) -> None:
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


def test_environment_variable_names_the_configuration_file(tmp_path: Path) -> None:
    file = write(tmp_path, "port = 1234\n")
    settings = load({"FIREBOX_CONFIG": str(file)})
    assert settings.port == 1234
    assert settings.warnings == ()


def test_empty_variable_counts_as_unset() -> None:
    settings = load({"FIREBOX_PORT": "", "PISTON_RUN_TIMEOUT": ""})
    assert settings.port == 2000
    assert settings.warnings == ()


def test_templates_can_be_configured_in_every_source(tmp_path: Path) -> None:
    assert (load().templates, load().isolate_templates) == (True, False)
    assert (load().template_age_s, load().template_runs) == (600, 1000)
    for text in ("'off'", "false"):
        assert load(file=write(tmp_path, f"templates = {text}\n")).templates is False
    settings = load({"FIREBOX_TEMPLATES": "off", "FIREBOX_ISOLATE_TEMPLATES": "on"}, {"template_age_s": "1h"})
    assert (settings.templates, settings.isolate_templates, settings.template_age_s) == (False, True, 3600)


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
        ({"FIREBOX_PRELOAD": "python"}, "preload", "module names by language"),
        ({"FIREBOX_PRELOAD": "python:os;system"}, "preload", "module names by language"),
        ({"FIREBOX_LIMIT_OVERRIDES": '{"java": 3}'}, "limit_overrides", "by language or package"),
    ],
)
def test_error_names_setting_value_allowed_values_and_source(environ: dict[str, str], name: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    (variable,) = environ
    error = caught.value
    assert error.setting == name
    assert error.source == f"environment {variable}"
    assert allowed in error.allowed
    for part in (name, variable, allowed, repr(error.value)):
        assert part in error.message


def test_unknown_name_in_toml_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    file = write(tmp_path, "queue_lenght = 3\n")
    with pytest.raises(SettingsError) as caught:
        load(file=file)
    assert caught.value.hint == "did you mean queue_length?"
    assert str(file) in caught.value.message


@pytest.mark.parametrize("text", ["port = ", "[x", "port = 1\nport = 2"])
def test_invalid_toml_is_an_error(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(SettingsError, match="a TOML file"):
        load(file=file)


def test_missing_file_and_invalid_utf_8_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a readable file") as caught:
        load(file=tmp_path / "none.toml")
    assert caught.value.hint == "No such file or directory"
    (tmp_path / "bytes.toml").write_bytes(b"host = '\xff'")
    with pytest.raises(SettingsError, match="a TOML file"):
        load(file=tmp_path / "bytes.toml")


def test_unknown_flag_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags={"prot": 1})
    assert caught.value.hint == "did you mean port?"


def test_unknown_variable_causes_a_warning() -> None:
    settings = load({"FIREBOX_PRT": "1", "FIREBOX_XYZZY_QUUX": "1", "OTHER": "1"})
    assert settings.warnings == (
        "FIREBOX_PRT is not a setting and has no effect; did you mean FIREBOX_PORT?",
        "FIREBOX_XYZZY_QUUX is not a setting and has no effect",
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
def test_reserved_slots(flags: dict[str, object], slots: int, reserved: int) -> None:
    settings = load(flags=flags)
    assert (settings.slot_count, settings.reserved_count) == (slots, reserved)


def test_relative_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load({"FIREBOX_DATA_DIR": "data"})
    assert settings.data_dir == tmp_path / "data"
    assert settings.runtimes_dir == tmp_path / "data" / "runtimes"
    assert load({"FIREBOX_RUNTIMES_DIR": "/etc/firebox"}).runtimes_dir == Path("/etc/firebox")


def test_default_data_folder_of_root_and_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert load().data_dir == Path("/var/lib/firebox")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert load({"HOME": "/home/x", "XDG_DATA_HOME": "/data"}).data_dir == Path("/data/firebox")
    # The base directory specification: relative values are to be ignored.
    assert load({"HOME": "/home/x", "XDG_DATA_HOME": "data"}).data_dir == Path("/home/x/.local/share/firebox")


def test_file_in_the_data_folder_has_the_lowest_precedence(tmp_path: Path) -> None:
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
def test_invalid_file_in_the_data_folder_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "firebox.toml").write_text(text)
    with pytest.raises(SettingsError, match=words):
        load_settings({"data_dir": tmp_path}, None, {})


def test_world_writable_file_in_the_data_folder_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, "port = 1\n")
    file.chmod(0o666)
    with pytest.raises(SettingsError, match="not world-writable"):
        load_settings({"data_dir": tmp_path}, None, {})
    file.chmod(0o664)
    assert load_settings({"data_dir": tmp_path}, None, {}).port == 1
