"""Attacks 25 to 29: busy loops, sleep, stopped processes, ignored signals."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import Box


async def test_attack_25_a_busy_loop_hits_the_cpu_limit(box: Box) -> None:
    outcome = await box.python("while True: pass", cpu_ms=300)
    assert outcome.exit.killed_by == "cpu_time"
    assert outcome.exit.cpu_ms >= 300


async def test_attack_25_the_cpu_limit_is_for_the_whole_tree(box: Box) -> None:
    """Each child stays under the limit; the sum does not."""
    code = "import os\nfor _ in range(20):\n if not os.fork():\n  while True: pass\nfor _ in range(20): os.wait()"
    outcome = await box.python(code, cpu_ms=600)
    assert outcome.exit.killed_by == "cpu_time"


async def test_attack_26_sleeping_hits_the_wall_time_limit_and_takes_no_cpu_time(box: Box) -> None:
    outcome = await box.shell("sleep 600", wall_ms=1500)
    assert outcome.exit.killed_by == "wall_time"
    assert outcome.exit.wall_ms >= 1500
    assert outcome.exit.cpu_ms < 1500


async def test_attack_27_reading_an_input_that_never_ends(box: Box) -> None:
    outcome = await box.shell("read line", interactive=True, wall_ms=300)
    assert outcome.exit.killed_by == "wall_time"


@pytest.mark.parametrize("target", ["$$", "0", "-1"])
async def test_attack_28_stopping_itself_its_group_and_all_processes(box: Box, target: str) -> None:
    outcome = await box.shell(f"kill -STOP {target}; sleep 60", wall_ms=400)
    assert outcome.exit.killed_by == "wall_time"


async def test_attack_29_ignored_signals_do_not_help(box: Box) -> None:
    code = (
        "import signal\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n"
        " except (OSError, ValueError): pass\nwhile True: pass"
    )
    outcome = await box.python(code, cpu_ms=300)
    assert outcome.exit.killed_by == "cpu_time"


async def test_a_signal_of_its_own_is_reported_as_such(box: Box) -> None:
    outcome = await box.shell("kill -SEGV $$")
    assert (outcome.exit.signal, outcome.exit.killed_by) == (11, "")


async def test_killing_itself_is_not_reported_as_a_limit(box: Box) -> None:
    outcome = await box.shell("kill -KILL $$")
    assert (outcome.exit.signal, outcome.exit.killed_by) == (9, "")


async def test_times_and_memory_are_reported(box: Box) -> None:
    code = "data = bytes(40 << 20).replace(b'\\0', b'x')\nimport time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    outcome = await box.python(code)
    assert outcome.exit.cpu_ms >= 150
    assert outcome.exit.wall_ms >= 150
    assert 40 << 20 <= outcome.exit.memory_peak_bytes <= 200 << 20
