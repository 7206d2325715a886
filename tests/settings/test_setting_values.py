"""Values as an operator writes them: sizes, times, booleans, tables by language."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from firebox.settings.settings import load_settings
from firebox.settings.settings_table import ROWS
from tests.settings.loading import load, write

MIB = 1 << 20


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
def test_sizes_with_units(text: str, value: int) -> None:
    assert load({"FIREBOX_RUN_FILE_SIZE_BYTES": text}).value("run_file_size_bytes") == value


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1.5", "64 MiB MiB", "64x", "1e9", "0x10", "64MiBs", "99999999999999999999", "٣"]
)
def test_invalid_sizes(text: str) -> None:
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
def test_times_with_units(name: str, text: str, value: int) -> None:
    assert load({ROWS[name].variable: text}).value(name) == value


def test_fraction_of_a_second_is_rejected_for_seconds() -> None:
    with pytest.raises(SettingsError):
        load({"FIREBOX_RUN_RETENTION_S": "1500ms"})


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("YES", True), ("on", True), ("1", True), ("false", False), ("off", False)]
)
def test_booleans(text: str, value: bool) -> None:
    assert load({"FIREBOX_ALLOW_PUBLIC": text}).allow_public is value


def test_values_in_toml_must_have_the_right_type(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="port is True"):
        load(file=write(tmp_path, "port = true"))
    with pytest.raises(SettingsError, match="host is 12"):
        load(file=write(tmp_path, "host = 12"))
    assert load(file=write(tmp_path, 'allow_public = true\nrun_memory_bytes = "64m"')).allow_public is True


def test_preloaded_modules(tmp_path: Path) -> None:
    wanted = {"python": ("json", "os.path"), "node": ("fs/promises",)}
    file = tmp_path / "firebox.toml"
    file.write_text("[preload]\nPython = ['json', 'os.path']\nnode = ['fs/promises']\n")
    of_file = load_settings({}, file, {})
    assert of_file.preload == load_settings({"preload": "Python:json,os.path node:fs/promises"}, None, {}).preload == wanted
    assert of_file.preloaded(["py", "Python"]) == ("json", "os.path")
    assert of_file.preloaded(["ruby"]) == ()


def test_cache_levels(tmp_path: Path) -> None:
    file = write(tmp_path, "[cache_levels]\nPython = 'output'\n'lua-5.4.7' = 'none'\n")
    for settings in (load(file=file), load({"FIREBOX_CACHE_LEVELS": "Python:output lua-5.4.7:none"})):
        assert settings.cache_levels == {"python": "output", "lua-5.4.7": "none"}
        assert settings.cache_level(["lua-5.4.7", "lua"]) == "none"
        assert settings.cache_level(["lua-5.4.6", "lua"]) is None
    for wrong in ("python", "python:some", ":none"):
        with pytest.raises(SettingsError, match="none, binary or output"):
            load({"FIREBOX_CACHE_LEVELS": wrong})
