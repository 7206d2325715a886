"""The declarations of the settings, and what derives from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, assert_type

from firebox.domain.limits import LIMIT_NAMES, Limits, OutputMode
from firebox.domain.model import CacheLevel
from firebox.settings import settings_table
from firebox.settings.settings_table import ROWS, TABLE, SettingsTable
from tests.settings.loading import load


def test_every_default_is_an_allowed_value() -> None:
    for row in TABLE:
        assert row.read(row.default) == row.default, row.name


def test_every_field_is_a_setting_with_a_help_text() -> None:
    assert [row.name for row in TABLE if row.name not in load().limits] == [
        name for name in SettingsTable.__struct_fields__ if name not in {"limits", "sources", "warnings"}
    ]
    for row in TABLE:
        assert row.help.endswith("."), row.name
        assert "{" not in row.help, row.name


def test_names_of_settings_flags_and_variables_are_unique() -> None:
    for names in ([row.name for row in TABLE], [row.flag for row in TABLE], [row.variable for row in TABLE]):
        assert len(names) == len(set(names))


def test_kind_follows_from_type_and_name() -> None:
    kinds = {
        name: ROWS[name].kind for name in ("port", "cache_s", "run_wall_ms", "held_bytes_per_client", "templates", "data_dir")
    }
    assert list(kinds.values()) == ["int", "s", "ms", "bytes", "bool", "path"]
    assert ROWS["log_format"].choices == ("text", "json")


def test_section_reaches_to_the_next_one() -> None:
    sections = {name: ROWS[name].section for name in ("host", "log_format", "require_login", "run_cpu_ms", "max_run_cpu_ms")}
    assert list(sections.values()) == ["Server", "Server", "Users", "Default limits", "Maximum limits"]
    assert len(dict.fromkeys(row.section for row in TABLE)) == 10


def test_type_checkers_know_the_type_of_each_setting() -> None:
    settings = load()
    assert_type(settings.host, str)
    assert_type(settings.interactive_wall_ms, int)
    assert_type(settings.templates, bool)
    assert_type(settings.data_dir, Path)
    assert_type(settings.log_format, Literal["text", "json"])
    assert_type(settings.cache_levels, Mapping[str, CacheLevel])
    for row in TABLE:
        expected = {"text": str, "path": Path, "bool": bool, "modules": dict, "levels": dict, "overrides": dict}.get(
            row.kind, int
        )
        assert type(settings.value(row.name)) is expected or row.kind == "path", row.name


def test_limits_are_those_of_the_domain() -> None:
    assert Limits.__struct_fields__ == LIMIT_NAMES
    assert set(ROWS["run_output_mode"].choices) == {mode.value for mode in OutputMode}
    for stage in ("compile", "run"):
        assert {f"{stage}_{name}" for name in LIMIT_NAMES} <= set(ROWS)
        assert {f"max_{stage}_{name}" for name in LIMIT_NAMES if name != "output_mode"} <= set(ROWS)
    assert ROWS["max_run_cpu_ms"].help == "Maximum run_cpu_ms of a request. 0: no maximum."


def test_the_example_in_the_documentation_declares_a_setting(checkout: Path) -> None:
    page = (checkout / "docs" / "develop" / "add-a-setting.md").read_text(encoding="utf-8")
    field = page.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {**vars(settings_table)}
    code = f"class Example(SettingsTable, frozen=True, kw_only=True):\n{field}"
    exec(compile(code, "add-a-setting.md", "exec", dont_inherit=True), names)
    (name,) = set(names["Example"].__struct_fields__) - set(SettingsTable.__struct_fields__)
    hint = names["Example"].__annotations__[name]
    setting = hint.__metadata__[0].of_field(name, hint.__origin__, getattr(names["Example"](), name))
    assert (setting.flag, setting.read("30s")) == ("--idle-timeout-ms", setting.default)
    assert all(f"`{each}`" in page for each in (setting.flag, setting.variable, setting.name))
