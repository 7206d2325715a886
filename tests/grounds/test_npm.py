"""socket.io-client of npm, as programs use it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_tool
from tests.grounds.conftest import text
from tests.support.server import RunningServer

every_transport = pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])

HELLO = {"language": "python3", "code": "print('hello')"}


def speak(folder: Path, server: str, *steps: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Take some steps, see run.mjs; returns what it printed."""
    wanted = json.dumps({"options": options, "steps": steps})
    command = [require_tool("node"), "run.mjs", server, wanted]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@every_transport
def test_runs_a_program(installed: Path, server: RunningServer, transports: list[str]) -> None:
    done = speak(installed, server.url, {"emit": HELLO, "until": "status"}, transports=transports)
    assert done["replies"] == [
        {"stream": "start", "chunk": ""},
        {"stream": "stdout", "chunk": "hello\n"},
        {"stream": "status", "chunk": 0},
    ]
    if len(transports) == 1:
        assert done["transport"] == transports[0]


@every_transport
def test_a_new_run_stops_the_old_one(installed: Path, server: RunningServer, transports: list[str]) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(0.7)\nwhile True: print('more', flush=True)"
    first = {"emit": {"language": "python3", "code": code}, "until": "stdout", "chunk": "more"}
    replies = speak(installed, server.url, first, {"emit": HELLO, "until": "status"}, transports=transports)["replies"]
    stopped = replies.index({"stream": "stop", "chunk": ""})
    assert text(replies[stopped:]) == "hello\n"
    assert text(replies[:stopped]).startswith("begun\n")


@every_transport
def test_errors_are_words(installed: Path, server: RunningServer, transports: list[str]) -> None:
    nothing = {"emit": "nothing", "until": "error"}
    replies = speak(installed, server.url, nothing, {"emit": HELLO, "until": "error"}, transports=transports)["replies"]
    assert [reply["chunk"] for reply in replies] == ["Request is empty.", "Spam prevention."]
    long = {"emit": {"language": "python3", "code": "x" * 65_537}, "until": "error"}
    assert speak(installed, server.url, long, transports=transports)["replies"][-1]["chunk"] == "Program too long."
    binary = {"emit": {"binary": "print(1)"}, "until": "error"}
    assert speak(installed, server.url, binary, transports=transports)["replies"][-1]["chunk"] == "The code is not text."


@every_transport
def test_a_refused_connection_has_words(
    installed: Path, kept_server: Callable[..., RunningServer], transports: list[str]
) -> None:
    server = kept_server("--require-login", env={"FIREBOX_ADMIN_TOKEN": "the-operators-token"})
    assert "a token is needed" in speak(installed, server.url, transports=transports)["refused"]
    assert "wrong token" in speak(installed, server.url, transports=transports, auth={"token": "x"})["refused"]
    step = {"emit": HELLO, "until": "status"}
    done = speak(installed, server.url, step, transports=transports, auth={"token": "the-operators-token"})
    assert text(done["replies"]) == "hello\n"
    header = {"Authorization": "Bearer the-operators-token"}
    done = speak(installed, server.url, step, transports=transports, extraHeaders=header)
    assert text(done["replies"]) == "hello\n"
