"""socket.io-client of npm, in every version that pages and programs use, by every transport."""

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

every_version = pytest.mark.parametrize("version", [1, 2, 3, 4])
every_transport = pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]], ids="/".join)

HELLO = {"language": "python3", "code": "print('hello')"}
WORDS = "aé€😀 Ã©"
"""Characters of one to four bytes of UTF-8, and two that look like one of two bytes."""


def speak(folder: Path, version: int, server: str, *steps: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Take some steps, see run.js; returns what it printed."""
    wanted = json.dumps({"options": options, "steps": steps})
    command = [require_tool("node"), "run.js", str(version), server, wanted]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@every_version
@every_transport
def test_runs_a_program(installed: Path, server: RunningServer, version: int, transports: list[str]) -> None:
    done = speak(installed, version, server.url, {"emit": HELLO, "until": "status"}, transports=transports)
    assert done["replies"] == [
        {"stream": "start", "chunk": ""},
        {"stream": "stdout", "chunk": "hello\n"},
        {"stream": "status", "chunk": 0},
    ]
    assert done["transports"] == transports[-1:]


@every_version
@every_transport
def test_text_arrives_as_it_was_written(installed: Path, server: RunningServer, version: int, transports: list[str]) -> None:
    emit = {"language": "python3", "code": f"print('{WORDS}', ascii('{WORDS}'))"}
    replies = speak(installed, version, server.url, {"emit": emit, "until": "status"}, transports=transports)["replies"]
    assert text(replies) == f"{WORDS} {WORDS!a}\n"


@every_version
@every_transport
def test_large_output_arrives_whole(installed: Path, server: RunningServer, version: int, transports: list[str]) -> None:
    emit = {"language": "python3", "code": "for number in range(100): print(str(number) * 500, '€' * 500)"}
    replies = speak(installed, version, server.url, {"emit": emit, "until": "status"}, transports=transports)["replies"]
    assert text(replies) == "".join(f"{str(number) * 500} {'€' * 500}\n" for number in range(100))


@every_version
@every_transport
def test_a_new_run_stops_the_old_one(installed: Path, server: RunningServer, version: int, transports: list[str]) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(0.7)\nwhile True: print('more', flush=True)"
    first = {"emit": {"language": "python3", "code": code}, "until": "stdout", "chunk": "more"}
    done = speak(installed, version, server.url, first, {"emit": HELLO, "until": "status"}, transports=transports)
    replies = done["replies"]
    stopped = replies.index({"stream": "stop", "chunk": ""})
    assert text(replies[stopped:]) == "hello\n"
    assert text(replies[:stopped]).startswith("begun\n")


@every_version
@every_transport
def test_errors_are_reported(installed: Path, server: RunningServer, version: int, transports: list[str]) -> None:
    def errors_of(*steps: dict[str, Any]) -> list[str]:
        replies = speak(installed, version, server.url, *steps, transports=transports)["replies"]
        return [reply["chunk"] for reply in replies]

    nothing = {"emit": "nothing", "until": "error"}
    assert errors_of(nothing, {"emit": HELLO, "until": "error"}) == ["Request is empty.", "Spam prevention."]
    long = {"emit": {"language": "python3", "code": "x" * 65_537}, "until": "error"}
    assert errors_of(long) == ["Program too long."]
    assert errors_of({"emit": {"binary": "print(1)"}, "until": "error"}) == ["The code is not text."]


@every_version
@every_transport
def test_a_client_that_reconnects_runs_programs_again(
    installed: Path, server: RunningServer, version: int, transports: list[str]
) -> None:
    endless = {"emit": {"language": "bash", "code": "echo begun; sleep 600"}, "until": "stdout"}
    again = {"reconnect": True}
    done = speak(installed, version, server.url, endless, again, {"emit": HELLO, "until": "status"}, transports=transports)
    assert text(done["replies"]) == "begun\nhello\n"
    assert done["transports"] == transports[-1:] * 2


@every_version
@every_transport
def test_a_refused_connection_has_a_reason(
    installed: Path, kept_server: Callable[..., RunningServer], version: int, transports: list[str]
) -> None:
    server = kept_server("--require-login", env={"FIREBOX_ADMIN_TOKEN": "the-operators-token"})

    def connect(**options: Any) -> dict[str, Any]:
        step = {"emit": HELLO, "until": "status"}
        return speak(installed, version, server.url, step, transports=transports, **options)

    def credentials(token: str) -> dict[str, Any]:
        return {"auth": {"token": token}} if version > 2 else {"query": {"access_token": token}}

    assert "a token is needed" in connect()["refused"]
    assert "wrong token" in connect(**credentials("x"))["refused"]
    assert text(connect(**credentials("the-operators-token"))["replies"]) == "hello\n"
    assert text(connect(extraHeaders={"Authorization": "Bearer the-operators-token"})["replies"]) == "hello\n"
