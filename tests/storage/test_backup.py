"""Backup and restore as in docs/operate/storage.md, with the commands exactly as written there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.conftest import ROOT
from tests.storage.places import stores_at
from tests.support.postgres import postgres_program
from tests.support.services import PostgresServer

PAGE = (ROOT / "docs" / "operate" / "storage.md").read_text(encoding="utf-8")
ROW = {"code": "x", "language": "go", "output": "", "error": ""}


def commands(heading: str) -> list[str]:
    """The shell commands of a section of the page."""
    part = PAGE.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    blocks = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    assert blocks, f"no commands below {heading!r}"
    return [block.strip() for block in blocks]


def run(command: str, folder: Path, **environment: str) -> None:
    subprocess.run(["sh", "-euc", command], cwd=folder, env={**os.environ, **environment}, check=True, timeout=120)


async def test_sqlite_is_backed_up_while_it_is_used_and_restored(tmp_path: Path) -> None:
    backup, restore = commands("SQLite")
    url = f"sqlite:///{tmp_path / 'firebox.db'}"
    async with stores_at(url) as stores:
        user = await stores.users.add(name="ada", token="token")
        kept = await stores.snippets.add(**ROW)
        run(backup, tmp_path)
        await stores.snippets.add(**ROW)
    copies = [path for path in tmp_path.iterdir() if path.suffix == ".backup"]
    assert len(copies) == 1
    assert copies[0].stat().st_mode & 0o777 == 0o600
    run(restore, tmp_path)
    assert (tmp_path / "firebox.db").stat().st_mode & 0o777 == 0o600
    async with stores_at(url) as stores:
        assert await stores.users.by_token("token") == user
        assert await stores.snippets.get(kept.id) == kept
        assert await stores.snippets.remove_older(kept.created_at, 10) == 0
        assert (await stores.snippets.add(**ROW)).id == kept.id + 1, "the second one is not in the backup"


async def test_postgresql_is_backed_up_while_it_is_used_and_restored(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    backup, restore = commands("PostgreSQL")
    path = f"{Path(postgres_program('pg_restore')).parent}:{os.environ['PATH']}"
    async with stores_at(postgres_url) as stores:
        user = await stores.users.add(name="ada", token="token")
        kept = await stores.snippets.add(**ROW)
        run(backup, tmp_path, DATABASE=postgres_url, PATH=path)
        await stores.snippets.add(**ROW)
    with postgres_server.database() as other:
        run(restore, tmp_path, DATABASE=other, PATH=path)
        async with stores_at(other, database_upgrade=False) as stores:
            assert await stores.users.by_token("token") == user
            assert await stores.snippets.get(kept.id) == kept
            assert (await stores.snippets.add(**ROW)).id == kept.id + 1
