"""Tokens and passwords in settings are never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from tests.settings.loading import load
from tests.support.server import run_firebox

SECRETS = {
    "FIREBOX_ADMIN_TOKEN": "hunter2-admin",
    "FIREBOX_DATABASE_URL": "postgresql://user:hunter2-p@ss/word@db/name?password=hunter2-query",
    "FIREBOX_REDIS_URL": "redis://:hunter2-redis@cache:6379/1",
    "FIREBOX_REPOSITORIES": "https://hunter2-token@example.org/index",
}


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_settings_command_hides_tokens_and_passwords(form: tuple[str, ...]) -> None:
    done = run_firebox("settings", *form, env=SECRETS)
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    for part in ("***@db/name?password=***", "redis://:***@cache:6379/1", "https://***@example.org/index"):
        assert part in done.stdout
    if form:
        table = json.loads(done.stdout)
        assert table["admin_token"] == {"value": "***", "source": "environment FIREBOX_ADMIN_TOKEN"}
        assert table["port"] == {"value": 2000, "source": "default"}


def test_repr_of_settings_hides_secrets() -> None:
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
def test_errors_hide_secrets(tmp_path: Path, environ: dict[str, str], text: str) -> None:
    file = tmp_path / "firebox.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(environ, file=file)
    assert "hunter2" not in f"{caught.value} {caught.value.message} {caught.value.value} {caught.value.hint}"
