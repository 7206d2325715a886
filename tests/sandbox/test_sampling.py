"""Sampling of /proc without a cgroup: native/sampling.c, supervisor.c and system_v.c on a fake folder."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KIB, MIB = 1 << 10, 1 << 20
MOST = (1 << 64) - 1
LISTED = 1 << 18
"""PAIRS_MOST."""
SHARED = "7f00-7f01 rw-s 0000 00:01 {} /dev/zero (deleted)\n"
STATUS = "Name:\t{name}\nVmRSS:\t{rss} kB\nRssAnon:\t{anonymous} kB\nRssFile:\t8 kB\nRssShmem:\t{shared} kB\nVmPTE:\t{pte} kB\nVmSwap:\t{swap} kB\n"
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
MESSAGES = "       key      msqid perms      cbytes       qnum lspid\n"
SETS = "       key      semid perms      nsems   uid\n"
SEGMENTS = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid   atime   dtime   ctime  rss swap\n"
PROTOCOLS = """\
protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em
PACKET    1600      9      -1   NI       0   yes  kernel      y  n
UNIX-STREAM 1100    3      -1   NI       0   yes  kernel      y  n
UNIX      1100      2      -1   NI       0   yes  kernel      y  n
NETLINK   1100      4      -1   NI       0   yes  kernel      y  n
"""


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("harness") / "harness"
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    source = ROOT / "tests/sandbox/native/sampling_harness.c"
    subprocess.run(["gcc", *flags, "-I", str(ROOT / "native"), "-o", str(program), str(source)], check=True)
    return program


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with PID 1, which does not count."""
    write(tmp_path, "net/protocols", PROTOCOLS)
    write(tmp_path, "sysvipc/msg", MESSAGES)
    write(tmp_path, "sysvipc/sem", SETS)
    write(tmp_path, "sysvipc/shm", SEGMENTS)
    add_process(tmp_path, 1, anonymous=999, ticks=(999, 0, 0, 0))
    return tmp_path


def write(proc: Path, name: str, text: str | bytes) -> None:
    path = proc / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def add_process(
    proc: Path,
    pid: int,
    *,
    name: str = "program",
    anonymous: int = 0,
    shared: int = 0,
    pte: int = 0,
    swap: int = 0,
    ticks: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> None:
    status = STATUS.format(name="x", rss=anonymous + shared, anonymous=anonymous, shared=shared, pte=pte, swap=swap)
    write(proc, f"{pid}/status", status)
    before, after = " ".join(["1"] * 10), " ".join(["7"] * 30)
    write(proc, f"{pid}/stat", f"{pid} ({name}) S {before} {' '.join(map(str, ticks))} {after}\n")
    write(proc, f"{pid}/maps", "")
    write(
        proc,
        f"{pid}/smaps_rollup",
        f"0-1 ---p 0 00:00 0 [rollup]\nPss: 1 kB\nPss_Anon: {anonymous // 2} kB\nPss_Shmem: {shared // 2} kB\n",
    )
    (proc / f"{pid}/fd").mkdir(exist_ok=True)


def run(harness: Path, proc: Path, *words: object) -> Mapping[str, int]:
    result = subprocess.run([harness, proc, *map(str, words)], check=False, capture_output=True, text=True, timeout=60)
    if result.returncode == 77:
        pytest.skip("another filter has a listener already")
    assert result.returncode == 0, result.stderr
    return {name: int(value) for name, value in (line.split() for line in result.stdout.splitlines())}


@pytest.mark.parametrize(("look_us", "looks"), [(1_000, 10), (100_000, 3)], ids=["a few descriptors", "very many"])
def test_descriptors_are_sampled_as_often_as_their_number_allows(harness: Path, proc: Path, look_us: int, looks: int) -> None:
    assert run(harness, proc, "looks", look_us)["looks"] == looks


@pytest.mark.parametrize("name", ["a b", ") S 1 1", "((", "a\nb) R 9", ") ) )", "", "é\x7f\x01"])
def test_the_name_of_a_process_changes_no_number(harness: Path, proc: Path, name: str) -> None:
    add_process(proc, 20, name=name, anonymous=100, shared=20, pte=3, swap=4, ticks=(1, 2, 4, 8))
    seen = run(harness, proc, "sample", 0, 0, 16)
    assert (seen["anonymous"], seen["shared"], seen["hidden"], seen["ticks"]) == (100 * KIB, 20 * KIB, 7 * KIB, 15)


def test_thousands_of_processes_are_summed(harness: Path, proc: Path) -> None:
    for pid in range(2, 3002):
        add_process(proc, pid, anonymous=pid, shared=2 * pid, ticks=(pid, 1, 0, 0))
    seen = run(harness, proc, "sample", 0, 0, 16)
    total = sum(range(2, 3002))
    assert (seen["processes"], seen["anonymous"], seen["shared"]) == (3000, total * KIB, 2 * total * KIB)
    assert seen["ticks"] == total + 3000
    assert (seen["proportional_anonymous"], seen["proportional_shared"]) == (
        sum(n // 2 for n in range(2, 3002)) * KIB,
        total * KIB,
    )


def test_an_exiting_process_counts_as_far_as_visible(harness: Path, proc: Path) -> None:
    add_process(proc, 20, anonymous=100, ticks=(5, 0, 0, 0))
    write(proc, "20/status", "Name:\tx\nState:\tZ (zombie)\n")
    add_process(proc, 21, anonymous=100)
    (proc / "21/stat").unlink()
    (proc / "22").mkdir()
    add_process(proc, 23, anonymous=7)
    write(proc, "23/status", "Name:\tx\nRssAnon:\t7 kB\nRssShmem:")  # truncated
    write(proc, "23/stat", "23 (x) S 1 1")
    seen = run(harness, proc, "sample", 0, 0, 16)
    assert (seen["anonymous"], seen["shared"], seen["hidden"], seen["ticks"]) == (7 * KIB, 0, 0, 5)


def test_numbers_saturate(harness: Path, proc: Path) -> None:
    add_process(proc, 20, anonymous=10**30, shared=-5, ticks=(10**25, -3, 1, 0))
    seen = run(harness, proc, "sample", MIB, 0, 16)
    assert (seen["anonymous"], seen["shared"], seen["ticks"]) == (MOST, 0, MOST)
    assert seen["exceeded"] == 1


def test_lines_that_are_longer_than_the_buffer(harness: Path, proc: Path) -> None:
    add_process(proc, 20)
    write(proc, "20/status", f"Name:\tx\nGroups:\t{'1234567890 ' * 10_000}\nRssAnon:\t5 kB\nRssShmem:\t6 kB\n" + "x" * 100_000)
    names = ["x" * length for length in (16_200, 16_330, 16_384, 16_385, 17_000, 100_000)]
    mapped = [f"7f00-7f01 rw-s 0000 00:01 {inode} /{name}/dev/zero (deleted)" for inode, name in enumerate(names)]
    others = [f"7f00-7f01 rw-s 0000 00:01 {100 + inode} /{name}" for inode, name in enumerate(names)]
    write(proc, "20/maps", "\n".join(mapped + others + mapped) + "\n")
    seen = run(harness, proc, "sample", 0, 0, 16)
    assert (seen["anonymous"], seen["shared"], seen["mappings"]) == (5 * KIB, 6 * KIB, len(names))


def test_each_pipe_counts_once(harness: Path, proc: Path) -> None:
    for pid in (20, 21):
        add_process(proc, pid)
        for number in range(300):
            write(proc, f"{pid}/fd/{1000 + number}", "")
    for number in range(400):
        os.mkfifo(proc / f"20/fd/{number}")
        os.link(proc / f"20/fd/{number}", proc / f"21/fd/{number}")
    os.mkfifo(proc / "21/fd/999")
    (proc / "21/fd/5000").symlink_to("nothing")
    assert run(harness, proc, "sample", 0, 0, 16)["pipes"] == 401 * 64 * KIB


def test_hidden_descriptors_and_mappings_count_with_their_maximum(harness: Path, proc: Path) -> None:
    for pid in (20, 21, 22):
        add_process(proc, pid, anonymous=100, shared=10)
    os.mkfifo(proc / "20/fd/3")
    write(proc, "22/status", "Name:\tx\nState:\tZ (zombie)\n")
    for name in ("21/fd", "21/maps", "21/smaps_rollup", "22/fd"):
        (proc / name).chmod(0)
    seen = run(harness, proc, "sample", 0, 0, 50)
    (proc / "21/fd").chmod(0o700)
    (proc / "22/fd").chmod(0o700)
    assert seen["pipes"] == (1 + 50) * 64 * KIB  # the zombie has none
    assert seen["mappings"] == MOST
    assert (seen["proportional_anonymous"], seen["proportional_shared"]) == ((50 + 100 + 50) * KIB, (5 + 10 + 5) * KIB)


def test_sockets_count_as_full(harness: Path, proc: Path) -> None:
    waiting = [(0, 0), (0xFFFFFFFF, 1), (0x10, 0x20)] * 3000
    lines = [
        f"{n:4}: 0100007F:07E8 00000000:0000 0A {sent:08X}:{received:08x} 00:0 0\n" for n, (sent, received) in enumerate(waiting)
    ]
    write(proc, "net/tcp", HEAD + "".join(lines))
    write(proc, "net/udp6", HEAD + "   0: 00 00 07 -0000001:00000002 00\n   1: 00\n")
    seen = run(harness, proc, "sample", 0, 0, 16)
    assert seen["internet"] == sum(4 * KIB + 2 * (sent + received) for sent, received in waiting) + 2 * 4 * KIB
    assert (seen["local"], seen["netlink"]) == (9 * 256 * KIB, 4)


def test_system_v_objects_are_summed(harness: Path, proc: Path) -> None:
    write(proc, "sysvipc/msg", MESSAGES + " -2147483648  0  600  1000  10 1\n  5  1  600  7  1 1\n")
    write(proc, "sysvipc/sem", SETS + "  5  1  600  64 0\n")
    write(proc, "sysvipc/shm", SEGMENTS + "  5  1  600  4096 1 1 1 0 0 0 0 1 1 1 2048 1024\n" * 3)
    seen = run(harness, proc, "sample", 0, 0, 16)
    assert (seen["queues"], seen["sets"], seen["segments"], seen["resident"]) == (2, 1, 3 * 4096, 3 * 3072)
    assert seen["kernel"] == 2 * 512 + 1007 + 11 * 64 + 512 + 64 * 64


def test_unreadable_files_count_with_their_maximum(harness: Path, proc: Path) -> None:
    add_process(proc, 20, anonymous=1)
    seen = run(harness, proc, "blind", MIB, 0, 16)
    assert (seen["hidden"], seen["pipes"]) == (MOST, 16 * 64 * KIB)
    assert all(
        seen[name] == MOST for name in ("local", "internet", "queues", "sets", "segments", "resident", "kernel", "mappings")
    )
    assert (seen["netlink"], seen["exceeded"], seen["peak"]) == (16, 1, MIB)


@pytest.mark.parametrize(
    ("memory_bytes", "cpu_ms", "exceeded"),
    [(0, 0, 0), (1, 0, 1), (0, 1000, 2), (1 << 50, 1000, 2), (1 << 50, 10**9, 0), (1, 1, 1)],
)
def test_limits(harness: Path, proc: Path, memory_bytes: int, cpu_ms: int, exceeded: int) -> None:
    add_process(proc, 20, anonymous=100, ticks=(101, 0, 0, 0))
    assert run(harness, proc, "sample", memory_bytes, cpu_ms, 16)["exceeded"] == exceeded


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("socket:0", 0),
        ("msgget:0", 0),
        ("semget:64", 0),
        ("semget:65", errno.EINVAL),
        (f"semget:{(1 << 32) + 64}", 0),
        ("semget:0xffffffff", errno.EINVAL),
        (f"shmget:{MIB - 4096}", 0),
        (f"shmget:{MIB - 4095}", errno.ENOMEM),
        (f"shmget:{MOST}", errno.ENOMEM),
        (f"mmap:{MIB}", 0),
        (f"mmap:{MIB + 1}", errno.ENOMEM),
        (f"mmap:{MOST}", errno.ENOMEM),
        ("mmap:0", 0),
        ("getpid:0", errno.ENOSYS),
    ],
)
def test_calls_are_decided(harness: Path, proc: Path, call: str, number: int) -> None:
    write(proc, "sysvipc/shm", SEGMENTS + "  5  1  600  4096 1 1 1 0 0 0 0 1 1 1 2048 1024\n")
    assert list(run(harness, proc, "decide", MIB, call).values()) == [number]


def test_calls_past_a_number_are_refused(harness: Path, proc: Path) -> None:
    write(proc, "net/protocols", PROTOCOLS.replace("1100      4", "1100     16"))
    write(proc, "sysvipc/msg", MESSAGES + "  5  1  600  7  1 1\n" * 32)
    write(proc, "sysvipc/sem", SETS + "  5  1  600  7  1 1\n" * 32)
    decided = run(harness, proc, "decide", 0, "socket:0", "msgget:0", "semget:1", f"shmget:{MOST}", f"mmap:{MOST}")
    assert decided == {"socket": errno.ENOBUFS, "msgget": errno.ENOSPC, "semget": errno.ENOSPC, "shmget": 0, "mmap": 0}


def test_shared_memory_is_bounded_before_the_start(harness: Path, proc: Path) -> None:
    assert run(harness, proc, "decide", "start", f"mmap:{64 * MIB}") == {"mmap": 0}
    assert run(harness, proc, "decide", "start", f"mmap:{64 * MIB + 1}") == {"mmap": errno.ENOMEM}


def test_the_largest_mappings_are_assumed_to_remain(harness: Path, proc: Path) -> None:
    add_process(proc, 20)
    write(proc, "20/maps", SHARED.format(7) + SHARED.format(8) + SHARED.format(7) + "7f00-7f01 rw-p 0000 00:01 9 /dev/zero\n")
    # The last one of a living thread is always kept; of the others the two largest.
    words = ["20:4096", "20:8192", "20:12288", "20:100", "30:20480", "30:1"]
    seen = run(harness, proc, "mappings", 1, *words)
    assert (seen["before"], seen["after"]) == (4096 + 8192 + 12288 + 100 + 20480 + 1, 100 + 20480 + 12288)


def test_more_mappings_than_the_list_holds(harness: Path, proc: Path) -> None:
    add_process(proc, 20)
    write(proc, "20/maps", SHARED.format(7) + SHARED.format(8))
    seen = run(harness, proc, "mappings", 300_000, "20:4096")
    # The list was full once, and two entries were kept. One more is the thread's last.
    assert (seen["before"], seen["after"]) == ((300_000 - LISTED + 2) * 4096, 3 * 4096)
    write(proc, "20/maps", "".join(map(SHARED.format, range(LISTED + 1))))
    seen = run(harness, proc, "mappings", 300_000, "20:4096")
    assert seen["before"] == seen["after"] == 300_000 * 4096


def test_a_supervised_call_gets_a_response(harness: Path) -> None:
    answers = run(harness, Path("/proc"), "answer", "calls")
    assert answers == {
        "socket": 0,
        "mapped": 0,
        "large": errno.ENOMEM,
        "twice": errno.ENOMEM,
        "semget": errno.EINVAL,
        "getppid": errno.ENOSYS,
        "bytes": MIB,
    }


def test_a_vanished_caller_is_no_error(harness: Path, proc: Path) -> None:
    assert run(harness, proc, "answer", "late") == {"asked": 1, "answered": 1}
