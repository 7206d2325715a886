"""Variables of glot-run and grounds-exec, read as our settings, and systems that disagree."""

from __future__ import annotations

from pathlib import Path

from tests.settings.loading import load, shown

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


def test_glot_run_variables() -> None:
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
        "API_ENVIRONMENT has no effect: nothing is recompiled while the server runs",
        "LOG_PATH has no effect: logs go to standard error",
    )


def test_shared_variable_counts_only_beside_one_that_only_glot_run_uses() -> None:
    settings = load({"DATA_PATH": "/somebody/else", "LOG_PATH": "/var/log", "BASE_URL": "http://x"})
    assert settings.source("data_dir") == "default"
    assert settings.source("base_url") == "environment BASE_URL"
    assert settings.warnings == ()


def test_grounds_exec_variables() -> None:
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
        "DOCKER_TLS_VERIFY has no effect: connections to the engine do not use TLS; use its socket or a tunnel",
    )


def test_precedence_is_own_variables_foreign_variables_file(runner_file: Path) -> None:
    environ = {**GLOT, "FIREBOX_PORT": "3", "FIREBOX_DATABASE_URL": "sqlite:///x", "PISTON_LOG_LEVEL": "ERROR"}
    settings = load(environ, file=runner_file)
    assert shown(settings, "port", "host", "database_url", "log_level", "grpc_port") == [
        (3, "environment FIREBOX_PORT"),
        ("0.0.0.0", "environment API_HTTP_LISTEN_IP"),
        ("sqlite:///x", "environment FIREBOX_DATABASE_URL"),
        ("error", "environment PISTON_LOG_LEVEL"),
        (44_000, f"file {runner_file} (grpc.port)"),
    ]


def test_disagreeing_systems_cause_a_warning_and_the_first_wins() -> None:
    environ = {"PISTON_BIND_ADDRESS": "127.0.0.1:2000", "API_HTTP_LISTEN_PORT": "8090", "API_HTTP_LISTEN_IP": "127.0.0.1"}
    settings = load(environ)
    assert (settings.host, settings.port) == ("127.0.0.1", 2000)
    assert settings.warnings == ("PISTON_BIND_ADDRESS and API_HTTP_LISTEN_PORT disagree about port: PISTON_BIND_ADDRESS wins",)
    assert load({**environ, "FIREBOX_PORT": "5"}).warnings == (), "our own variable decides"
    settings = load({"DOCKER_API_URL": "unix:///a", "DOCKER_HOST": "unix:///b"})
    assert settings.docker_url == "unix:///a"
    assert settings.warnings == ("DOCKER_API_URL and DOCKER_HOST disagree about docker_url: DOCKER_API_URL wins",)
