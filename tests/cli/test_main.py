"""The command as a whole: what it loads, what it says, and its smaller sub-commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import firebox
from firebox.cli.logs import escape
from firebox.cli.main import COMMANDS
from firebox.config import load_settings
from firebox.settings_table import TABLE
from tests.support.server import environment, run_firebox
from tests.support.server import firebox as command


def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(env), timeout=120, check=False)


def quickly(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run_firebox(*arguments, env=env)


def loaded(code: str) -> set[str]:
    """Names of the modules that a piece of code loads."""
    program = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=120, check=True
    )
    return set(done.stdout.split())


def test_help_loads_no_sub_command() -> None:
    modules = loaded("import firebox.cli.main")
    assert not modules & {"litestar", "uvicorn", "asyncio", "msgspec", "pydantic"}
    assert not any(entry.module in modules for entry in COMMANDS.values())


def test_running_a_program_loads_no_server() -> None:
    assert not loaded("import firebox.cli.run") & {"litestar", "uvicorn", "prometheus_client"}


def test_help_names_every_command() -> None:
    done = call("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "bench"])
def test_every_command_explains_itself(name: str) -> None:
    done = call(name, "--help", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert f"firebox {name}" in done.stdout


def test_serve_has_a_flag_for_every_setting() -> None:
    text = quickly("serve", "--help", COLUMNS="300").stdout
    assert [row.flag for row in TABLE if row.flag not in text] == []


def test_the_version() -> None:
    assert call("--version").stdout == f"firebox {firebox.__version__}\n"


def test_an_unknown_command_is_said_in_words() -> None:
    done = call("rum")
    assert done.returncode == 2
    assert "rum" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_say_where_they_come_from() -> None:
    done = quickly("settings", "--json", "--port", "0", FIREBOX_SLOTS="3", PISTON_RUN_TIMEOUT="1234")
    values = json.loads(done.stdout)
    assert set(values) == {row.name for row in TABLE}
    assert values["port"] == {"value": 0, "source": "flag"}
    assert values["slots"] == {"value": 3, "source": "environment FIREBOX_SLOTS"}
    assert values["run_wall_ms"] == {"value": 1234, "source": "environment PISTON_RUN_TIMEOUT"}
    assert values["queue_length"]["source"] == "default"
    assert "queue_length" in quickly("settings").stdout


def test_runtimes_as_table_and_as_json() -> None:
    done = quickly("runtimes", "--json")
    assert any(item["language"] == "bash" for item in json.loads(done.stdout))
    assert "bash" in quickly("runtimes").stdout


def test_doctor_names_every_layer_and_the_status_says_whether_the_boundary_holds() -> None:
    done = quickly("doctor", "--json")
    findings = json.loads(done.stdout)
    assert {"seccomp", "network", "pid"} <= {finding["name"] for finding in findings}
    assert done.returncode == int(any(finding["boundary"] and not finding["ok"] for finding in findings))
    assert all(finding["hint"] for finding in findings if not finding["ok"])


def test_doctor_says_what_it_costs_to_have_things_ready() -> None:
    details = {finding["name"]: finding["detail"] for finding in json.loads(quickly("doctor", "--json").stdout)}
    assert re.fullmatch(r"up to 4 of a kind; \d+ ms to make one(, \d+\.\d MiB)?", details["ready-sandboxes"])
    assert re.search(r"when used often: .*python", details["started-ahead"])
    off = quickly("doctor", "--json", FIREBOX_START_AHEAD="no", FIREBOX_READY_SANDBOXES="7")
    details = {finding["name"]: finding["detail"] for finding in json.loads(off.stdout)}
    assert details["ready-sandboxes"].startswith("up to 7 of a kind")
    assert details["started-ahead"] == "nothing: start_ahead is off"


def test_settings_of_the_process_are_used_when_none_are_given() -> None:
    assert load_settings({}, None, {}).source("port") == "default"


@pytest.mark.parametrize(
    ("text", "escaped"), [("a\nb", "a\\nb"), ("\x1b[0m", "\\x1b[0m"), ("\u2028", "\\u2028"), ("\ud800", "\\ud800"), ("é€", "é€")]
)
def test_log_lines_cannot_be_forged(text: str, escaped: str) -> None:
    assert escape(text) == escaped
