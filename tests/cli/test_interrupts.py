"""Ctrl-C while a command starts: it ends silently."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.server import environment

INTERRUPTED_AT = """
import os, signal, sys

class Interrupt:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt)
from firebox.cli.{module} import main
main({words})
"""


def interrupted_at(imported: str, module: str, words: list[str], handler: signal.Handlers) -> subprocess.CompletedProcess[str]:
    """Run a command that receives SIGINT while it imports a module. handler: the signal's disposition at the start."""
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT.format(module=module, words=words), imported],
        capture_output=True,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )


@pytest.mark.parametrize(
    ("module", "imported", "words", "status"),
    [
        ("main", "firebox.cli.run.quick_run", ["run", "-"], -signal.SIGINT),
        ("main", "msgspec", ["run", "-"], -signal.SIGINT),
        ("main", "asyncio", ["run", "-l", "bash", "-"], 128 + signal.SIGINT),
        ("main", "typer", ["doctor"], -signal.SIGINT),
        ("one_request.rce_runner", "msgspec", [], -signal.SIGINT),
    ],
)
def test_a_command_that_starts_ends_without_a_word(module: str, imported: str, words: list[str], status: int) -> None:
    """It dies from the signal, or exits with its status if there is something to clean up."""
    done = interrupted_at(imported, module, words, signal.SIG_DFL)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    done = interrupted_at("typer", "main", ["settings", "--help"], signal.SIG_IGN)
    assert (done.returncode, done.stderr) == (0, "")
