"""The promises of a sandbox, one test each. Attacks on them are in the other files."""

from __future__ import annotations

import asyncio
import json
import os
import socket

import pytest

from firebox.sandbox.spec import Command, CommandRefused, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, Box, follow
from tests.sandbox.conversation import talk
from tests.sandbox.leftovers import descendants_of
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_says_hello(box: Box) -> None:
    outcome = await box.run("/bin/echo", "hello 🌍")
    assert outcome.text == "hello 🌍\n"
    assert outcome.exit.status == 0
    assert outcome.exit.killed_by == ""


async def test_exit_code_and_both_streams_come_back(box: Box) -> None:
    outcome = await box.shell("echo out; echo err >&2; exit 42")
    assert (outcome.text, outcome.error_text, outcome.exit.status) == ("out\n", "err\n", 42)


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 137, 255])
async def test_every_exit_code_is_reported_unchanged(box: Box, code: int) -> None:
    """A shell exits with 137 after SIGKILL; as an exit code it is neither a signal nor a limit."""
    outcome = await box.shell(f"exit {code}")
    assert (outcome.exit.status, outcome.exit.signal, outcome.exit.killed_by) == (code, None, "")


async def test_every_layer_is_active(box: Box) -> None:
    boundary = "mount pid network ipc uts capabilities no-new-privileges seccomp rlimits read-only-root"
    assert set(boundary.split()) <= set(box.launcher.layers)
    assert {"user-namespace", "own-uid"} & set(box.launcher.layers)
    assert (box.cgroups == "none") == ("sampled-limits" in box.launcher.layers)


async def test_cannot_read_protected_host_files(box: Box) -> None:
    outcome = await box.shell("cat /etc/shadow /root/.bashrc /host/etc/passwd /proc/1/environ; ls /home /root /host /srv /mnt")
    assert outcome.text == "/home:\nfirebox\n"


async def test_cannot_change_the_tree(box: Box) -> None:
    outcome = await box.shell(
        "for path in / /usr /usr/bin /etc /dev /var /proc /sys; do echo x > $path/new && echo $path; done; rm /usr/bin/env"
    )
    assert outcome.text == ""
    assert os.path.exists("/usr/bin/env")


async def test_sees_no_process_but_its_own(box: Box) -> None:
    outcome = await box.shell("ls /proc | grep -c '^[0-9]'; echo $$ $PPID")
    count, own = outcome.text.splitlines()
    assert int(count) <= 5  # PID 1, the shell, ls and grep
    assert own.split()[1] in {"0", "1"}


async def test_reaches_no_network(box: Box) -> None:
    """Listeners of the host on every address, and host names: nothing is reached, nothing hangs."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        code = f"""
import errno, json, socket
told = {{}}
for host in ('127.0.0.1', '10.0.0.1', '169.254.169.254', '1.1.1.1'):
    try: socket.create_connection((host, {server.getsockname()[1]}), 5)
    except OSError as error: told[host] = errno.errorcode[error.errno]
try: socket.getaddrinfo('example.org', 80)
except socket.gaierror: told['name'] = 'unknown'
print(json.dumps([told, [line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line]]))
"""
        outcome = await box.python(code)
    told, interfaces = json.loads(outcome.text)
    assert told.pop("127.0.0.1") == "ECONNREFUSED"
    assert told.pop("name") == "unknown"
    assert set(told.values()) == {"ENETUNREACH"}
    assert interfaces == ["lo"]


async def test_starts_without_traces_of_the_last_run(box: Box) -> None:
    leave = "for folder in . /tmp /dev/shm ~ /run/lock; do echo left > $folder/left-behind; done; (setsid sleep 600 &)"
    look = "find / -name left-behind 2>/dev/null; ls -A /box /tmp /dev/shm ~ | grep -v :; ls /proc | grep -c '^[0-9]'"
    await box.shell(leave)
    outcome = await box.shell(look)
    assert [line for line in outcome.text.split() if not line.isdigit()] == []


async def test_many_at_once_do_not_mix(box: Box) -> None:
    async def one(number: int) -> tuple[str, int | None, str]:
        script = f"echo {number} > file; read line; echo $line; cat file; exit {number}"
        # On an emulated processor each takes long.
        outcome = await box.shell(script, stdin=f"in {number}\n".encode(), wall_ms=120_000)
        return outcome.text, outcome.exit.status, outcome.exit.killed_by

    numbers = range(24)
    assert await asyncio.gather(*map(one, numbers)) == [(f"in {number}\n{number}\n", number, "") for number in numbers]


async def test_nothing_is_left_of_a_run_whose_task_is_cancelled(box: Box) -> None:
    pid = box.launcher.pid
    assert pid is not None
    before = descendants_of(pid)
    sandbox = await box.make()
    started = asyncio.Event()
    command = Command(("/bin/sh", "-c", "sleep 600 & sleep 600"), ENVIRONMENT)
    running = asyncio.create_task(follow(sandbox, command, lambda *_: None, started.set))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    sandbox.close()
    await box.launcher.ended(sandbox.number)
    await until(lambda: descendants_of(pid) == before)


async def test_an_unused_sandbox_leaves_nothing(box: Box) -> None:
    for _ in range(5):
        sandbox = await box.make()
        sandbox.close()
        sandbox.close()
        await box.launcher.ended(sandbox.number)
    making = asyncio.create_task(box.launcher.make(SandboxSpec()))
    await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program", "/etc/passwd", "/tmp"])
async def test_a_missing_program_is_refused_with_its_name(box: Box, program: str) -> None:
    with pytest.raises(CommandRefused) as refused:
        await box.run(program)
    assert refused.value.step == "start"
    assert refused.value.errno
    assert program in refused.value.detail


async def test_the_subject_of_a_refusal_is_cut_between_characters(box: Box) -> None:
    with pytest.raises(CommandRefused) as refused:
        await box.run("/bin/true", files={"\u00e9" * 2000: ""})
    assert refused.value.detail.endswith("\u00e9")


async def test_kills_before_and_after_the_end_count_once(box: Box) -> None:
    async with talk(box, "/bin/cat") as program:
        await program.ask("up", b"up")
        program.sandbox.kill("cancelled")
        program.sandbox.kill("wall_time")
        assert (await program.end()).killed_by == "cancelled"
        program.sandbox.kill("wall_time")
    async with talk(box, "/bin/true") as program:
        ended = await program.end()
        program.sandbox.kill("wall_time")
        assert (ended.status, ended.killed_by) == (0, "")


async def test_fifty_runs_of_every_ending_leave_nothing(box: Box) -> None:
    """`nothing_left` checks the launcher; this process must hold no more either."""

    async def one(number: int) -> None:
        match number % 5:
            case 0:
                await box.run("/bin/echo", "well")
            case 1:
                await box.shell("sleep 600 & echo x > file; exit 3", collect=["file"])
            case 2:
                await box.shell("sleep 600", wall_ms=30)
            case 3:
                with pytest.raises(CommandRefused):
                    await box.run("/no/such/program")
            case _:
                await box.shell("tty; yes", terminal=(24, 80), output_bytes=100, kill_on_output=True)

    await asyncio.gather(*(one(number) for number in range(10)))
    await until(lambda: box.launcher.alive == 0)
    before = len(os.listdir("/proc/self/fd"))
    for start in range(0, 50, 10):
        await asyncio.gather(*(one(start + number) for number in range(10)))
    await until(lambda: box.launcher.alive == 0)
    assert len(os.listdir("/proc/self/fd")) == before
