"""The command as a whole: what it loads, what it says, and its smaller sub-commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import firebox
from firebox.cli.command_table import COMMANDS, app
from firebox.cli.quick_serve import read_flags
from firebox.server.logs import _render_json, _render_text, escape
from firebox.settings.settings import load_settings
from firebox.settings.settings_table import TABLE
from tests.support.server import RunningServer, environment, run_firebox
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
    modules = loaded("import firebox.cli.command_table")
    assert not modules & {"litestar", "uvicorn", "asyncio", "msgspec", "pydantic", "rich"}
    assert not any(entry.module in modules for entry in COMMANDS.values())


FOR_NOTHING = {"aiohttp", "alembic", "grpc", "pydantic", "pygments", "redis", "requests"}
"""Libraries that are installed, cost a command up to half of its start, and are needed by few."""


LOGS = "from firebox.server.logs import set_up_logs\nset_up_logs('error', 'text')"


@pytest.mark.parametrize("name", ["serve", "users", "db", "doctor", "runtimes", "settings", "stdio", "packages"])
def test_a_command_loads_no_library_for_nothing(name: str) -> None:
    drawing = {"rich.traceback"} if name == "packages" else {"rich"}
    code = f"from firebox.cli.command_table import COMMANDS, app\nCOMMANDS['{name}'].load()"
    assert not loaded(f"{code}\n{LOGS}") & (FOR_NOTHING | drawing)


def test_a_server_loads_what_an_idle_one_needs_only(tmp_path: Path) -> None:
    modules = loaded(f"""if True:
        import builtins, os, signal, sys
        def note(*words, **options):
            os.kill(os.getpid(), signal.SIGTERM)
        builtins.print, write = note, print
        from firebox.cli.main import main
        try:
            main(["serve", "--port", "0", "--data-dir={tmp_path}", "--no-prepare-toolchains", "--ready-sandboxes=1"])
        except SystemExit as end:
            assert not end.code
        builtins.print = write""")
    assert {"firebox.server.serve", "litestar"} <= modules
    assert not modules & {
        *FOR_NOTHING,
        *("typer", "sqlalchemy", "httpx", "socketio", "google.protobuf", "websockets", "pysequoia", "semantic_version", "attr"),
        *("annotated_types", "tenacity", "resolvelib", "firebox.packages.installed.install", "firebox.doors.http.openapi"),
        "prometheus_client",
    }


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["--port", "0", "--require-login"], {"port": "0", "require_login": True}),
        (["--no-require-login", "--host=::1"], {"host": "::1", "require_login": False}),
        (["--config", "a.toml", "--port=1", "--port", "2"], {"config": "a.toml", "port": "2"}),
        ([], {}),
        (["--grpc-port", "-1"], None),
        (["--port"], None),
        (["--prot", "5"], None),
        (["--require-login=yes"], None),
        (["--port", "5", "more"], None),
        (["--help"], None),
    ],
)
def test_a_command_line_of_a_server_is_read_without_typer(words: list[str], flags: dict[str, object] | None) -> None:
    assert read_flags(words) == flags


def test_every_flag_of_a_server_is_read_without_typer() -> None:
    for row in TABLE:
        words = [row.flag] if row.kind == "bool" else [row.flag, "value"]
        assert read_flags(words) == {row.name: True if row.kind == "bool" else "value"}


def test_a_server_that_answers_has_not_loaded_pydantic(server: RunningServer) -> None:
    assert "pydantic" not in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_what_was_left_out_can_be_imported_later() -> None:
    modules = loaded("from firebox.server.absent_modules import absent\nwith absent('calendar'): pass\nimport calendar")
    assert "calendar" in modules


def test_running_a_program_loads_what_it_needs_only(tmp_path: Path) -> None:
    (tmp_path / "main.sh").write_text("echo it ran")
    modules = loaded(f"""if True:
        import sys
        from firebox.cli import main
        from firebox.cli.run import quick_run
        from firebox.sandbox.launcher.launcher_start import StartedLauncher
        ask = StartedLauncher.ask
        def note(*words):
            if "asyncio" in sys.modules:
                print("too-early")
            ask(*words)
        StartedLauncher.ask = note
        assert quick_run.run_quickly(["--data-dir", "{tmp_path}", "{tmp_path}/main.sh"]) == 0""")
    assert {"it", "ran", "firebox.engine.executor"} <= modules
    assert "too-early" not in modules, "the sandbox is asked for before an event loop is loaded"
    assert not modules & {
        *("typer", "rich", "pydantic", "structlog", "semantic_version", "ulid", "typing_extensions", "ssl", "uvloop"),
        *("litestar", "uvicorn", "prometheus_client", "sqlalchemy", "httpx", "firebox.doors.native.wire"),
        *("difflib", "fractions"),
    }


def test_help_names_every_command() -> None:
    done = call("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "bench"])
def test_every_command_explains_itself(name: str) -> None:
    done = call(name, "--help", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert f"firebox {name}" in done.stdout


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield every command below one, and its own name in full."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield name, command
    for part, each in (inner or {}).items():
        yield from commands(f"{name} {part}", each)


def test_every_command_can_be_told_where_things_are_kept() -> None:
    every = [each for name, entry in COMMANDS.items() for each in commands(name, get_command(entry.load()))]
    assert len(every) > 30
    flags = {name: {flag for parameter in command.params for flag in parameter.opts} for name, command in every}
    assert [name for name, known in flags.items() if not {"--data-dir", "--config"} <= known] == []


def test_serve_has_a_flag_for_every_setting() -> None:
    text = quickly("serve", "--help", COLUMNS="300").stdout
    assert [row.flag for row in TABLE if row.flag not in text] == []


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version(flag: str) -> None:
    assert CliRunner().invoke(app, [flag]).stdout == f"firebox {firebox.__version__}\n"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["rum"], "Did you mean 'run'?"),
        (["pakages", "list"], "Did you mean 'packages'"),
        (["packages", "instal", "x"], "Did you mean 'install'"),
        (["users", "ad"], "Did you mean 'add'?"),
        (["run", "--tim", "5s", "a.py"], "--time"),
        (["serve", "--prot", "5"], "--port"),
    ],
)
def test_a_misspelt_word_gets_the_nearest_one(words: list[str], answer: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert answer in done.stderr


@pytest.mark.parametrize("words", [["-h"], ["run", "-h"], ["users", "-h"], ["users", "add", "-h"], ["packages", "install", "-h"]])
def test_help_is_short_as_well(words: list[str]) -> None:
    done = CliRunner().invoke(app, words, prog_name="firebox")
    assert done.exit_code == 0
    assert done.stdout.startswith(" ".join(["Usage: firebox", *words[:-1]]))


def test_help_loses_nothing_of_what_a_setting_is() -> None:
    shown = "".join(CliRunner().invoke(app, ["serve", "--help"]).stdout.split())
    assert [row.help for row in TABLE if "".join(row.help.split()) not in shown] == []


def test_completion_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    # typer would ask which shell started this, and there may be none.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="firebox")
    assert "_FIREBOX_COMPLETE=complete_bash" in done.stdout
    completed = call(_FIREBOX_COMPLETE="complete_bash", COMP_WORDS="firebox packages ins", COMP_CWORD="2")
    assert completed.stdout.split() == ["install"]


@pytest.fixture(scope="module")
def known_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with installed packages, and with the indices of repositories."""
    folder = tmp_path_factory.mktemp("known")
    for name, text in {
        "packages/installed/kotlin-2.4.20/runtimes.json": '[{"language":"kotlin","aliases":["kt"]}]',
        "packages/installed/klingon-extra-1.0.0/runtimes.json": '[{"language":"klingon","aliases":["tlh"]}]',
        "packages/repositories/one/0.index": 'packages:\n- language: kitten\n  version: 1.0.0\n- language: "kit\x1b[31m"\n',
        "packages/repositories/two/0.index": f"kite,1.0.0,{'0' * 64},http://localhost/kite.tar.gz\n",
    }.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run -l kl", ["klingon"]),
        ("run --language ko", ["kotlin"]),
        ("run -l tl", ["tlh"]),
        ("run -l nothing", []),
        ("images build scal", ["scala"]),
        ("packages install ki", ["kite", "kitten"]),
        ("packages install befung", ["befunge93"]),
        ("packages build befung", ["befunge93"]),
        ("packages uninstall kl", ["klingon-extra"]),
    ],
)
def test_languages_and_packages_are_completed(known_here: Path, line: str, words: list[str]) -> None:
    position = str(len(line.split()))
    env = {"_FIREBOX_COMPLETE": "complete_bash", "COMP_WORDS": f"firebox {line}", "COMP_CWORD": position}
    done = quickly(FIREBOX_DATA_DIR=str(known_here), **env)
    assert done.stdout.split() == words
    assert done.stderr == ""


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


@pytest.fixture(scope="module")
def doctor() -> subprocess.CompletedProcess[str]:
    """What `firebox doctor --json` does with nothing set."""
    return quickly("doctor", "--json")


def test_doctor_names_every_layer_and_the_status_says_whether_the_boundary_holds(
    doctor: subprocess.CompletedProcess[str],
) -> None:
    findings = json.loads(doctor.stdout)
    assert {"seccomp", "network", "pid"} <= {finding["name"] for finding in findings}
    assert doctor.returncode == int(any(finding["boundary"] and not finding["ok"] for finding in findings))
    assert all(finding["hint"] for finding in findings if not finding["ok"])


def test_doctor_says_what_it_costs_to_have_things_ready(doctor: subprocess.CompletedProcess[str]) -> None:
    details = {finding["name"]: finding["detail"] for finding in json.loads(doctor.stdout)}
    assert re.fullmatch(r"up to 4 of a kind; \d+ ms to make one(, \d+\.\d MiB)?", details["ready-sandboxes"])
    assert re.search(r"when used often: .*python", details["started-ahead"])
    assert re.search(r"python \d+\.\d MiB", details["templates"])
    off = quickly("doctor", "--json", FIREBOX_START_AHEAD="no", FIREBOX_READY_SANDBOXES="7")
    details = {finding["name"]: finding["detail"] for finding in json.loads(off.stdout)}
    assert details["ready-sandboxes"].startswith("up to 7 of a kind")
    assert details["started-ahead"] == "nothing: start_ahead is off"
    assert details["templates"] == "none: start_ahead is off"


def test_settings_of_the_process_are_used_when_none_are_given() -> None:
    assert load_settings({}, None, {}).source("port") == "default"


@pytest.mark.parametrize(
    ("text", "escaped"), [("a\nb", "a\\nb"), ("\x1b[0m", "\\x1b[0m"), ("\u2028", "\\u2028"), ("\ud800", "\\ud800"), ("é€", "é€")]
)
def test_log_lines_cannot_be_forged(text: str, escaped: str) -> None:
    event = {"timestamp": "now", "level": "info", "event": text, "client": text, "exception": text}
    for render in (_render_text, _render_json):
        written = render(None, "info", dict(event))
        assert all(line.startswith("    | ") for line in written.split("\n")[1:])  # a traceback's own
        assert text.isprintable() or text not in written
    assert escape(text) == escaped


def test_the_plan_of_a_sandbox_is_printed_in_words() -> None:
    done = run_firebox("doctor", "--plan")
    steps = done.stdout.splitlines()
    assert done.returncode == 0
    assert [step[0] for step in steps if not step.startswith(" ")] == list("1234567")
    assert any(step.startswith("  mount proc proc on") for step in steps)
    assert "  pivot_root into /new" in steps
