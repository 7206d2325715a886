"""Interactive input, signals to the process group, and a real terminal."""

from __future__ import annotations

import signal

import pytest

from tests.sandbox.conftest import Box, launcher_of
from tests.sandbox.conversation import talk, talk_python

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1 << 20
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
SLEEPING = "while True: time.sleep(0.1)"
"""Short, because a signal between Python's check and the system call does not interrupt a sleep."""


async def test_lines_go_back_and_forth(box: Box) -> None:
    code = "while True:\n try: print('got', input())\n except EOFError: raise SystemExit(4)"
    async with talk_python(box, code, env=UNBUFFERED) as program:
        for word in ("one", "two", "drei 🌍"):
            await program.ask(word, f"got {word}\n".encode())
        program.sandbox.close_stdin()
        assert (await program.end()).status == 4


async def test_output_arrives_while_input_is_open(box: Box) -> None:
    async with talk(box, "/bin/cat") as program:
        await program.sandbox.write_stdin(b"no newline")
        await program.hear(b"no newline")
        await program.sandbox.write_stdin(b" \xff\x00")
        await program.hear(b"no newline \xff\x00")


async def test_much_input_waits_for_a_slow_reader(box: Box) -> None:
    async with talk_python(box, "import sys\nprint(len(sys.stdin.buffer.read()))") as program:
        await program.sandbox.write_stdin(b"x" * (4 * MIB))
        program.sandbox.close_stdin()
        await program.end()
        assert program.heard == b"4194304\n"


async def test_unread_input_is_no_error(box: Box) -> None:
    outcome = await box.run("/bin/true", stdin=b"x" * MIB)
    assert outcome.exit.status == 0


async def test_half_read_input_is_no_error(box: Box) -> None:
    outcome = await box.run("/usr/bin/head", "-c", "3", stdin=b"abc" * (1 << 18))
    assert outcome.stdout == b"abc"


async def test_input_after_the_program_closed_it_or_ended_is_ignored(box: Box) -> None:
    code = "import os, sys\nos.close(0)\nprint('closed')\nimport signal; signal.pause()"
    async with talk_python(box, code, env=UNBUFFERED) as program:
        await program.hear(b"closed")
        for _ in range(10):
            await program.say("x" * 10_000)
        program.sandbox.close_stdin()
        program.sandbox.signal(9)
        assert (await program.end()).signal == 9
        await program.say("too late")
        program.sandbox.close_stdin()
        program.sandbox.signal(9)
        program.sandbox.resize(10, 10)


async def test_a_signal_reaches_the_whole_group(box: Box) -> None:
    code = (
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\nchild = os.fork()\n"
        "os.write(1, b'ready ' if child else b'set ')\nsignal.sigwait([signal.SIGUSR1])\n"
        "os.write(1, b'parent ' if child else b'child ')\nif child: os.waitpid(child, 0)"
    )
    async with talk_python(box, code) as program:
        await program.hear(b"ready ")
        await program.hear(b"set ")
        program.sandbox.signal(10)
        await program.end()
        assert b"child" in program.heard
        assert b"parent" in program.heard


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 10, 11, 13, 14, 15])
async def test_an_unhandled_signal_ends_the_program_and_is_reported(box: Box, number: int) -> None:
    async with talk(box, "/bin/cat") as program:
        await program.ask("on", b"on")
        program.sandbox.signal(number)
        ended = await program.end()
        assert (ended.signal, ended.status, ended.killed_by) == (number, None, "")


async def test_stop_and_continue(box: Box) -> None:
    async with talk(box, "/bin/cat") as program:
        await program.ask("before", b"before")
        program.sandbox.signal(19)
        await program.say("meanwhile")
        program.sandbox.signal(18)
        await program.hear(b"meanwhile")


async def test_sigint_interrupts_like_ctrl_c(box: Box) -> None:
    code = f"import time\ntry:\n print('on')\n {SLEEPING}\nexcept KeyboardInterrupt: print('off')"
    async with talk_python(box, code, env=UNBUFFERED) as program:
        await program.hear(b"on\n")
        program.sandbox.signal(2)
        assert (await program.end()).status == 0
        assert program.heard == b"on\noff\n"


async def test_a_flood_of_signals_is_harmless(box: Box) -> None:
    code = "import signal, time\nsignal.signal(10, lambda *_: None)\nprint('on')\ninput()"
    async with talk_python(box, code, env=UNBUFFERED) as program:
        await program.hear(b"on\n")
        for _ in range(5000):
            program.sandbox.signal(10)
        await program.say("")
        assert (await program.end()).killed_by == ""


async def test_a_signal_that_the_server_ignores_ends_programs_all_the_same(sandbox_kind: str) -> None:
    """As under nohup(1), or in the background of a shell without job control."""
    ignored = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    launcher = launcher_of(sandbox_kind)
    try:
        await launcher.start()
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)
        async with talk(Box(launcher, sandbox_kind), "/bin/cat") as program:
            await program.ask("on", b"on")
            program.sandbox.signal(signal.SIGHUP)
            assert (await program.end()).signal == signal.SIGHUP
        _name, mask = (await Box(launcher, sandbox_kind).shell("grep SigIgn: /proc/self/status")).stdout.split()
        assert not [number for number in ignored if int(mask, 16) >> number - 1 & 1]
    finally:
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)
        await launcher.close()


TERMINAL_CODE = """
import os, signal
print(os.isatty(0), os.isatty(1), os.isatty(2), os.ttyname(0), tuple(os.get_terminal_size()))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
print(open('/dev/tty').isatty(), os.tcgetpgrp(0) == os.getpgrp(), os.getsid(0) == os.getpid())
signal.sigwait([signal.SIGWINCH])
print('now %d %d' % os.get_terminal_size())
print('got', input())
"""


async def test_a_terminal_is_a_terminal_in_every_way(box: Box) -> None:
    async with talk_python(box, TERMINAL_CODE, terminal=(30, 100)) as program:
        await program.hear(b"True True True\r\n")
        assert b"True True True /dev/pts/0 (100, 30)" in program.heard
        program.sandbox.resize(40, 120)
        await program.hear(b"now 120 40")
        await program.sandbox.write_stdin(b"typed\n")
        assert (await program.end()).status == 0
        assert b"got typed" in program.heard


async def test_a_terminal_echoes_edits_and_can_be_made_raw(box: Box) -> None:
    code = """
import os, sys, tty
print('on')
print('line', repr(input()))
tty.setraw(0)
os.write(1, b'raw\\r\\n')
print(repr(os.read(0, 1)), end='\\r\\n')
"""
    async with talk_python(box, code, terminal=(24, 80), env=UNBUFFERED) as program:
        await program.hear(b"on\r\n")
        await program.sandbox.write_stdin(b"wrong\x15right\x7f\x7fht\n")
        await program.hear(b"line 'right'")
        assert b"wrong" in program.heard  # the echo
        await program.hear(b"raw")
        await program.sandbox.write_stdin(b"\x03")
        await program.hear(b"b'\\x03'")
        assert (await program.end()).status == 0


async def test_control_c_on_a_terminal_interrupts(box: Box) -> None:
    async with talk_python(box, f"import time\nprint('on')\n{SLEEPING}", terminal=(24, 80)) as program:
        await program.hear(b"on\r\n")
        await program.sandbox.write_stdin(b"\x03")
        assert (await program.end()).signal == 2


async def test_control_c_on_a_terminal_reaches_children(box: Box) -> None:
    script = "trap 'echo shell caught' INT; sh -c 'echo on; exec sleep 60'; echo over"
    async with talk(box, "/bin/sh", "-c", script, terminal=(24, 80)) as program:
        await program.hear(b"on\r\n")
        await program.sandbox.write_stdin(b"\x03")
        await program.hear(b"over")
        assert (await program.end()).status == 0
        assert b"shell caught" in program.heard


async def test_end_of_file_on_a_terminal(box: Box) -> None:
    async with talk_python(box, "print('on')\ntry: input()\nexcept EOFError: print('end')", terminal=(24, 80)) as program:
        await program.hear(b"on\r\n")
        program.sandbox.close_stdin()
        await program.end()
        assert b"end" in program.heard


async def test_typing_into_an_unread_terminal_does_not_hang(box: Box) -> None:
    outcome = await box.run("/bin/sleep", "600", terminal=(24, 80), stdin=b"typed\n" * 100_000, wall_ms=400)
    assert outcome.exit.killed_by == "wall_time"


async def test_output_of_a_terminal_is_cut_like_that_of_a_pipe(box: Box) -> None:
    cut = await box.shell("head -c 3000000 /dev/zero | tr '\\0' x; exit 9", terminal=(24, 80), output_bytes=5000)
    assert (cut.stdout, cut.exit.stdout_truncated, cut.exit.status) == (b"x" * 5000, True, 9)
    killed = await box.shell("yes", terminal=(24, 80), output_bytes=5000, kill_on_output=True)
    assert (len(killed.stdout), killed.exit.killed_by) == (5000, "output")


async def test_both_streams_of_a_terminal_are_one(box: Box) -> None:
    outcome = await box.shell("echo out; echo err >&2; echo out", terminal=(24, 80))
    assert (outcome.stdout, outcome.stderr) == (b"out\r\nerr\r\nout\r\n", b"")


async def test_a_program_that_closes_its_terminal_is_still_limited(box: Box) -> None:
    ended = await box.shell("exec 0<&- 1>&- 2>&-; sleep 0.2; echo back > /dev/tty; exit 6", terminal=(24, 80))
    assert (ended.text, ended.exit.status) == ("back\r\n", 6)
    killed = await box.shell("exec 0<&- 1>&- 2>&-; sleep 600", terminal=(24, 80), wall_ms=300)
    assert killed.exit.killed_by == "wall_time"


async def test_a_background_child_does_not_hold_a_terminal_open(box: Box) -> None:
    outcome = await box.shell(
        "(trap '' HUP; setsid sleep 600 &); (trap '' HUP; sleep 600 &); echo over; exit 2", terminal=(24, 80)
    )
    assert (outcome.text, outcome.exit.status) == ("over\r\n", 2)


async def test_a_program_can_open_terminals_of_its_own(box: Box) -> None:
    code = """
import os, pty
child, master = pty.fork()
if child == 0: os.execv('/bin/sh', ['sh', '-c', 'test -t 0 && tty'])
said = b''
try:
    while data := os.read(master, 100): said += data
except OSError: pass
print(said.decode().strip(), os.waitpid(child, 0)[1])
"""
    outcome = await box.python(code)
    assert outcome.text == "/dev/pts/0 0\n", outcome.error_text
