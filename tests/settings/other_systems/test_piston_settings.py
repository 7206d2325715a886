"""Piston's variables, read as our settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from firebox.domain.limits import NamedLanguage, OutputMode
from firebox.settings.limit_policy import limit_policy
from firebox.settings.other_systems.aliases import Piston
from firebox.settings.other_systems.foreign_environment import read_foreign_environment
from firebox.settings.other_systems.piston_settings import override_names
from firebox.settings.settings_table import TABLE
from tests.settings.loading import load


def test_piston_variables_set_default_and_maximum() -> None:
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
        policy.default_limits("run", NamedLanguage(("c++", "cpp"))),
        policy.maximum_limits("run", NamedLanguage(("c++",))),
    ):
        assert (limits.wall_ms, limits.processes) == (9000, 7)


def test_every_piston_variable_sets_the_settings_that_declare_it() -> None:
    declared: dict[str, set[str]] = {}
    for row in TABLE:
        for alias in row.aliases:
            if isinstance(alias, Piston):
                declared.setdefault(alias.name, set()).add(row.name)
    assert len(declared) == 16
    for variable, names in declared.items():
        value = {"PISTON_LIMIT_OVERRIDES": "{}", "PISTON_BIND_ADDRESS": "::1:80", "PISTON_LOG_LEVEL": "trace"}.get(
            variable, "9999999"
        )
        warnings: list[str] = []
        assert set(read_foreign_environment({variable: value}, (), warnings)) == names
        assert warnings == []


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("run_timeout", ["run_wall_ms"]),
        ("compile_memory_limit", ["compile_memory_bytes"]),
        ("output_max_size", ["compile_output_bytes", "run_output_bytes"]),
        ("RUN_TIMEOUT", ["RUN_TIMEOUT"]),
        ("repo_url", ["repo_url"]),
    ],
)
def test_names_of_piston_overrides(key: str, names: list[str]) -> None:
    assert override_names(key) == names


def test_piston_output_is_cut_unless_its_limit_is_set() -> None:
    assert limit_policy(load({"PISTON_RUN_TIMEOUT": "1000"})).default_limits("run").output_mode is OutputMode.CUT


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("0.0.0.0:2001", "0.0.0.0", 2001), ("[::1]:3000", "::1", 3000), ("[::]", "::", 2000), ("localhost", "localhost", 2000)],
)
def test_piston_bind_address(address: str, host: str, port: int) -> None:
    settings = load({"PISTON_BIND_ADDRESS": address})
    assert (settings.host, settings.port) == (host, port)


def test_unsupported_piston_variable_causes_a_warning() -> None:
    settings = load({"PISTON_RUNNER_UID_MIN": "1001", "PISTON_DISABLE_NETWORKING": "false"})
    assert settings.warnings == (
        "PISTON_DISABLE_NETWORKING is 'false' and has no effect: programs never have network access",
        "PISTON_RUNNER_UID_MIN is not supported and has no effect",
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
def test_invalid_piston_value_is_an_error(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({variable: value})
    assert caught.value.source == f"environment {variable}"
