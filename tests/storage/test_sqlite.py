"""Behaviour specific to SQLite."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from firebox.storage.sqlite_file import prepare

CONNECTIONS = 4


def test_a_new_database_is_opened_by_several_at_once(tmp_path: Path) -> None:
    """Two connections that want the same lock do not wait for each other: without retries some rounds fail."""

    def open_it(path: Path, together: Barrier) -> None:
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        try:
            together.wait()
            prepare(connection, 60)
        finally:
            connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        for number in range(60):
            together, path = Barrier(CONNECTIONS), tmp_path / f"{number}.db"
            list(threads.map(open_it, [path] * CONNECTIONS, [together] * CONNECTIONS))
