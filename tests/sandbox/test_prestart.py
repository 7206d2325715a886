"""Programs that wait in an idle sandbox for its command."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from firebox.sandbox.spec import Command, InputFile, Prestart, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, Box, follow
from tests.sandbox.leftovers import descendants_of
from tests.support.waiting import until

WORDS = "read -r word < main.sh; echo $word"
"""A shell that opens the main file late, and waits there."""


def ahead(script: str, main: str = "main.sh") -> Prestart:
    return Prestart(argv=("/bin/sh", "-c", script), env=tuple(ENVIRONMENT.items()), main=main, held=True)


def command(script: str, content: bytes = b"here\n", name: str = "main.sh") -> Command:
    files = (InputFile(name, content),)
    return Command(argv=("/bin/sh", "-c", script), env=ENVIRONMENT, files=files, resume_words=(), wall_ms=20_000, cpu_ms=20_000)


async def run(box: Box, started: Prestart, wanted: Command) -> tuple[str, bool]:
    """Run a command. Returns its output, and whether it was the prestarted program."""
    sandbox = await box.launcher.make(SandboxSpec(prestart=started))
    heard: list[bytes] = []
    try:
        await asyncio.sleep(0.1)  # so that it is more likely to wait already; the outcome must be the same
        ended = await follow(sandbox, wanted, lambda _stream, data: heard.append(data))
        assert ended.status == 0, (ended, heard)
        return b"".join(heard).decode(), bool(sandbox.was_prestarted)
    finally:
        sandbox.close()


async def test_program_resumes_with_the_file_of_the_command(box: Box) -> None:
    assert await run(box, ahead(WORDS), command(WORDS)) == ("here\n", True)


async def test_file_is_whole_when_it_is_opened(box: Box) -> None:
    script = "cat main.sh | wc -c; stat -c '%s %a' main.sh"
    assert await run(box, ahead(script), command(script, b"x" * 3_000_000)) == ("3000000\n3000000 644\n", True)


async def test_file_may_lie_in_a_folder(box: Box) -> None:
    script = "cat ./folder/main.sh"
    assert await run(box, ahead(script, "./folder/main.sh"), command(script, name="folder/main.sh")) == ("here\n", True)


async def test_limits_hold_for_every_process_that_was_started(box: Box) -> None:
    script = "(read -r word < main.sh; ulimit -n; ulimit -f); ulimit -n; ulimit -f"
    limited = command(script)._replace(open_files=77, file_size_bytes=512 * 9)
    assert await run(box, ahead(script), limited) == ("77\n9\n77\n9\n", True)


@pytest.mark.parametrize(
    "wanted", [command(WORDS)._replace(resume_words=None), command("echo here", name="other.sh")], ids=["fresh", "file"]
)
async def test_another_command_is_started_fresh(box: Box, wanted: Command) -> None:
    assert await run(box, ahead(WORDS), wanted) == ("here\n", False)


async def test_prestarted_program_is_gone_when_another_command_arrives(box: Box) -> None:
    listing = command("echo /proc/[0-9]*", name="other.sh")._replace(resume_words=None)
    heard, _waited = await run(box, ahead(WORDS), listing)
    assert len(heard.split()) == 2


async def test_program_without_a_command_ends_with_its_sandbox(box: Box, nothing_left: None) -> None:
    sandbox = await box.launcher.make(SandboxSpec(prestart=ahead(WORDS)))
    await asyncio.sleep(0.1)
    sandbox.close()


async def test_program_that_ends_as_its_command_arrives_is_started_fresh(box: Box) -> None:
    sandbox = await box.launcher.make(SandboxSpec(prestart=ahead(WORDS)))
    heard: list[bytes] = []
    try:
        await until(lambda: len(descendants_of(sandbox.pid)) == 1)
        os.kill(sandbox.pid, signal.SIGSTOP)  # so that its PID 1 hears of both at once
        for pid in descendants_of(sandbox.pid):
            os.kill(pid, signal.SIGKILL)
        asyncio.get_running_loop().call_later(0.1, os.kill, sandbox.pid, signal.SIGCONT)
        ended = await follow(sandbox, command(WORDS), lambda _stream, data: heard.append(data))
        assert (ended.status, b"".join(heard), sandbox.was_prestarted) == (0, b"here\n", False)
    finally:
        sandbox.close()
