"""Users for tests, made as an operator makes them."""

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
    """The users of one database. tokens: by name, that of the operator as well."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.tokens = {"operator": OPERATOR}

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `firebox users`."""
        return run_firebox("users", *arguments, stdin=stdin, env={"FIREBOX_DATABASE_URL": self.database_url})

    def ask(self, *arguments: str) -> Any:
        """Run `firebox users ... --json` and read what it prints."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def add(self, name: str, *flags: str) -> str:
        """Make a user; give the token."""
        token = str(self.ask("add", name, *flags)["token"])
        self.tokens[name] = token
        return token

    def environment(self) -> dict[str, str]:
        """What a server of these users is started with."""
        return {"FIREBOX_DATABASE_URL": self.database_url, "FIREBOX_ADMIN_TOKEN": OPERATOR}

    def client(self, server: RunningServer, name: str | None, **options: Any) -> httpx.Client:
        """A client with somebody's token, or with none."""
        headers = {"Authorization": f"Bearer {self.tokens[name]}"} if name else {}
        return httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False, **options)


def program(code: str = "echo hello", **more: Any) -> dict[str, Any]:
    return {"language": "bash", "code": code, **more}


def within(window_s: int, attempt: Callable[[], T]) -> T:
    """Do something that counts in windows of time; again when a window ended in the middle of it."""
    while True:
        window = int(time.time()) // window_s
        result = attempt()
        if int(time.time()) // window_s == window:
            return result
