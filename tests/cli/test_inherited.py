"""Commands started with closed standard streams or ignored signals."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.server import environment
from tests.support.server import firebox as command


@pytest.mark.parametrize(
    ("beginning", "output"),
    [("exec >&-", ""), ("exec <&- >&- 2>&-", ""), ("exec <&-", "hello\n"), ('trap "" CHLD', "hello\n")],
    ids=["no stdout", "no stream", "no stdin", "SIGCHLD ignored"],
)
def test_a_program_runs_all_the_same(beginning: str, output: str, tmp_path: Path) -> None:
    (tmp_path / "main.sh").write_text("echo hello; exit 7")
    done = subprocess.run(
        ["/bin/sh", "-c", f'{beginning}; exec "$@"', "sh", *command("run", str(tmp_path / "main.sh"))],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, output, "")
