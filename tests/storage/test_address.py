"""The settings `database_url` and `redis_url`, and errors about them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from firebox.settings.settings import Settings, load_settings
from firebox.storage.database_address import read_address
from firebox.storage.redis_stores import make_redis
from tests.storage.places import stores_at
from tests.support.server import environment, firebox


def settings(url: str, **more: object) -> Settings:
    return load_settings({"database_url": url, "data_dir": "/data", **more}, environ={})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("", "/data/firebox.db"),
        ("sqlite:///firebox.db", "/data/firebox.db"),
        ("sqlite:///some/where.db", "/data/some/where.db"),
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite+aiosqlite:////x.db", "/x.db"),
        ("sqlite:////with%20space%3F.db", "/with space?.db"),
    ],
)
def test_sqlite_is_a_file(url: str, path: str) -> None:
    address = read_address(settings(url))
    assert (address.kind, address.path) == ("sqlite", Path(path))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_postgresql_may_be_spelled_in_several_ways(scheme: str) -> None:
    address = read_address(settings(f"{scheme}://ada:se%20cret@db:5433/name?sslmode=require"))
    assert address.kind == "postgresql"
    assert address.url == "postgresql://ada:se%20cret@db:5433/name?sslmode=require"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///folder/",
        "sqlite://host/x.db",
        "sqlite:///x.db?mode=ro",
        "sqlite:///a%00b",
        "mysql://ada:secret@db/name",
        "/var/lib/x.db",
        "secret",
        "postgresql",
        "http://[secret",
    ],
)
def test_other_address_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_address(settings(url))
    assert refused.value.setting == "database_url"
    assert "secret" not in refused.value.message + refused.value.hint


def test_address_does_not_show_the_password() -> None:
    address = read_address(settings("postgresql://ada:secret@db/name?password=secret"))
    assert "secret" not in f"{address!r} {address.shown}"
    assert address.shown == "postgresql://db/name"


@pytest.mark.parametrize("url", ["postgresql://ada:secret@db:port/name", "postgresql://ada:secret@db/name?sslmode=secret"])
async def test_what_the_driver_refuses_is_a_mistake_in_the_settings(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        async with stores_at(url):
            pytest.fail("it started")
    assert "secret" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("url", "module", "hint"),
    [
        ("postgresql://db/name", "asyncpg", "pip install firebox[postgres]"),
        ("", "redis", "pip install firebox[redis]"),
    ],
)
def test_missing_driver_has_an_installation_hint(url: str, module: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    for place in ("firebox.storage.database_address.find_spec", "firebox.storage.redis_stores.find_spec"):
        monkeypatch.setattr(place, lambda name: None if name == module else real(name))
    made = settings(url, redis_url="redis://host")
    use: Callable[[Settings], object] = read_address if module == "asyncpg" else make_redis
    with pytest.raises(SettingsError) as refused:
        use(made)
    assert refused.value.hint == hint


def test_redis_address_of_another_kind_is_refused_without_its_secrets() -> None:
    for url in ("http://:secret@host", "redis://:secret@host:port", "secret"):
        with pytest.raises(SettingsError) as refused:
            _ = make_redis(settings("", redis_url=url))
        assert refused.value.setting == "redis_url"
        assert "secret" not in refused.value.message + refused.value.hint


LIBRARIES = ("sqlalchemy", "alembic", "redis", "asyncpg", "mako")


def loaded(script: str) -> set[str]:
    """Run Python. Return which of the large libraries it imported."""
    script += f"\nimport sys; print(*(name for name in {LIBRARIES} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_commands_that_keep_nothing_load_no_database() -> None:
    assert (
        loaded("import firebox.cli.main, firebox.cli.run.run_command, firebox.cli.doctor_command, firebox.cli.settings_command")
        == set()
    )


def test_server_on_sqlite_loads_nothing_but_what_it_needs(tmp_path: Path) -> None:
    start = (
        "import asyncio; from tests.storage.places import stores_at\n"
        "async def main():\n"
        f"    async with stores_at('sqlite:///{tmp_path}/firebox.db') as stores:\n"
        "        await stores.users.add(name='ada', token='token'); await stores.counters.lease('x', 'a', allowed=1, ttl_s=60)\n"
        "        await stores.languages.put('x', 'y', image='z'); await stores.cache.set('a', b'', 1)\n"
        "asyncio.run(main())"
    )
    first = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{start}"
    assert loaded(first) == {"sqlalchemy"}
    assert loaded(first.replace("'ada', token='token'", "'bob', token='other'")) == {"sqlalchemy"}


def test_server_that_keeps_nothing_loads_no_database(tmp_path: Path) -> None:
    start = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "import asyncio; from firebox.settings.settings import load_settings; from firebox.storage.stores import open_stores\n"
        "from firebox.service.retention import remove_old\n"
        "async def main():\n"
        f"    settings = load_settings({{'data_dir': {str(tmp_path)!r}, 'snippet_retention_s': 9}}, environ={{}})\n"
        "    async with open_stores(settings) as stores: await remove_old(stores, settings)\n"
        "asyncio.run(main())"
    )
    assert loaded(start) == set(), "in an empty folder"
    assert loaded(start) == set(), "with the tables of the first start"
    counted = start.replace("'snippet_retention_s': 9", "'anonymous_concurrent_runs': 1")
    assert loaded(counted) == {"sqlalchemy"}, "before the first run that is counted"


def test_help_of_the_command_teaches() -> None:
    done = subprocess.run(firebox("db", "--help"), env=environment(), capture_output=True, text=True, check=True)
    for word in ("upgrade", "downgrade", "check", "docs/operate/storage.md"):
        assert word in done.stdout
