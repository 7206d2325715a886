"""The names of glot-run, grounds-exec and Runner, read as our settings; and what nobody is shown of any setting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from firebox.settings.other_systems.runner_settings import MOST_BYTES, duration_ms
from firebox.settings.settings import Settings, load_settings
from tests.support.server import run_firebox

GLOT = {
    "API_ENVIRONMENT": "production",
    "API_HTTP_LISTEN_IP": "0.0.0.0",
    "API_HTTP_LISTEN_PORT": "8090",
    "DATA_PATH": "/home/app/data/",
    "LOG_PATH": "/home/app/log/",
    "BASE_URL": "https://run.example.org",
    "ADMIN_TOKEN": "some-secret",
    "DOCKER_API_URL": "http://10.0.0.2:2375",
    "DOCKER_RUN_TIMEOUT": "20",
    "MAX_OUTPUT_SIZE": "200000",
}
RUNNER = """\
env: prod
db_uri: postgres://runner:hunter2@db:5432/runner
redis_addr: redis:6379
prometheus_addr: 0.0.0.0:9100
grpc:
  port: 44000
  timeout: 7s
clients:
  sso:
    address: sso:44044
    timeout: 1m30s
    retriesCount: 5
app_secret: hunter3
"""


def load(environ: dict[str, str] | None = None, file: Path | None = None) -> Settings:
    return load_settings({}, file, environ or {})


def shown(settings: Settings, *names: str) -> list[tuple[object, str]]:
    return [(settings.value(name), settings.source(name)) for name in names]


@pytest.fixture
def runner_file(tmp_path: Path) -> Path:
    file = tmp_path / "prod.yaml"
    file.write_text(RUNNER)
    return file


def test_the_environment_of_glot_run() -> None:
    settings = load(GLOT)
    assert shown(settings, "host", "port", "data_dir", "base_url", "admin_token") == [
        ("0.0.0.0", "environment API_HTTP_LISTEN_IP"),
        (8090, "environment API_HTTP_LISTEN_PORT"),
        (Path("/home/app/data"), "environment DATA_PATH"),
        ("https://run.example.org", "environment BASE_URL"),
        ("some-secret", "environment ADMIN_TOKEN"),
    ]
    assert shown(settings, "docker_url", "docker_run_timeout_ms", "glot_output_bytes") == [
        ("tcp://10.0.0.2:2375", "environment DOCKER_API_URL"),
        (20_000, "environment DOCKER_RUN_TIMEOUT"),
        (200_000, "environment MAX_OUTPUT_SIZE"),
    ]
    assert settings.warnings == (
        "API_ENVIRONMENT has no effect: nothing is compiled anew while the server runs",
        "LOG_PATH has no effect: the log goes to standard error",
    )


def test_names_that_other_programs_use_too_count_only_beside_one_of_glot_runs_own() -> None:
    settings = load({"DATA_PATH": "/somebody/else", "LOG_PATH": "/var/log", "BASE_URL": "http://x"})
    assert settings.source("data_dir") == "default"
    assert settings.source("base_url") == "environment BASE_URL"
    assert settings.warnings == ()


def test_the_environment_of_grounds_exec() -> None:
    environ = {"DOCKER_HOST": "unix:///one", "DOCKER_HOST_RUNNERS": "tcp://two:2375", "REPOSITORY": "mine", "TAG": "7"}
    assert shown(load(environ), "docker_url", "grounds_repository", "grounds_tag") == [
        ("tcp://two:2375", "environment DOCKER_HOST_RUNNERS"),
        ("mine", "environment REPOSITORY"),
        ("7", "environment TAG"),
    ]
    assert load(environ).warnings == ()
    del environ["DOCKER_HOST_RUNNERS"]
    assert shown(load(environ), "docker_url") == [("unix:///one", "environment DOCKER_HOST")]
    assert load({"DOCKER_HOST": "tcp://x:2376", "DOCKER_TLS_VERIFY": "1"}).warnings == (
        "DOCKER_TLS_VERIFY has no effect: the engine is spoken to without TLS; use its socket or a tunnel",
    )


def test_the_file_of_runner(runner_file: Path) -> None:
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
    assert settings.warnings == (f"app_secret in {runner_file} has no meaning here and no effect",)


@pytest.mark.parametrize(
    ("env", "log_format", "log_level"), [("local", "text", "debug"), ("dev", "json", "debug"), ("prod", "json", "info")]
)
def test_environments_of_runner(tmp_path: Path, env: str, log_format: str, log_level: str) -> None:
    file = tmp_path / "x.yml"
    file.write_text(f"env: {env}\n")
    settings = load(file=file)
    assert (settings.log_format, settings.log_level) == (log_format, log_level)


def test_the_environment_names_runners_file_as_there(runner_file: Path, tmp_path: Path) -> None:
    assert load({"CONFIG_PATH": str(runner_file)}).grpc_port == 44_000
    assert load({"FIREBOX_CONFIG": str(runner_file)}).grpc_port == 44_000
    assert load({"CONFIG_PATH": str(tmp_path / "of-another-program.json")}).warnings == ()
    own = tmp_path / "firebox.toml"
    own.write_text("grpc_port = 1\n")
    assert load({"CONFIG_PATH": str(runner_file), "FIREBOX_CONFIG": str(own)}).grpc_port == 1


def test_our_own_names_go_before_those_of_others_and_these_before_the_file(runner_file: Path) -> None:
    environ = {**GLOT, "FIREBOX_PORT": "3", "FIREBOX_DATABASE_URL": "sqlite:///x", "PISTON_LOG_LEVEL": "ERROR"}
    settings = load(environ, runner_file)
    assert shown(settings, "port", "host", "database_url", "log_level", "grpc_port") == [
        (3, "environment FIREBOX_PORT"),
        ("0.0.0.0", "environment API_HTTP_LISTEN_IP"),
        ("sqlite:///x", "environment FIREBOX_DATABASE_URL"),
        ("error", "environment PISTON_LOG_LEVEL"),
        (44_000, f"file {runner_file} (grpc.port)"),
    ]


def test_two_systems_that_disagree_are_named_and_the_first_counts() -> None:
    environ = {"PISTON_BIND_ADDRESS": "127.0.0.1:2000", "API_HTTP_LISTEN_PORT": "8090", "API_HTTP_LISTEN_IP": "127.0.0.1"}
    settings = load(environ)
    assert (settings.host, settings.port) == ("127.0.0.1", 2000)
    assert settings.warnings == ("PISTON_BIND_ADDRESS and API_HTTP_LISTEN_PORT disagree about port: PISTON_BIND_ADDRESS counts",)
    assert load({**environ, "FIREBOX_PORT": "5"}).warnings == (), "where our own name decides, nobody need know"
    settings = load({"DOCKER_API_URL": "unix:///a", "DOCKER_HOST": "unix:///b"})
    assert settings.docker_url == "unix:///a"
    assert settings.warnings == ("DOCKER_API_URL and DOCKER_HOST disagree about docker_url: DOCKER_API_URL counts",)


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
def test_durations_as_go_writes_them(text: str | int, milliseconds: int) -> None:
    assert duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-1s", "1d", "5s5", "1e3s", "--1s", "٣s", None, True, 1.5, [], -1])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError):
        duration_ms(text)


@pytest.mark.parametrize(
    ("text", "setting", "allowed", "key"),
    [
        ("env: staging", "log_level", "local, dev or prod", "env"),
        ("grpc: {timeout: soon}", "runner_timeout_ms", "a duration such as 5s or 1m30s", "grpc.timeout"),
        ("grpc: {timeout: 0s}", "runner_timeout_ms", "milliseconds, 1 or more", "grpc.timeout"),
        ("grpc: {port: 70000}", "grpc_port", "a whole number, from -1 to 65535", "grpc.port"),
        ("grpc: {port: yes}", "grpc_port", "a port", "grpc.port"),
        ("grpc: 5", "grpc", "a mapping", "grpc"),
        ("clients: {sso: [1]}", "clients.sso", "a mapping", "clients.sso"),
        ("prometheus_addr: metrics", "metrics_port", "a whole number, from -1 to 65535", "prometheus_addr"),
        ("redis_addr: 6379", "redis_url", "HOST:PORT", "redis_addr"),
        ("db_uri: {a: b}", "database_url", "the address of a database", "db_uri"),
    ],
)
def test_a_value_in_runners_file_that_is_not_allowed(tmp_path: Path, text: str, setting: str, allowed: str, key: str) -> None:
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
def test_a_file_that_is_not_runners_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"db_uri: postgres://a:hunter2@b/c\n{text}")
    with pytest.raises(SettingsError) as caught:
        load(file=file)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_a_file_that_is_too_large_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# " + "x" * MOST_BYTES)
    with pytest.raises(SettingsError, match="at most"):
        load(file=file)
    with pytest.raises(SettingsError, match="a file that can be read"):
        load(file=tmp_path / "none.yaml")


def test_a_file_that_repeats_itself_without_end_is_read_in_bounded_time(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, 200)), "clients: *a199"]
    file.write_text("\n".join(lines))
    assert len(load(file=file).warnings) == 202


def test_own_settings_as_yaml_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("port: 3000\nclients:\ngrpc: {}\n")
    settings = load(file=file)
    assert settings.port == 2000
    assert settings.warnings == (f"port in {file} has no effect: a YAML file is read as Runner's; Firebox's own is TOML",)


SECRETS = {
    "FIREBOX_ADMIN_TOKEN": "hunter2-admin",
    "FIREBOX_DATABASE_URL": "postgresql://user:hunter2-p@ss/word@db/name?password=hunter2-query",
    "FIREBOX_REDIS_URL": "redis://:hunter2-redis@cache:6379/1",
    "FIREBOX_REPOSITORIES": "https://hunter2-token@example.org/index",
}


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_settings_are_shown_without_tokens_and_passwords(form: tuple[str, ...]) -> None:
    done = run_firebox("settings", *form, env=SECRETS)
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    for part in ("***@db/name?password=***", "redis://:***@cache:6379/1", "https://***@example.org/index"):
        assert part in done.stdout
    if form:
        table = json.loads(done.stdout)
        assert table["admin_token"] == {"value": "***", "source": "environment FIREBOX_ADMIN_TOKEN"}
        assert table["port"] == {"value": 2000, "source": "default"}


def test_nothing_that_prints_settings_prints_secrets() -> None:
    settings = load(SECRETS)
    assert "hunter2" not in repr(settings)
    assert settings.admin_token == "hunter2-admin", "who uses it gets it"


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"FIREBOX_ADMIN_TOKEN": "hunter2\nx"}, ""),
        ({"FIREBOX_DATABASE_URL": "postgresql://u:hunter2@h/\x07"}, ""),
        ({"FIREBOX_PORT": "http://u:hunter2@h"}, ""),
        ({}, "admin_tokn = 'hunter2'"),
        ({}, "[admin]\ntoken = 'hunter2'"),
        ({}, "admin_token = ['hunter2']"),
        ({}, "redis_url = {password = 'hunter2'}"),
    ],
)
def test_an_error_hides_what_must_not_be_seen(tmp_path: Path, environ: dict[str, str], text: str) -> None:
    file = tmp_path / "firebox.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(environ, file)
    assert "hunter2" not in f"{caught.value} {caught.value.message} {caught.value.value} {caught.value.hint}"
