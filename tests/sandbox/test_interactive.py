"""Input while it runs, signals to the group, and a real terminal."""

from __future__ import annotations

import asyncio

from firebox.sandbox.handle import Sandbox
from firebox.sandbox.spec import Command, Exit
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, Box


class Conversation:
    """A running program to talk to."""

    def __init__(self, sandbox: Sandbox, *argv: str, terminal: tuple[int, int] | None = None) -> None:
        self.sandbox = sandbox
        self.heard = b""
        self._news = asyncio.Event()
        command = Command(argv=argv, env=ENVIRONMENT, interactive=True, terminal=terminal, wall_ms=20_000, cpu_ms=20_000)
        self._running = asyncio.create_task(sandbox.run(command, self._take))

    def _take(self, _stream: str, data: bytes) -> None:
        self.heard += data
        self._news.set()

    async def until(self, wanted: bytes) -> None:
        """Wait until the program has said this."""
        while wanted not in self.heard:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 20)

    async def end(self) -> Exit:
        ended = await self._running
        self.sandbox.close()
        return ended


async def converse(box: Box, code: str, **options: tuple[int, int]) -> Conversation:
    return Conversation(await box.make(), PYTHON, "-u", "-c", code, **options)


async def test_lines_go_back_and_forth(box: Box) -> None:
    talk = await converse(box, "while True:\n try: print('got', input())\n except EOFError: raise SystemExit(4)")
    for word in ("one", "two", "drei 🌍"):
        await talk.sandbox.write_stdin(f"{word}\n".encode())
        await talk.until(f"got {word}\n".encode())
    talk.sandbox.close_stdin()
    assert (await talk.end()).status == 4


async def test_much_input_waits_for_a_slow_reader(box: Box) -> None:
    talk = await converse(box, "import sys\nprint(len(sys.stdin.buffer.read()))")
    await talk.sandbox.write_stdin(b"x" * (4 << 20))
    talk.sandbox.close_stdin()
    await talk.end()
    assert talk.heard == b"4194304\n"


async def test_input_that_nobody_reads_is_no_error(box: Box) -> None:
    outcome = await box.run("/bin/true", stdin=b"x" * (1 << 20))
    assert outcome.exit.status == 0


async def test_half_read_input_is_no_error(box: Box) -> None:
    outcome = await box.run("/usr/bin/head", "-c", "3", stdin=b"abc" * (1 << 18))
    assert outcome.stdout == b"abc"


async def test_a_signal_reaches_the_whole_group(box: Box) -> None:
    code = (
        "import os, signal, time\nchild = os.fork()\n"
        "def caught(*_):\n os.write(1, b'parent ' if child else b'child ')\n if not child: os._exit(0)\n"
        "signal.signal(signal.SIGUSR1, caught)\nos.write(1, b'ready ')\n"
        "os.waitpid(child, 0) if child else time.sleep(60)"
    )
    talk = await converse(box, code)
    while talk.heard.count(b"ready ") < 2:
        await talk.until(talk.heard + b"ready ")
    talk.sandbox.signal(10)
    await talk.end()
    assert b"child" in talk.heard
    assert b"parent" in talk.heard


async def test_sigint_interrupts_as_on_a_keyboard(box: Box) -> None:
    talk = await converse(box, "import time\ntry: print('on'); time.sleep(60)\nexcept KeyboardInterrupt: print('off')")
    await talk.until(b"on\n")
    talk.sandbox.signal(2)
    assert (await talk.end()).status == 0
    assert talk.heard == b"on\noff\n"


async def test_a_flood_of_signals_is_harmless(box: Box) -> None:
    talk = await converse(box, "import signal, time\nsignal.signal(10, lambda *_: None)\nprint('on')\ninput()")
    await talk.until(b"on\n")
    for _ in range(5000):
        talk.sandbox.signal(10)
    await talk.sandbox.write_stdin(b"\n")
    assert (await talk.end()).killed_by == ""


TERMINAL_CODE = (
    "import os, signal\nprint(os.isatty(0), os.isatty(1), os.isatty(2), os.ttyname(0), tuple(os.get_terminal_size()))\n"
    "signal.signal(signal.SIGWINCH, lambda *_: print('now', tuple(os.get_terminal_size())))\n"
    "print(open('/dev/tty').isatty(), os.tcgetpgrp(0) == os.getpgrp())\nprint('got', input())\n"
)


async def test_a_terminal_is_a_terminal_in_every_way(box: Box) -> None:
    talk = await converse(box, TERMINAL_CODE, terminal=(30, 100))
    await talk.until(b"True True\r\n")
    assert b"True True True /dev/pts/0 (100, 30)" in talk.heard
    talk.sandbox.resize(40, 120)
    await talk.until(b"now (120, 40)")
    await talk.sandbox.write_stdin(b"typed\n")
    assert (await talk.end()).status == 0
    assert b"got typed" in talk.heard


async def test_control_c_on_a_terminal_interrupts(box: Box) -> None:
    talk = await converse(box, "import time\nprint('on')\ntime.sleep(60)", terminal=(24, 80))
    await talk.until(b"on\r\n")
    await talk.sandbox.write_stdin(b"\x03")
    assert (await talk.end()).signal == 2


async def test_end_of_file_on_a_terminal(box: Box) -> None:
    talk = await converse(box, "print('on')\ntry: input()\nexcept EOFError: print('end')", terminal=(24, 80))
    await talk.until(b"on\r\n")
    talk.sandbox.close_stdin()
    await talk.end()
    assert b"end" in talk.heard
