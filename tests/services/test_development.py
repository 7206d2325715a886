"""`make services-up` and `make services-down`: services for developers of Firebox."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.services.test_shared import leftovers
from tests.support.guarded import new_folder
from tests.support.postgres import postgres_program
from tests.support.services import PostgresServer, RedisServer

SECONDS = 280


@pytest.fixture
def cache() -> Iterator[Path]:
    """A cache folder of one's own; whatever runs below it in the end is stopped."""
    folder = new_folder("cache")
    yield folder
    services("down", folder)
    shutil.rmtree(folder, ignore_errors=True)


def services(action: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.services", action],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )


def test_up_and_down_twice(cache: Path, postgres_server: PostgresServer, redis_server: RedisServer) -> None:
    first = services("up", cache)
    settings = dict(re.findall(r"^export (\w+)=(.+)$", first.stdout, re.MULTILINE))
    assert {"FIREBOX_DATABASE_URL", "FIREBOX_REDIS_URL"} <= set(settings)
    assert settings["FIREBOX_DATABASE_URL"].endswith("/firebox")
    assert services("up", cache).stdout == first.stdout, "what runs is left alone"
    write(settings["FIREBOX_DATABASE_URL"], "CREATE TABLE kept AS SELECT 42 AS answer")

    assert "postgres: stopped" in services("down", cache).stderr
    assert [found for found in leftovers(str(cache)) if found != str(cache)] == []
    assert "postgres: was not running" in services("down", cache).stderr

    assert services("up", cache).stdout == first.stdout, "same places, same passwords"
    assert write(settings["FIREBOX_DATABASE_URL"], "SELECT answer FROM kept") == "42"
    assert postgres_server.sql("SELECT 1") == "1", "others are not touched"
    assert redis_server.command("PING") == "PONG"


def write(url: str, statement: str) -> str:
    done = subprocess.run(
        [postgres_program("psql"), "--no-psqlrc", "--tuples-only", "--no-align", "--dbname", url, "--command", statement],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()
