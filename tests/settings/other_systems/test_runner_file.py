"""Runner's YAML file, read as our settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from firebox.settings.other_systems.aliases import go_duration_ms
from firebox.settings.other_systems.runner_file import MAX_BYTES
from tests.settings.loading import load, shown


def test_every_key_of_runners_file(runner_file: Path) -> None:
    settings = load(file=runner_file)
    assert shown(settings, "log_level", "log_format", "database_url", "redis_url", "metrics_port") == [
        ("info", f"file {runner_file} (env)"),
        ("json", f"file {runner_file} (env)"),
        ("postgresql://runner:hunter2@db:5432/runner", f"file {runner_file} (db_uri)"),
        ("redis://redis:6379/0", f"file {runner_file} (redis_addr)"),
        (9100, f"file {runner_file} (prometheus_addr)"),
    ]
    assert shown(settings, "grpc_port", "runner_timeout_ms", "sso_address", "sso_timeout_ms", "sso_retries") == [
        (44_000, f"file {runner_file} (grpc.port)"),
        (7_000, f"file {runner_file} (grpc.timeout)"),
        ("sso:44044", f"file {runner_file} (clients.sso.address)"),
        (90_000, f"file {runner_file} (clients.sso.timeout)"),
        (5, f"file {runner_file} (clients.sso.retriesCount)"),
    ]
    assert settings.warnings == (f"app_secret in {runner_file} is not supported and has no effect",)


@pytest.mark.parametrize(
    ("env", "log_format", "log_level"), [("local", "text", "debug"), ("dev", "json", "debug"), ("prod", "json", "info")]
)
def test_environments_of_runner(tmp_path: Path, env: str, log_format: str, log_level: str) -> None:
    file = tmp_path / "x.yml"
    file.write_text(f"env: {env}\n")
    settings = load(file=file)
    assert (settings.log_format, settings.log_level) == (log_format, log_level)


def test_environment_names_the_file_as_in_runner(runner_file: Path, tmp_path: Path) -> None:
    assert load({"CONFIG_PATH": str(runner_file)}).grpc_port == 44_000
    assert load({"FIREBOX_CONFIG": str(runner_file)}).grpc_port == 44_000
    assert load({"CONFIG_PATH": str(tmp_path / "of-another-program.json")}).warnings == ()
    own = tmp_path / "firebox.toml"
    own.write_text("grpc_port = 1\n")
    assert load({"CONFIG_PATH": str(runner_file), "FIREBOX_CONFIG": str(own)}).grpc_port == 1


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("5s", 5_000),
        ("1m30s", 90_000),
        ("1.5h", 5_400_000),
        ("250ms", 250),
        (".5s", 500),
        ("1h2m3s4ms", 3_723_004),
        ("1500us", 2),
        ("+2s", 2_000),
        ("0s", 0),
        (3_000_000_000, 3_000),
    ],
)
def test_go_durations(text: str | int, milliseconds: int) -> None:
    assert go_duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-1s", "1d", "5s5", "1e3s", "--1s", "٣s", None, True, 1.5, [], -1])
def test_invalid_go_durations(text: object) -> None:
    with pytest.raises(ValueError):
        go_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "setting", "allowed", "key"),
    [
        ("env: staging", "log_level", "local, dev or prod", "env"),
        ("grpc: {timeout: soon}", "runner_timeout_ms", "a duration such as 5s or 1m30s", "grpc.timeout"),
        ("grpc: {timeout: 0s}", "runner_timeout_ms", "milliseconds, 1 or more", "grpc.timeout"),
        ("grpc: {port: 70000}", "grpc_port", "a whole number, from -1 to 65535", "grpc.port"),
        ("grpc: {port: yes}", "grpc_port", "a number", "grpc.port"),
        ("grpc: 5", "grpc", "a mapping", "grpc"),
        ("clients: {sso: [1]}", "clients.sso", "a mapping", "clients.sso"),
        ("prometheus_addr: metrics", "metrics_port", "a whole number, from -1 to 65535", "prometheus_addr"),
        ("redis_addr: 6379", "redis_url", "HOST:PORT", "redis_addr"),
        ("db_uri: {a: b}", "database_url", "the URL of a database", "db_uri"),
    ],
)
def test_invalid_value_in_runners_file_is_an_error(tmp_path: Path, text: str, setting: str, allowed: str, key: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file=file)
    assert caught.value.setting == setting
    assert caught.value.allowed.startswith(allowed)
    assert caught.value.source == f"file {file} ({key})"


@pytest.mark.parametrize(
    "text",
    ["{", "a: b: c", "- 1", "text", "a: !!python/object/apply:os.system [true]", "x: \x00", "[" * 5000],
    ids=range(7),
)
def test_invalid_file_is_rejected_without_quoting_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"db_uri: postgres://a:hunter2@b/c\n{text}")
    with pytest.raises(SettingsError) as caught:
        load(file=file)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_too_large_and_missing_files_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# " + "x" * MAX_BYTES)
    with pytest.raises(SettingsError, match="at most"):
        load(file=file)
    with pytest.raises(SettingsError, match="a readable file"):
        load(file=tmp_path / "none.yaml")


def test_exponentially_nested_aliases_are_read_in_bounded_time(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, 200)), "clients: *a199"]
    file.write_text("\n".join(lines))
    assert len(load(file=file).warnings) == 202


def test_firebox_settings_in_yaml_cause_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("port: 3000\nclients:\ngrpc: {}\n")
    settings = load(file=file)
    assert settings.port == 2000
    assert settings.warnings == (f"port in {file} is not supported and has no effect: YAML files are read as Runner's; use TOML",)
