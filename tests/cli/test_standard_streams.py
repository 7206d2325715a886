"""`firebox` where whoever started it has closed standard streams, as cron and some supervisors do."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support.server import environment, unused_uid_base


def close(numbers: list[int]) -> None:
    for number in numbers:
        os.close(number)


@pytest.mark.parametrize("closed", [[0], [1], [0, 1, 2]])
def test_a_program_runs_as_with_streams_that_lead_nowhere(tmp_path: Path, closed: list[int]) -> None:
    (tmp_path / "main.sh").write_text("echo out; read line || exit 7")
    done = subprocess.run(
        [sys.executable, "-m", "firebox.cli.main", "run", "main.sh"],
        cwd=tmp_path,
        env=environment({"FIREBOX_DATA_DIR": str(tmp_path / "data"), "FIREBOX_UID_BASE": str(unused_uid_base())}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=partial(close, closed),
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"" if 1 in closed else b"out\n", b"")


def test_rce_runner_finds_the_end_of_a_closed_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "firebox.cli.rce_runner"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=partial(close, [0]),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the body is not JSON" in done.stderr
