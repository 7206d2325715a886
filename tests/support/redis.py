"""A Redis for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import require_tool
from tests.support.guarded import Guarded, ServiceFailed, free_port, password_of

REDIS_DATABASES = 16_384


class RedisServer(Guarded):
    """A Redis of one's own on loopback. `url`: its database 0; it forgets everything when it ends."""

    kind = "redis"

    def recipe(self, folder: Path) -> dict[str, Any]:
        port = free_port(folder)
        password = password_of(folder)
        settings = folder / "redis.conf"
        settings.touch(mode=0o600)
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"requirepass {password}",
            f"databases {REDIS_DATABASES}",
            'save ""',
            "appendonly no",
            f"dir {folder}",
            "daemonize no",
        ]
        settings.write_text("\n".join(lines) + "\n")
        return {
            "command": [require_tool("redis-server"), str(settings)],
            "ready": "eady to accept connections",
            "ports": [port],
            "facts": {"folder": str(folder), "port": port, "password": password},
        }

    @property
    def port(self) -> int:
        return int(self.facts["port"])

    def url_of(self, database: int) -> str:
        """The address of a database, as `FIREBOX_REDIS_URL` takes it."""
        return f"redis://:{self.facts['password']}@127.0.0.1:{self.port}/{database}"

    @property
    def url(self) -> str:
        return self.url_of(0)

    def command(self, *words: str, database: int = 0) -> str:
        """Send a command with redis-cli; return what it printed."""
        done = subprocess.run(
            [require_tool("redis-cli"), "-h", "127.0.0.1", "-p", str(self.port), "-n", str(database), *words],
            env={**os.environ, "REDISCLI_AUTH": str(self.facts["password"])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0 or "ERR" in done.stdout:
            raise ServiceFailed(f"redis-cli: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    @contextmanager
    def database(self) -> Generator[str]:
        """A database with nothing in it; yield its address, and empty it in the end."""
        number = 1 + int(self.command("INCR", "databases")) % (REDIS_DATABASES - 1)
        self.command("FLUSHDB", database=number)
        try:
            yield self.url_of(number)
        finally:
            self.command("FLUSHDB", database=number)
