"""The commands of README.md, exactly as written there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, require_tool
from tests.support.server import RunningServer, environment


def commands() -> list[tuple[str, str]]:
    """Return each command of the block that begins with putting `firebox` on PATH, and its documented output."""
    [block] = re.findall(r"```console\n(\$ PATH=.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    found: list[tuple[str, str]] = []
    for text in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = text.splitlines()
        length = next(number for number, line in enumerate(lines, start=1) if not line.endswith("\\"))
        found.append(("\n".join(lines[:length]), "\n".join(lines[length:])))
    return found


def test_readme_commands_print_what_the_readme_shows(tmp_path: Path, server: RunningServer) -> None:
    require_tool("curl")
    program = tmp_path / "bin/firebox"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m firebox "$@"\n')
    program.chmod(0o755)
    env = environment({"PATH": f"{program.parent}:{os.environ['PATH']}", "FIREBOX_DATA_DIR": str(tmp_path / "data")})
    path, *others = commands()
    assert path == ("PATH=$PWD/.venv/bin:$PATH", "")
    assert "firebox serve &" in [command for command, _said in others]
    for command, said in others:
        if command == "firebox serve &":
            continue
        command = command.replace("http://127.0.0.1:2000", server.url)
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        wanted = re.escape(said).replace(re.escape("..."), ".*")
        assert re.fullmatch(wanted, done.stdout.strip()), (command, done)
