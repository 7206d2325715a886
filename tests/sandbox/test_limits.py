"""Each limit: which error the program gets, what is reported, and that it cannot be circumvented from inside."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from firebox.sandbox.spec import SandboxSpec
from tests.conftest import require_tool
from tests.sandbox.conftest import Box
from tests.sandbox.conversation import neighbour, talk_python

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1 << 20


async def test_wall_clock_counts_sleep(box: Box) -> None:
    outcome = await box.shell("echo before; sleep 600; echo after", wall_ms=250)
    assert (outcome.text, outcome.exit.status, outcome.exit.killed_by) == ("before\n", None, "wall_time")
    assert outcome.exit.wall_ms >= 250


async def test_wall_time_limits_hold_under_load(box: Box) -> None:
    """The clocks of concurrent runs are independent."""
    async with neighbour(box) as other:
        async with (
            talk_python(box, "while True: pass", wall_ms=300) as first,
            talk_python(box, "while True: pass", wall_ms=600) as second,
        ):
            ended = [await first.end(), await second.end()]
        await other.ask("afterwards", b"well afterwards")
    assert [each.killed_by for each in ended] == ["wall_time", "wall_time"]
    assert ended[0].wall_ms >= 300
    assert ended[1].wall_ms >= 600


async def test_cpu_time_of_ended_processes_counts(box: Box) -> None:
    """One short child after the other: neither they nor the parent use much each."""
    code = """
import os, time
while True:
    child = os.fork()
    if child == 0:
        end = time.process_time() + 0.02
        while time.process_time() < end: pass
        os._exit(0)
    os.waitpid(child, 0)
"""
    outcome = await box.python(code, cpu_ms=300)
    assert outcome.exit.killed_by == "cpu_time"
    assert outcome.exit.cpu_ms >= 300


async def test_cpu_time_of_orphans_counts(box: Box) -> None:
    code = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        while os.fork(): os._exit(0)
        while True: pass
time.sleep(600)
"""
    outcome = await box.python(code, cpu_ms=300)
    assert outcome.exit.killed_by == "cpu_time"


async def test_cpu_time_of_threads_counts(box: Box) -> None:
    code = """
import hashlib, threading
def burn():
    while True: hashlib.sha256(bytes(1 << 20)).digest()
for _ in range(3): threading.Thread(target=burn).start()
"""
    outcome = await box.python(code, cpu_ms=300)
    assert outcome.exit.killed_by == "cpu_time"


async def test_the_kernel_enforces_the_cpu_limit_too(box: Box) -> None:
    """RLIMIT_CPU would kill a single process two seconds after our clock, and it cannot be raised."""
    code = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
try: resource.setrlimit(resource.RLIMIT_CPU, (hard + 100, hard + 100))
except (ValueError, OSError) as error: print(soft, hard, type(error).__name__)
"""
    outcome = await box.python(code, cpu_ms=1500)
    assert outcome.text == "3 3 ValueError\n"


async def test_zero_means_no_cpu_limit_and_no_memory_limit(box: Box) -> None:
    code = "import resource\nprint(resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY)\nx = bytearray(b'x') * (600 << 20)"
    outcome = await box.python(code, cpu_ms=0, memory_bytes=0)
    assert (outcome.text, outcome.exit.status) == ("True\n", 0), outcome.error_text


@pytest.mark.parametrize("limit", [32, 300, 700])
async def test_an_idle_sandbox_adopts_the_memory_limit_of_the_command(box: Box, limit: int) -> None:
    """It was created with half a gigabyte: the command may have less or more."""
    code = "import sys\nx = bytearray(b'x') * (int(sys.argv[1]) << 20)\nimport time; time.sleep(0.05)\nprint('fits')"
    fits = await box.python(code, str(limit - 20), memory_bytes=limit * MIB)
    assert (fits.text, fits.exit.status) == ("fits\n", 0), fits.error_text
    bursts = await box.python(code, str(limit + 60), memory_bytes=limit * MIB)
    assert (bursts.text, bursts.exit.killed_by, bursts.exit.memory_limit_hit) == ("", "memory", True)


async def test_a_program_that_survives_its_killed_child_is_ended_too(box: Box) -> None:
    """The limit is for the whole tree, which is killed as a whole, whatever the parent does."""
    code = """
import os, time
child = os.fork()
if child == 0:
    data = []
    while True: data.append(bytearray(b'x') * (1 << 20))
os.waitpid(child, 0)
time.sleep(600)
"""
    outcome = await box.python(code, memory_bytes=48 * MIB)
    assert (outcome.exit.killed_by, outcome.exit.memory_limit_hit) == ("memory", True)


async def test_address_space_alone_is_not_limited(box: Box) -> None:
    """Virtual machines reserve far more than they use; only touched memory counts."""
    code = "import mmap\nhuge = mmap.mmap(-1, 64 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\nhuge[:4] = b'good'\nprint(huge[:4])"
    outcome = await box.python(code, memory_bytes=64 * MIB)
    assert outcome.text == "b'good'\n", outcome.error_text


async def test_shared_memory_counts_once(box: Box) -> None:
    """Six processes that share 60 MiB use 60 MiB."""
    code = """
import os, time
from multiprocessing.shared_memory import SharedMemory
block = SharedMemory(create=True, size=60 << 20)
block.buf[:] = b'x' * (60 << 20)
children = []
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        other = SharedMemory(block.name)
        total = sum(other.buf[::4096])
        time.sleep(0.2)
        os._exit(0)
    children.append(pid)
print([os.waitpid(child, 0)[1] for child in children])
block.unlink()
"""
    outcome = await box.python(code, memory_bytes=220 * MIB)
    assert (outcome.text, outcome.exit.killed_by) == ("[0, 0, 0, 0, 0]\n", ""), (outcome.error_text, outcome.exit)


async def test_processes_beyond_the_limit_fail_with_eagain(box: Box) -> None:
    code = """
import errno, os, threading, time
count = 1
try:
    while True:
        if os.fork() == 0: time.sleep(600)
        count += 1
except OSError as error:
    print(count, errno.errorcode[error.errno])
"""
    outcome = await box.python(code, processes=10)
    count, error = outcome.text.split()
    assert error == "EAGAIN"
    assert 9 <= int(count) <= 11
    assert outcome.exit.status == 0


async def test_ended_processes_make_room_for_new_ones(box: Box) -> None:
    outcome = await box.shell("for number in $(seq 200); do /bin/true || exit 1; done; echo all", processes=8)
    assert outcome.text == "all\n", outcome.error_text


async def test_open_files_beyond_the_limit_fail_with_emfile(box: Box) -> None:
    code = """
import errno, os, resource
print(resource.getrlimit(resource.RLIMIT_NOFILE))
try: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
except ValueError: print('cannot be raised')
kept = []
try:
    while True: kept.append(os.open('/dev/null', os.O_RDONLY))
except OSError as error:
    print(errno.errorcode[error.errno], kept[-1])
"""
    outcome = await box.python(code, open_files=40)
    assert outcome.text == "(40, 40)\ncannot be raised\nEMFILE 39\n"


@pytest.mark.parametrize("name", ["RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_CPU"])
async def test_no_limit_can_be_raised_from_inside(box: Box, name: str) -> None:
    code = f"""
import resource
soft, hard = resource.getrlimit(resource.{name})
for wanted in (hard + 1, resource.RLIM_INFINITY):
    try: resource.setrlimit(resource.{name}, (hard, wanted))
    except ValueError as error: print('refused')
print(soft == hard == resource.getrlimit(resource.{name})[1])
"""
    outcome = await box.python(code)
    assert outcome.text == "refused\nrefused\nTrue\n", outcome.error_text


async def test_nothing_dumps_core(box: Box) -> None:
    outcome = await box.shell("ulimit -c unlimited; kill -ABRT $$", collect=["*"])
    assert (outcome.exit.signal, outcome.artifacts, outcome.skipped) == (signal.SIGABRT, {}, {"*": "no such file"})


async def test_priorities_cannot_be_raised(box: Box) -> None:
    code = """
import errno, os
for action in (lambda: os.nice(-5), lambda: os.setpriority(os.PRIO_PROCESS, 0, -1),
               lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))):
    try: action()
    except OSError as error: print(errno.errorcode[error.errno])
"""
    outcome = await box.python(code)
    assert set(outcome.text.split()) <= {"EPERM", "EACCES"}
    assert len(outcome.text.split()) == 3


async def test_bytes_that_can_be_written_run_out_with_enospc(box: Box) -> None:
    code = """
import errno
total = 0
try:
    with open('big', 'wb', buffering=0) as file:
        while True: total += file.write(bytes(65536))
except OSError as error: print(errno.errorcode[error.errno], total)
"""
    outcome = await box.python(code, specification=SandboxSpec(writable_bytes=4 * MIB))
    error, total = outcome.text.split()
    assert error == "ENOSPC"
    assert 3 * MIB <= int(total) <= 4 * MIB


async def test_deleting_files_frees_their_space(box: Box) -> None:
    script = "for number in $(seq 20); do head -c 3000000 /dev/zero > big || exit 1; rm big; done; echo all"
    outcome = await box.shell(script, specification=SandboxSpec(writable_bytes=4 * MIB, writable_inodes=40))
    assert outcome.text == "all\n", outcome.error_text


async def test_each_stream_has_its_own_limit(box: Box) -> None:
    outcome = await box.shell("head -c 5000 /dev/zero; echo short >&2; exit 3", output_bytes=1000)
    assert (len(outcome.stdout), outcome.stderr, outcome.exit.status) == (1000, b"short\n", 3)
    assert (outcome.exit.stdout_truncated, outcome.exit.stderr_truncated) == (True, False)
    other = await box.shell("head -c 5000 /dev/zero >&2; echo short", output_bytes=1000)
    assert (other.stdout, len(other.stderr)) == (b"short\n", 1000)
    assert (other.exit.stdout_truncated, other.exit.stderr_truncated) == (False, True)


async def test_exactly_as_much_as_allowed_is_not_cut(box: Box) -> None:
    outcome = await box.shell("head -c 1000 /dev/zero", output_bytes=1000, kill_on_output=True)
    assert (len(outcome.stdout), outcome.exit.stdout_truncated, outcome.exit.killed_by) == (1000, False, "")
    one_more = await box.shell("head -c 1001 /dev/zero; sleep 60", output_bytes=1000, kill_on_output=True)
    assert (len(one_more.stdout), one_more.exit.stdout_truncated, one_more.exit.killed_by) == (1000, True, "output")


async def test_the_first_limit_that_is_reached_is_the_one_reported(box: Box) -> None:
    outcome = await box.shell("yes", output_bytes=1000, kill_on_output=True, wall_ms=20_000)
    assert outcome.exit.killed_by == "output"
    outcome = await box.shell("yes", output_bytes=1000, wall_ms=300)
    assert outcome.exit.killed_by == "wall_time"


async def test_resource_use_of_a_killed_program_is_reported(box: Box) -> None:
    code = "import time\ndata = bytearray(b'x') * (40 << 20)\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\ntime.sleep(600)"
    outcome = await box.python(code, wall_ms=1500)
    assert outcome.exit.killed_by == "wall_time"
    assert outcome.exit.cpu_ms >= 180
    assert 40 * MIB <= outcome.exit.memory_peak_bytes <= 200 * MIB


async def test_a_program_that_does_nothing_uses_little(box: Box) -> None:
    outcome = await box.run("/bin/true")
    assert 0 <= outcome.exit.cpu_ms < 500
    assert outcome.exit.wall_ms > 0
    assert 0 < outcome.exit.memory_peak_bytes < 64 * MIB


@pytest.mark.parametrize("memory_mib", [256, 512])
async def test_java_fits_into_its_memory(box: Box, memory_mib: int) -> None:
    require_tool("java")
    source = 'public class Main { public static void main(String[] a) { System.out.println("hello " + Runtime.version().feature()); } }'
    outcome = await box.run(
        "/usr/bin/java",
        f"-Xmx{memory_mib // 2}m",
        "Main.java",
        files={"Main.java": source},
        memory_bytes=memory_mib * MIB,
        cpu_ms=0,
    )
    assert outcome.text.startswith("hello "), (outcome.error_text, outcome.exit)


async def test_node_fits_into_its_memory(box: Box) -> None:
    require_tool("node")
    code = "console.log(JSON.stringify([process.version.startsWith('v'), 6 * 7]))"
    outcome = await box.run("/usr/bin/node", "-e", code, memory_bytes=256 * MIB)
    assert json.loads(outcome.text) == [True, 42], outcome.error_text


async def test_the_stack_has_the_requested_size(box: Box) -> None:
    """Soft and hard, for the program and its children; deep recursion reaches it, and beyond it the program dies."""
    script = "ulimit -Ss; ulimit -Hs; exec python3 main.py"
    code = """
import resource
print(*resource.getrlimit(resource.RLIMIT_STACK))
"""
    outcome = await box.shell(script, files={"main.py": code}, stack_bytes=300 * MIB)
    assert outcome.text.split() == [str(300 * 1024)] * 2 + [str(300 * MIB)] * 2


DEEP = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
static int next[1000001];
static volatile long sum;
static int depth(int node) {
    volatile char room[64];
    room[0] = 1;
    int below = next[node] ? depth(next[node]) : 0;
    sum += room[0];
    return below + 1;
}
static void *deep(void *unused) { return (void *)(long)depth(0); }
static void *idle(void *barrier) { pthread_barrier_wait(barrier); return 0; }
int main(void) {
    for (int node = 0; node < 1000000; node++) next[node] = node + 1;
    printf("%d\\n", depth(0));
    fflush(stdout);
    void *answer;
    pthread_t thread, threads[100];
    if (pthread_create(&thread, 0, deep, 0)) return 3;
    pthread_join(thread, &answer);
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, 0, 101);
    for (int each = 0; each < 100; each++) if (pthread_create(&threads[each], 0, idle, &barrier)) return 4;
    pthread_barrier_wait(&barrier);
    for (int each = 0; each < 100; each++) pthread_join(threads[each], 0);
    printf("%ld and 100 threads\\n", (long)answer);
}
"""


async def test_a_search_a_million_deep_and_many_threads_have_room(box: Box, tmp_path: Path) -> None:
    """Judges set the stack to the memory limit. Threads reserve as much, and only use what they touch."""
    compiler = require_tool("gcc")
    (tmp_path / "deep.c").write_text(DEEP)
    subprocess.run([compiler, "-O1", "-fno-optimize-sibling-calls", "-pthread", "-o", "deep", "deep.c"], cwd=tmp_path, check=True)
    program = (tmp_path / "deep").read_bytes()
    run = "chmod 700 deep; exec ./deep"
    outcome = await box.shell(run, files={"deep": program}, memory_bytes=512 * MIB, stack_bytes=512 * MIB)
    assert outcome.text == "1000001\n1000001 and 100 threads\n", outcome.exit
    small = await box.shell(run, files={"deep": program}, memory_bytes=512 * MIB, stack_bytes=8 * MIB)
    assert (small.text, small.exit.signal) == ("", signal.SIGSEGV)
