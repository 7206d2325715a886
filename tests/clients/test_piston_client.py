"""piston-client of npm: its `server` option leads anywhere, its JSON goes without a name."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.front import Front
from tests.conftest import require_tool
from tests.support.npm import install_locked
from tests.support.server import RunningServer


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_tool("node")
    return install_locked(Path(__file__).parent / "npm", tmp_path_factory.mktemp("npm"))


def run(folder: Path, server: str, language: str, code: str, **options: Any) -> Any:
    wanted = json.dumps({"language": language, "code": code, "options": options})
    command = [require_tool("node"), "run.mjs", server, wanted]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_runs_a_program(installed: Path, front: Front) -> None:
    done = run(installed, front.url, "python", "import sys; print(input(), sys.argv[1:])", stdin="hello", args=["a", "b"])
    assert "python" in done["languages"]
    assert done["result"]["run"] == {
        **done["result"]["run"],
        "stdout": "hello ['a', 'b']\n",
        "stderr": "",
        "output": "hello ['a', 'b']\n",
        "code": 0,
        "signal": None,
    }


def test_runs_several_files(installed: Path, front: Front) -> None:
    files = [{"name": "main.sh", "content": ". ./words"}, {"name": "words", "content": "echo from a file"}]
    assert run(installed, front.url, "bash", "", files=files)["result"]["run"]["output"] == "from a file\n"


def test_without_a_front_it_gets_what_piston_itself_would_answer(installed: Path, server: RunningServer) -> None:
    done = run(installed, server.url, "python", "print(1)")
    assert "python" in done["languages"]
    assert done["result"] == {"message": "requests must be of type application/json"}
