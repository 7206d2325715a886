"""Users for tests, created with the command line."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from tests.support.server import RunningServer, run_firebox

T = TypeVar("T")

OPERATOR = "the-token-of-the-operator-0123456789"


class People:
    """The users of one database. tokens: by name, including the operator's."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.tokens = {"operator": OPERATOR}

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `firebox users`."""
        return run_firebox("users", *arguments, stdin=stdin, env={"FIREBOX_DATABASE_URL": self.database_url})

    def ask(self, *arguments: str) -> Any:
        """Run `firebox users ... --json` and parse its output."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def add(self, name: str, *flags: str) -> str:
        """Create a user. Return the token."""
        token = str(self.ask("add", name, *flags)["token"])
        self.tokens[name] = token
        return token

    def environment(self) -> dict[str, str]:
        """Return the flags of a server for these users."""
        return {"FIREBOX_DATABASE_URL": self.database_url, "FIREBOX_ADMIN_TOKEN": OPERATOR}

    def client(self, server: RunningServer, name: str | None, **options: Any) -> httpx.Client:
        """A client with a user's token, or without one."""
        headers = {"Authorization": f"Bearer {self.tokens[name]}"} if name else {}
        return httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False, **options)


def program(code: str = "echo hello", **more: Any) -> dict[str, Any]:
    return {"language": "bash", "code": code, **more}


def within(window_s: int, attempt: Callable[[], T]) -> T:
    """Run something that counts in time windows; run it again if a window ended meanwhile."""
    while True:
        window = int(time.time()) // window_s
        result = attempt()
        if int(time.time()) // window_s == window:
            return result
