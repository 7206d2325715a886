"""Fixtures for `rce-runner`: one request to the real command."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.command import run_command
from tests.support.server import data_folder, environment, unused_uid_base

NO_SANDBOX = ("--no-sandbox", "--inside-container")


@dataclass(frozen=True)
class Reply:
    """The result of the command. status: its exit status."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def answer(self) -> dict[str, str]:
        """The parsed answer."""
        assert self.status == 0, self.stderr
        answer: dict[str, str] = json.loads(self.stdout)
        assert list(answer) == ["stdout", "stderr", "error"]
        return answer

    @property
    def outcome(self) -> tuple[str, str]:
        """Output and error together, for the message of a failing test."""
        answer = self.answer
        return answer["stdout"], answer["error"] or answer["stderr"]


def request(language: str, *files: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"language": language, "files": [{"name": name, "content": content} for name, content in files], **more}


def command_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return environment(
        {
            "FIREBOX_DATA_DIR": str(data_folder()),
            "FIREBOX_UID_BASE": str(unused_uid_base()),
            "FIREBOX_RUN_WALL_MS": "30s",
            "FIREBOX_RUN_CPU_MS": "30s",
            "FIREBOX_COMPILE_WALL_MS": "120s",
            "FIREBOX_COMPILE_CPU_MS": "120s",
            **(extra or {}),
        }
    )


def command(*flags: str) -> list[str]:
    # Tests must not pick up an archive on this machine.
    own = () if "--bootstrap" in flags else ("--bootstrap", os.devnull + "-none")
    return ["firebox.cli.one_request.rce_runner", *own, *flags]


def ask(asked: dict[str, Any] | bytes, *flags: str, env: Mapping[str, str] | None = None) -> Reply:
    """Send one request to the real command."""
    data = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    done = run_command(command(*flags), stdin=data, env=command_environment(env), timeout_s=280, text=False)
    return Reply(done.returncode, done.stdout, done.stderr.decode())


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
