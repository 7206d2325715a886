"""Attacks 18 to 24, 30 and 31: floods, drips, interleaving, and streams that are kept open."""

from __future__ import annotations

import asyncio

from firebox.sandbox.spec import Command
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, Box, follow
from tests.sandbox.conversation import talk

MIB = 1 << 20


async def test_attack_18_stdout_flood_is_cut_and_the_exit_code_kept(box: Box) -> None:
    outcome = await box.shell("head -c 67108864 /dev/zero; exit 9", output_bytes=MIB)
    assert (len(outcome.stdout), outcome.exit.status, outcome.exit.stdout_truncated) == (MIB, 9, True)
    assert not outcome.exit.stderr_truncated


async def test_attack_19_stderr_flood_kills_in_kill_mode(box: Box) -> None:
    outcome = await box.shell("yes >&2", output_bytes=1000, kill_on_output=True)
    assert (len(outcome.stderr), outcome.exit.killed_by, outcome.exit.status) == (1000, "output", None)


async def test_attack_20_both_streams_at_once_do_not_deadlock(box: Box) -> None:
    code = "import os\nfor _ in range(300):\n os.write(1, b'o' * 8192); os.write(2, b'e' * 8192)"
    outcome = await box.python(code, output_bytes=4 * MIB)
    assert (len(outcome.stdout), len(outcome.stderr)) == (300 * 8192, 300 * 8192)


async def test_attack_21_more_than_a_pipe_holds_then_silence(box: Box) -> None:
    outcome = await box.python("import os, time\nos.write(1, b'x' * 200_000)\ntime.sleep(60)", wall_ms=500)
    assert (len(outcome.stdout), outcome.exit.killed_by) == (200_000, "wall_time")


async def test_attack_22_a_drip_does_not_defeat_the_wall_clock(box: Box) -> None:
    outcome = await box.shell("while :; do echo drip; sleep 0.05; done", wall_ms=500)
    assert outcome.exit.killed_by == "wall_time"
    assert outcome.text.startswith("drip\ndrip\n")


async def test_attack_24_escapes_and_markup_pass_through_as_bytes(box: Box) -> None:
    """Escaping output is up to the client; changing it here would misreport what was printed."""
    outcome = await box.run("/usr/bin/printf", r"\033]0;title\007</script>\000\377")
    assert outcome.stdout == b"\033]0;title\007</script>\000\377"


async def test_attack_30_closed_streams_do_not_end_the_run(box: Box) -> None:
    outcome = await box.shell("exec 1>&- 2>&-; sleep 0.2; exit 6")
    assert outcome.exit.status == 6


async def test_attack_30_closed_streams_do_not_defeat_the_wall_clock(box: Box) -> None:
    outcome = await box.shell("exec 0<&- 1>&- 2>&-; while :; do :; done", wall_ms=300)
    assert outcome.exit.killed_by == "wall_time"


async def test_attack_31_a_background_child_that_holds_stdout_dies_with_the_program(box: Box) -> None:
    outcome = await box.shell("(setsid sleep 600 &) ; echo over")
    assert (outcome.text, outcome.exit.status) == ("over\n", 0)


async def test_output_arrives_while_the_program_runs(box: Box) -> None:
    sandbox = await box.make()
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def take(_stream: str, data: bytes) -> None:
        if not first.done():
            first.set_result(data)

    command = Command(argv=("/bin/sh", "-c", "echo early; sleep 60"), env=ENVIRONMENT, wall_ms=20_000)
    running = asyncio.create_task(follow(sandbox, command, take))
    assert await first == b"early\n"
    assert not running.done()
    sandbox.kill("cancelled")
    assert (await running).killed_by == "cancelled"
    sandbox.close()


async def test_attack_18_an_endless_flood_is_ended_by_the_clock_and_cut_before(box: Box) -> None:
    outcome = await box.shell("yes & yes >&2", output_bytes=10_000, wall_ms=400)
    assert (len(outcome.stdout), len(outcome.stderr), outcome.exit.killed_by) == (10_000, 10_000, "wall_time")
    assert (outcome.exit.stdout_truncated, outcome.exit.stderr_truncated) == (True, True)


async def test_attack_19_stderr_flood_is_cut_and_the_exit_code_kept(box: Box) -> None:
    outcome = await box.shell("head -c 20000000 /dev/zero >&2; exit 8", output_bytes=1000)
    assert (outcome.stderr, outcome.stdout, outcome.exit.status) == (bytes(1000), b"", 8)


async def test_data_left_in_the_pipes_at_the_end_arrives(box: Box) -> None:
    outcome = await box.python("import os\nos.write(1, b'o' * 65536); os.write(2, b'e' * 65536)\nos._exit(3)")
    assert (outcome.stdout, outcome.stderr, outcome.exit.status) == (b"o" * 65536, b"e" * 65536, 3)


async def test_attack_31_a_background_child_writes_nothing_after_the_end(box: Box) -> None:
    """A flood from a daemon that outlives the program: the run ends with the program, earlier output is kept."""
    code = """
import os, signal, time
ready, go = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in set(signal.Signals) - {9, 19}: signal.signal(number, signal.SIG_IGN)
        os.write(go, b'x')
        while True: os.write(1, b'flood\\n')
    os._exit(0)
os.read(ready, 1)
os._exit(5)
"""
    outcome = await box.python(code, output_bytes=1000)
    assert (outcome.exit.status, outcome.exit.killed_by) == (5, "")
    assert set(outcome.stdout.split(b"\n")) <= {b"flood", b"", b"f", b"fl", b"flo", b"floo"}


async def test_attack_21_output_arrives_before_a_long_silence(box: Box) -> None:
    """When it is written, not when the program ends or a buffer is full."""
    async with talk(box, PYTHON, "-c", "import os, time\nos.write(1, b'x' * 300_000 + b'end')\ntime.sleep(600)") as program:
        await program.hear(b"end")
        assert len(program.heard) == 300_003


async def test_attack_22_a_program_that_never_writes_a_whole_line(box: Box) -> None:
    async with talk(box, PYTHON, "-c", "import os, time\nwhile True:\n os.write(1, b'.')\n time.sleep(0.001)") as program:
        await program.hear(b"." * 20)
        ended = await program.kill()
    assert ended.killed_by == "wall_time"


async def test_closing_one_stream_leaves_the_other_open(box: Box) -> None:
    outcome = await box.shell("exec 1>&-; sleep 0.05; echo later >&2; exit 4")
    assert (outcome.stdout, outcome.stderr, outcome.exit.status) == (b"", b"later\n", 4)


async def test_writing_to_stdin_and_reading_from_stdout_fails_cleanly(box: Box) -> None:
    code = "import os\nfor act in (lambda: os.write(0, b'x'), lambda: os.read(1, 1)):\n try: act()\n except OSError as e: print(e.errno)"
    outcome = await box.python(code)
    assert outcome.text == "9\n9\n"
