"""Limits of a stage: defaults, maxima, overrides by language or package."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from firebox.domain.limits import LimitRequest, NamedLanguage, OutputMode
from firebox.runtimes.runtime import Runtime
from firebox.settings.limit_policy import limit_policy
from tests.settings.loading import load, write


def test_override_of_an_installed_package_takes_precedence_over_its_language() -> None:
    text = '{"lua": {"compile_wall_ms": 1000, "run_wall_ms": 1000}, "lua-5.4.7": {"compile_wall_ms": "50s"}}'
    settings = load({"FIREBOX_LIMIT_OVERRIDES": text})
    runtime = Runtime(
        language="lua", version="5.4.7", aliases=("l",), main_name="x", run=("x",), installed="lua-5.4.7", package="bundle"
    )
    assert runtime.setting_names == ("lua-5.4.7", "bundle", "lua", "l")
    assert limit_policy(settings).default_limits("compile", runtime).wall_ms == 50_000
    assert limit_policy(settings).default_limits("run", runtime).wall_ms == 1000


def test_overrides_of_a_language_in_toml(tmp_path: Path) -> None:
    text = "[limit_overrides.Java]\nrun_memory_bytes = '1GiB'\nmax_run_wall_ms = '2m'\nrun_output_mode = 'kill'\n"
    settings = load(file=write(tmp_path, text))
    java = limit_policy(settings).default_limits("run", NamedLanguage(("java", "jdk")))
    assert (java.memory_bytes, java.output_mode, java.wall_ms) == (1 << 30, OutputMode.KILL, 3000)
    assert limit_policy(settings).maximum_limits("run", NamedLanguage(("java",))).wall_ms == 120_000
    assert limit_policy(settings).default_limits("run", NamedLanguage(("python",))) == limit_policy(settings).default_limits(
        "run"
    )


def test_override_may_use_any_alias_of_the_language() -> None:
    settings = load({"FIREBOX_LIMIT_OVERRIDES": '{"golang": {"compile_wall_ms": "50s"}}'})
    assert limit_policy(settings).default_limits("compile", NamedLanguage(("go", "golang"))).wall_ms == 50_000


@pytest.mark.parametrize("name", ["run_memory", "memory_bytes", "port", "max_run_output_mode", "slots"])
def test_override_of_an_unknown_limit_is_an_error(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"FIREBOX_LIMIT_OVERRIDES": f'{{"java": {{"{name}": 1}}}}'})
    assert caught.value.setting == f"limit_overrides.java.{name}"


def test_error_about_an_override_names_the_language() -> None:
    with pytest.raises(SettingsError, match=r"limit_overrides\.java\.run_wall_ms is 'soon'"):
        load({"FIREBOX_LIMIT_OVERRIDES": '{"java": {"run_wall_ms": "soon"}}'})


def test_default_above_an_explicit_maximum_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"run_wall_ms is 5000.*at most max_run_wall_ms, which is 4000"):
        load({"FIREBOX_RUN_WALL_MS": "5s", "FIREBOX_MAX_RUN_WALL_MS": "4s"})
    with pytest.raises(SettingsError, match="run_memory_bytes is 0"):
        load({"FIREBOX_RUN_MEMORY_BYTES": "0", "FIREBOX_MAX_RUN_MEMORY_BYTES": "1g"})


def test_maximum_left_unset_follows_the_default_and_vice_versa() -> None:
    assert limit_policy(load({"FIREBOX_RUN_WALL_MS": "2m"})).maximum_limits("run").wall_ms == 120_000
    assert limit_policy(load({"FIREBOX_MAX_RUN_WALL_MS": "1s"})).default_limits("run").wall_ms == 1000
    assert limit_policy(load({"FIREBOX_RUN_MEMORY_BYTES": "0"})).maximum_limits("run").memory_bytes == 0
    settings = load({"FIREBOX_LIMIT_OVERRIDES": '{"a": {"run_wall_ms": 70000}, "b": {"max_run_wall_ms": 1000}}'})
    assert limit_policy(settings).maximum_limits("run", NamedLanguage(("a",))).wall_ms == 70_000
    assert limit_policy(settings).default_limits("run", NamedLanguage(("b",))).wall_ms == 1000
    with pytest.raises(SettingsError, match=r"limit_overrides\.a\.run_wall_ms"):
        load({"FIREBOX_LIMIT_OVERRIDES": '{"a": {"run_wall_ms": 2, "max_run_wall_ms": 1}}'})


def test_runtime_definition_replaces_a_default_that_the_operator_left_unset() -> None:
    wanted = LimitRequest(wall_ms=20_000, memory_bytes=2 << 30, processes=999_999)
    runtime = Runtime(language="x", version="1.0.0", main_name="x", run=("x",), compile_limits=wanted)
    limits = limit_policy(load()).default_limits("compile", runtime)
    assert (limits.wall_ms, limits.memory_bytes) == (20_000, 2 << 30)
    assert limits.processes == limit_policy(load()).maximum_limits("compile").processes, "never above the maximum"
    strict = load({"FIREBOX_COMPILE_WALL_MS": "5s", "FIREBOX_LIMIT_OVERRIDES": '{"x": {"compile_memory_bytes": 7000000}}'})
    limits = limit_policy(strict).default_limits("compile", runtime)
    assert (limits.wall_ms, limits.memory_bytes) == (5000, 7_000_000)


def test_runtime_definition_without_a_limit_gets_the_maximum() -> None:
    runtime = Runtime(language="x", version="1.0.0", main_name="x", run=("x",), run_limits=LimitRequest(memory_bytes=0))
    assert limit_policy(load()).default_limits("run", runtime).memory_bytes == 4 << 30
