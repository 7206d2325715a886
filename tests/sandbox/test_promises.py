"""What a sandbox promises, in sentences: identity, file tree, output, limits, metrics."""

from __future__ import annotations

from tests.sandbox.conftest import Box


async def test_says_hello(box: Box) -> None:
    outcome = await box.run("/bin/echo", "hello 🌍")
    assert outcome.text == "hello 🌍\n"
    assert outcome.exit.status == 0
    assert outcome.exit.killed_by == ""


async def test_exit_code_and_both_streams_come_back(box: Box) -> None:
    outcome = await box.shell("echo out; echo err >&2; exit 42")
    assert (outcome.text, outcome.error_text, outcome.exit.status) == ("out\n", "err\n", 42)
