"""The system call filters: the tables, the compiled programs, and the results for a program under them."""

from __future__ import annotations

import itertools
import json
import platform
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from firebox.sandbox.plan.seccomp import (
    ALLOWED,
    DENIED,
    FREQUENT,
    IGNORED,
    PERSONALITIES,
    SOCKET_FAMILIES,
    UNCOUNTED,
    compile_filter,
    every_call,
)
from firebox.sandbox.plan.system_call_numbers import system_call_numbers
from scripts.system_calls_page import system_calls_page
from scripts.write_system_call_numbers import header_numbers
from tests.conftest import ROOT, require_tool
from tests.sandbox.bpf_interpreter import LOAD, RETURN, check, instructions_of, run_bpf
from tests.sandbox.conftest import Box
from tests.sandbox.raw_calls import IS_X86_64, number_of, raw_files

KILL_PROCESS, ERRNO, USER_NOTIF, ALLOW = 0x80000000, 0x00050000, 0x7FC00000, 0x7FFF0000
EINVAL, ENOMEM, ENOPROTOOPT = 22, 12, 92
EPERM, ENOSYS, EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT = 1, 38, 97, 93, 94
GARBAGE = 0xDEADBEEF << 32
HIGHEST_NUMBER = 700

only_x86_64 = pytest.mark.skipif(not IS_X86_64, reason="this way of making a system call exists on x86-64 only")
only_arm64 = pytest.mark.skipif(platform.machine() != "aarch64", reason="this way of making a system call exists on arm64 only")


class Machine(NamedTuple):
    """An architecture with a table. Its filter can be tested on any other."""

    name: str
    architecture: int
    foreign: int

    def run(
        self, number: int, *arguments: int, architecture: int | None = None, counted: bool = True, ask: bool = True
    ) -> tuple[int, list[int]]:
        words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
        data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture or self.architecture, 0, *words)
        return run_bpf(compile_filter(ask=ask, counted=counted, machine=self.name), data)

    def answer(
        self, number: int, *arguments: int, architecture: int | None = None, counted: bool = True, ask: bool = True
    ) -> int:
        return self.run(number, *arguments, architecture=architecture, counted=counted, ask=ask)[0]

    def number(self, name: str) -> int:
        return system_call_numbers(self.name)[name]

    def named(self, table: dict[str, str]) -> Iterator[tuple[str, int]]:
        numbers = system_call_numbers(self.name)
        return ((name, numbers[name]) for names in table.values() for name in names.split() if name in numbers)


MACHINES = (Machine("x86_64", 0xC000003E, 0x40000003), Machine("aarch64", 0xC00000B7, 0x40000028))


@pytest.fixture(params=MACHINES, ids=lambda machine: machine.name)
def machine(request: pytest.FixtureRequest) -> Machine:
    found: Machine = request.param
    return found


def test_no_call_is_both_allowed_and_denied() -> None:
    names = [name for table in (ALLOWED, DENIED, IGNORED) for group in table.values() for name in group.split()]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice


def test_every_denied_call_is_refused_by_the_filter_itself(machine: Machine) -> None:
    wrong = {
        name: hex(machine.answer(number)) for name, number in machine.named(DENIED) if machine.answer(number) != ERRNO | EPERM
    }
    assert not wrong


def test_every_allowed_call_passes_with_harmless_arguments(machine: Machine) -> None:
    unix = {"socketpair": (1,)}
    answers = {name: machine.answer(number, *unix.get(name, ())) for name, number in machine.named(ALLOWED)}
    assert {name: hex(said) for name, said in answers.items() if said != ALLOW} == {}


def test_unlisted_calls_fail_with_enosys(machine: Machine) -> None:
    known = {number for table in (ALLOWED, DENIED, IGNORED) for _name, number in machine.named(table)}
    known |= {machine.number("socket"), machine.number("personality")}  # held by their arguments
    wrong = {
        number: hex(machine.answer(number))
        for number in range(HIGHEST_NUMBER)
        if number not in known and machine.answer(number) != ERRNO | ENOSYS
    }
    assert not wrong


def test_attack_64_a_call_of_a_foreign_architecture_kills(machine: Machine) -> None:
    for number in range(HIGHEST_NUMBER):
        assert machine.answer(number, architecture=machine.foreign) == KILL_PROCESS


def test_attack_64_a_number_of_the_x32_abi_kills() -> None:
    x86_64, arm64 = MACHINES
    for number in (*range(HIGHEST_NUMBER), 0x3FFFFFFF, 0xBFFFFFFE):
        assert x86_64.answer(number | 0x40000000) == KILL_PROCESS
        assert arm64.answer(number | 0x40000000) == ERRNO | ENOSYS


def test_an_invalid_number_fails_with_enosys(machine: Machine) -> None:
    assert {machine.answer(number) for number in (-1, 4095, 0x3FFFFFFF)} == {ERRNO | ENOSYS}


def test_attack_64_garbage_in_the_upper_half_of_an_argument_changes_nothing(machine: Machine) -> None:
    """The kernel reads `int` arguments from the lower half of a register, and so must the filters."""
    cases = [
        (machine.number("clone"), (GARBAGE | 0x10000000 | 17,)),  # CLONE_NEWUSER
        (machine.number("ioctl"), (0, GARBAGE | 0x5412)),  # TIOCSTI
        (machine.number("ioctl"), (0, GARBAGE | 0x541C)),  # TIOCLINUX
        (machine.number("ioctl"), (0, GARBAGE | 0x5423)),  # TIOCSETD
        (machine.number("prctl"), (GARBAGE | 0x59616D61, 1)),  # PR_SET_PTRACER
        (machine.number("prctl"), (GARBAGE | 62, 1)),  # PR_SCHED_CORE
        (machine.number("prlimit64"), (GARBAGE | 1, 7, 1)),  # of PID 1
        *((machine.number(f"sched_set{what}"), (GARBAGE | 1, 1, 1)) for what in ("affinity", "attr", "param", "scheduler")),
        *(
            (machine.number(name), (GARBAGE | kind, GARBAGE | 1, 1))
            for name in ("setpriority", "ioprio_set")
            for kind in range(4)
        ),
        (machine.number("setpriority"), (GARBAGE | 2, 0, 1)),  # of a user, who is PID 1's as well
        (machine.number("ioprio_set"), (GARBAGE | 3, 0, 1)),
    ]
    for number, arguments in cases:
        assert machine.answer(number, *arguments) == ERRNO | EPERM, (number, arguments)
    vsock, inet, unix = 40, 2, 1
    assert machine.answer(machine.number("socket"), GARBAGE | vsock, 1, 0) == ERRNO | EAFNOSUPPORT
    assert machine.answer(machine.number("socket"), GARBAGE | inet, GARBAGE | 1, GARBAGE | 132) == ERRNO | EPROTONOSUPPORT
    assert machine.answer(machine.number("socketpair"), GARBAGE | vsock, 1, 0) == ERRNO | EAFNOSUPPORT
    assert machine.answer(machine.number("socket"), GARBAGE | unix, GARBAGE | 1, GARBAGE) == ALLOW
    assert machine.answer(machine.number("personality"), GARBAGE | 0x0040000) == ERRNO | ENOSYS


def test_every_new_namespace_is_refused_to_clone(machine: Machine) -> None:
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert machine.answer(machine.number("clone"), bit | 17) == ERRNO | EPERM
        assert machine.answer(machine.number("clone"), bit | 0x00010F00) == ERRNO | EPERM  # beside the flags of a thread
    assert machine.answer(machine.number("clone"), 17) == ALLOW
    assert machine.answer(machine.number("clone"), 0x003D0F00) == ALLOW


def test_only_three_socket_families_and_the_usual_protocols_pass(machine: Machine) -> None:
    families = {family for family in range(300) if machine.answer(machine.number("socket"), family, 1, 0) == ALLOW}
    assert families == set(SOCKET_FAMILIES.values())  # netlink has another type
    usual = {(2, 1): {0, 6}, (2, 2): {0, 17, 1}, (10, 1): {0, 6}, (10, 2): {0, 17, 58}}  # TCP, UDP, ICMP, ICMPv6
    for (family, kind), protocols in usual.items():
        for flags in (0, 0o4000, 0o2004000):  # SOCK_NONBLOCK, SOCK_CLOEXEC
            passing = {
                number for number in range(300) if machine.answer(machine.number("socket"), family, kind | flags, number) == ALLOW
            }
            assert passing == protocols
    for family, kind in itertools.product((2, 10), (0, 4, 5, 6, 10)):
        assert machine.answer(machine.number("socket"), family, kind, 0) == ERRNO | ESOCKTNOSUPPORT


def test_only_netlink_route_passes_and_pid_1_decides(machine: Machine) -> None:
    netlink = 16
    for counted, flags in ((True, 0), (False, 0o2004000)):
        asked = {
            (kind, protocol)
            for kind, protocol in itertools.product(range(16), range(34))
            if machine.answer(machine.number("socket"), GARBAGE | netlink, kind | flags, protocol, counted=counted) == USER_NOTIF
        }
        assert asked == {(2, 0), (3, 0)}
    for bit in range(32):
        assert machine.answer(machine.number("socket"), netlink, 3, 1 << bit) == ERRNO | EPROTONOSUPPORT
    assert machine.answer(machine.number("socketpair"), netlink, 3, 0) == ERRNO | EAFNOSUPPORT


def test_attack_12_no_machine_wide_resource_can_be_used_up(machine: Machine) -> None:
    """Each of these uses a resource that has one limit for the machine and is charged to no cgroup."""
    level, tcp, ipv6 = 1, 6, 41
    for garbage in (0, GARBAGE):
        for option in (26, 50, 51, 52):  # SO_ATTACH_FILTER, _BPF, _REUSEPORT_CBPF, _REUSEPORT_EBPF
            assert machine.answer(machine.number("setsockopt"), 3, garbage | level, garbage | option) == ERRNO | EPERM
        for where, option in ((tcp, 14), (tcp, 32), (tcp, 38), (ipv6, 32)):  # TCP_MD5SIG, TCP_AO_ADD_KEY, IPV6_FLOWLABEL_MGR
            assert machine.answer(machine.number("setsockopt"), 3, garbage | where, garbage | option) == ERRNO | ENOPROTOOPT
        assert machine.answer(machine.number("seccomp"), garbage | 1) == ERRNO | EINVAL
        assert machine.answer(machine.number("prctl"), garbage | 22, 2) == ERRNO | EINVAL
        assert machine.answer(machine.number("mmap"), 0, 1 << 21, 3, garbage | 0x40022) == ERRNO | ENOMEM
        assert machine.answer(machine.number("memfd_create"), 0, garbage | 4) == ERRNO | ENOMEM
        assert machine.answer(machine.number("shmget"), 0, 1 << 21, garbage | 0o5600) == ERRNO | ENOMEM
    assert machine.answer(machine.number("setsockopt"), 3, level, 27) == ALLOW  # SO_DETACH_FILTER
    assert (
        machine.answer(machine.number("seccomp"), 0) == machine.answer(machine.number("prctl"), 22, 1) == ALLOW
    )  # the strict mode, which costs nothing


def test_without_a_cgroup_memory_cannot_be_hidden(machine: Machine) -> None:
    names = [name for name in UNCOUNTED.split() if name in ("memfd_create", "splice", "tee", "vmsplice")]
    assert {machine.answer(machine.number(name), counted=False) for name in names} == {ERRNO | ENOSYS}
    assert {machine.answer(machine.number(name)) for name in names} == {ALLOW}
    shared, private, of_a_file = 0x21, 0x22, 0x01
    for flags, answers in ((shared, USER_NOTIF), (private, ALLOW), (of_a_file, ALLOW)):
        for more in (0, GARBAGE, 0x4000, 0x8000):  # MAP_NORESERVE, MAP_POPULATE
            assert machine.answer(machine.number("mmap"), 0, 4096, 3, flags | more, counted=False) == answers
            assert machine.answer(machine.number("mmap"), 0, 4096, 3, flags | more) == ALLOW
    for name, flags in (("shmget", 2), ("msgget", 1), ("semget", 2)):
        for key, flag, answers in ((0, 0o600, USER_NOTIF), (7, 0o1600, USER_NOTIF), (7, 0o600, ALLOW)):  # IPC_PRIVATE, IPC_CREAT
            arguments = [GARBAGE | key, 1, 1]
            arguments[flags] = GARBAGE | flag
            assert machine.answer(machine.number(name), *arguments, counted=False) == answers
            assert machine.answer(machine.number(name), *arguments) == ALLOW
    assert machine.answer(machine.number("prctl"), 4, 0, counted=False) == ERRNO | 0  # PR_SET_DUMPABLE: answered and not done
    assert machine.answer(machine.number("fcntl"), 3, 1031, 1 << 20, counted=False) == ERRNO | EPERM  # F_SETPIPE_SZ
    assert machine.answer(machine.number("setsockopt"), 3, 1, 7, counted=False) == ERRNO | 0  # SO_SNDBUF


async def test_attack_12_filters_are_refused_to_a_program(box: Box) -> None:
    """As on a kernel without filters: programs that can do without them continue."""
    code = """
import socket, struct
from raw import *
program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
filter = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
link = socket.socket()
call("prctl", 38, 1, 0, 0, 0)
tell(seccomp=call("seccomp", 1, 0, ctypes.create_string_buffer(filter)), prctl=call("prctl", 22, 2, ctypes.create_string_buffer(filter)),
     is_there=call("seccomp", 1, 0, 0), socket=attempt(lambda: link.setsockopt(socket.SOL_SOCKET, 26, filter) or "attached"))
"""
    outcome = await box.python(code, files=raw_files("seccomp", "prctl"))
    answers = json.loads(outcome.text)
    assert answers == {"seccomp": "EINVAL", "prctl": "EINVAL", "is_there": "EINVAL", "socket": "EPERM"}


def test_attack_66_personality_can_be_asked_but_not_changed(machine: Machine) -> None:
    passing = {
        value
        for value in (*(1 << bit for bit in range(32)), 0, 8, 0xFFFFFFFF)
        if machine.answer(machine.number("personality"), value) == ALLOW
    }
    assert passing == set(PERSONALITIES.values())


def test_sync_succeeds_and_does_nothing(machine: Machine) -> None:
    for name, number in machine.named(IGNORED):
        assert machine.answer(number) == ERRNO | 0, name


async def test_attack_66_every_denied_call_fails_for_a_program(box: Box) -> None:
    """Arguments for which the kernel itself returns another error: zeros, or an invalid address."""
    names = [name for names in DENIED.values() for name in names.split() if number_of(name) is not None]
    code = f"from raw import call, tell\ntell(**{{name: call(name, 0, 0, 0, 0, 0, 0) for name in {names!r}}})"
    outcome = await box.python(code, files=raw_files(*names))
    answers = json.loads(outcome.text)
    assert {name: said for name, said in answers.items() if said != "EPERM"} == {}
    assert len(answers) > 50


async def test_attack_65_io_uring_does_not_exist(box: Box) -> None:
    """Neither io_uring nor the older AIO, whose contexts have one limit for the whole machine."""
    names = ["io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup"]
    code = (
        f"from raw import *\ntell(**{{name: call(name, 8, ctypes.create_string_buffer(256), 0, 0, 0, 0) for name in {names!r}}})"
    )
    outcome = await box.python(code, files=raw_files(*names))
    assert json.loads(outcome.text) == dict.fromkeys(names, "ENOSYS")


async def test_clone3_does_not_exist_and_libraries_fall_back(box: Box) -> None:
    code = """
import subprocess, threading
from raw import *
words = []
thread = threading.Thread(target=lambda: words.append("thread"))
thread.start(); thread.join()
words.append(subprocess.run(["/bin/echo", "child"], capture_output=True, text=True).stdout.strip())
tell(clone3=call("clone3", ctypes.create_string_buffer(88), 88), words=words)
"""
    outcome = await box.python(code, files=raw_files("clone3"))
    assert json.loads(outcome.text) == {"clone3": "ENOSYS", "words": ["thread", "child"]}


@only_x86_64
async def test_attack_64_int_0x80_kills_the_program(box: Box) -> None:
    code = """
import ctypes, mmap
print("before", flush=True)
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
print("after", function())
"""
    outcome = await box.python(code)
    assert outcome.text == "before\n"
    assert outcome.exit.signal == 31  # SIGSYS


@only_x86_64
async def test_attack_64_x32_kills_the_program(box: Box) -> None:
    code = "from raw import *\nprint('before', flush=True)\nprint(call(0x40000000 | 39))"
    outcome = await box.python(code, files=raw_files())
    assert outcome.text == "before\n"
    assert outcome.exit.signal == 31


@only_arm64
async def test_attack_64_a_32_bit_program_is_killed(box: Box) -> None:
    """It starts where kernel and processor support such programs, and dies at its first system call."""
    code = """
import os, struct
exit_with_0 = struct.pack("<3I", 0xE3A00000, 0xE3A07001, 0xEF000000)  # mov r0, #0; mov r7, #1; svc #0
size, start = 52 + 32 + len(exit_with_0), 0x10000
head = struct.pack("<4s5B7x2H5I6H", b"\\x7fELF", 1, 1, 1, 0, 0, 2, 40, 1, start + 84, 52, 0, 0x5000000, 52, 32, 1, 0, 0, 0)
segment = struct.pack("<8I", 1, 0, start, start, size, size, 5, 4096)
with open("program", "wb") as file:
    file.write(head + segment + exit_with_0)
os.chmod("program", 0o755)
print("before", flush=True)
try:
    os.execv("program", ["program"])
except OSError as error:
    print(error.strerror)
"""
    outcome = await box.python(code)
    if outcome.text == "before\nExec format error\n":
        pytest.skip("this machine runs no 32-bit programs")
    assert outcome.text == "before\n"
    assert outcome.exit.signal == 31


async def test_attack_64_invalid_numbers_behave_as_in_the_kernel(box: Box) -> None:
    """Kernel and filter use only the lower half of the number."""
    code = """
from raw import *
high = 1 << 32
tell(
    minus_one=call(-1), unknown=call(4095), high_getpid=call(high | numbers["getpid"]), own=os.getpid(),
    high_mount=call(high | numbers["mount"], 0, 0, 0, 0, 0), high_unshare=call(high | numbers["unshare"], 0x10000000),
)
"""
    outcome = await box.python(code, files=raw_files("mount", "unshare", "getpid"))
    answers = json.loads(outcome.text)
    assert answers["minus_one"] == answers["unknown"] == "ENOSYS"
    assert answers["high_getpid"] in (answers["own"], "ENOSYS")
    assert {answers["high_mount"], answers["high_unshare"]} <= {"EPERM", "ENOSYS"}


async def test_attack_67_nothing_can_be_typed_into_a_terminal(box: Box) -> None:
    code = """
from raw import *
requests = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C, "TIOCSETD": 0x5423}
garbage = 0xDEADBEEF << 32
byte = ctypes.create_string_buffer(8)
tell(plain={name: call("ioctl", 0, number, byte) for name, number in requests.items()},
     dirty={name: call("ioctl", 0, garbage | number, byte) for name, number in requests.items()},
     size=os.get_terminal_size(0))
"""
    outcome = await box.python(code, files=raw_files("ioctl"), terminal=(24, 80))
    answers = json.loads(outcome.text)
    assert answers["plain"] == answers["dirty"] == dict.fromkeys(("TIOCSTI", "TIOCLINUX", "TIOCSETD"), "EPERM")
    assert answers["size"] == [80, 24]


async def test_ordinary_calls_of_every_group_work(box: Box) -> None:
    """One program that uses calls of every group."""
    code = """
import errno, fcntl, mmap, os, resource, select, signal, socket, struct, tempfile, time, threading
done = []
with tempfile.TemporaryFile() as file:                                    # files, reading and writing
    file.write(b"x" * 10); file.seek(0); assert file.read() == b"x" * 10
    fcntl.flock(file, fcntl.LOCK_EX); os.sync(); os.fsync(file.fileno()); os.ftruncate(file.fileno(), 3)
os.mkfifo("fifo"); os.symlink("fifo", "link"); os.link("main.py", "hard"); os.chmod("hard", 0o600)
try:
    os.setxattr("hard", "user.a", b"b")
except OSError as error:
    assert error.errno == errno.EOPNOTSUPP                                 # a file system in memory, before Linux 6.6
done.append("files")
readable, writable = os.pipe(); os.write(writable, b"y")                  # waiting
poll = select.epoll(); poll.register(readable, select.EPOLLIN); assert poll.poll(1)
assert select.select([readable], [], [], 1)[0]; done.append("waiting")
memory = mmap.mmap(-1, 8192); memory[0] = 1; memory.madvise(mmap.MADV_DONTNEED); memory.close(); done.append("memory")
pid = os.fork()                                                            # processes
if pid == 0:
    os.execv("/bin/true", ["true"])
assert os.waitpid(pid, 0)[1] == 0; os.sched_getaffinity(0); os.nice(1); resource.getrusage(resource.RUSAGE_SELF)
assert os.pidfd_open(os.getpid()) > 0; done.append("processes")
seen = []; signal.signal(signal.SIGUSR1, lambda *_: seen.append(1)); os.kill(os.getpid(), signal.SIGUSR1)
signal.signal(signal.SIGALRM, lambda *_: seen.append(2)); signal.setitimer(signal.ITIMER_REAL, 0.001, 0.05)
while len(seen) < 2: signal.pause()
done.append("signals")
os.setuid(os.getuid()); os.setgid(os.getgid()); os.getgroups(); done.append("identity")
time.clock_gettime(time.CLOCK_MONOTONIC); time.sleep(0); done.append("time")
os.uname(); os.getrandom(8); done.append("machine")
left, right = socket.socketpair(); left.send(b"z"); assert right.recv(1) == b"z"
server = socket.create_server(("127.0.0.1", 0)); client = socket.create_connection(server.getsockname())
client.sendall(b"hello"); assert server.accept()[0].recv(5) == b"hello"; done.append("sockets")
print(*done)
"""
    outcome = await box.python(code)
    assert outcome.error_text == ""
    assert outcome.text.split() == [
        "files",
        "waiting",
        "memory",
        "processes",
        "signals",
        "identity",
        "time",
        "machine",
        "sockets",
    ]


def test_documentation_matches_the_tables() -> None:
    page = (ROOT / "docs" / "reference" / "system-calls.md").read_text(encoding="utf-8")
    assert page == system_calls_page(), "run `make docs`"


def test_the_limit_of_one_byte_on_core_files_stays(machine: Machine) -> None:
    number, core, some, address = machine.number("prlimit64"), 4, 7, 0x7F00 << 32
    assert machine.answer(number, 0, GARBAGE | core, 0, address) == ALLOW  # asks only
    assert machine.answer(number, 0, GARBAGE | core, address, 0) == ERRNO | 0
    assert machine.answer(number, 0, GARBAGE | core, address, address) == ERRNO | EPERM
    assert machine.answer(number, 0, some, address, address) == ALLOW
    assert machine.answer(machine.number("setrlimit"), GARBAGE | core, address) == ERRNO | 0


def test_without_a_listener_the_supervised_calls_are_refused(machine: Machine) -> None:
    shared = 0x21
    cases = [
        ("socket", (16, 3, 0), EAFNOSUPPORT),
        ("mmap", (0, 4096, 3, shared), ENOMEM),
        ("shmget", (0, 1, 0), 28),
        ("msgget", (7, 0o1000), 28),
    ]
    for name, arguments, error in cases:
        asked = machine.answer(machine.number(name), *arguments, counted=False)
        refused = machine.answer(machine.number(name), *arguments, counted=False, ask=False)
        assert (asked, refused) == (USER_NOTIF, ERRNO | error), name


def test_filters_without_a_listener_never_notify(machine: Machine) -> None:
    for counted in (True, False):
        program = compile_filter(ask=False, counted=counted, machine=machine.name)
        assert all(operand != USER_NOTIF for code, _, _, operand in instructions_of(program) if code == RETURN)


def test_every_name_of_the_tables_is_a_call() -> None:
    known = {name for machine in MACHINES for name in system_call_numbers(machine.name)}
    assert known == every_call()


def test_numbers_match_the_kernel_headers() -> None:
    """The installed headers may be older than the table."""
    require_tool("gcc")
    machine = platform.machine()
    found = header_numbers([f"/usr/include/{machine}-linux-gnu", "/usr/include"], f"__{machine}__")
    assert len(found) > (300 if IS_X86_64 else 260)
    numbers = system_call_numbers(machine)
    assert {name: numbers.get(name) for name in found} == found


def test_an_unsupported_architecture_is_reported() -> None:
    with pytest.raises(OSError, match="riscv64"):
        compile_filter(ask=True, counted=True, machine="riscv64")


def programs(machine: str) -> list[bytes]:
    """Compile every variant of the filter for an architecture."""
    return [compile_filter(ask=ask, counted=counted, machine=machine) for counted in (True, False) for ask in (True, False)]


def test_programs_are_small_and_valid(machine: Machine) -> None:
    """Every instruction costs time in each call that is not in the kernel's bitmap."""
    for program in programs(machine.name):
        check(program)
        assert len(program) // 8 < 300


def test_the_kernel_accepts_the_programs() -> None:
    """In a separate process, because a filter is permanent."""
    code = """
import ctypes, errno, sys
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
instructions = sys.stdin.buffer.read()
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
program = Program(len(instructions) // 8, instructions)
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
assert libc.unshare(0) == -1 and ctypes.get_errno() == errno.EPERM
"""
    for program in programs(platform.machine()):
        subprocess.run([sys.executable, "-I", "-S", "-c", code], input=program, check=True)


def test_calls_that_always_pass_load_no_argument(machine: Machine) -> None:
    """The kernel analyses a filter when it is loaded, and keeps a bitmap of calls that always pass."""
    held = {
        "clone",
        "ioctl",
        "ioprio_set",
        "mmap",
        "memfd_create",
        "prctl",
        "prlimit64",
        "sched_setaffinity",
        "sched_setattr",
        "sched_setparam",
        "sched_setscheduler",
        "seccomp",
        "setpriority",
        "setrlimit",
        "setsockopt",
        "shmget",
        "socketpair",
    }
    for name, number in machine.named(ALLOWED):
        _said, codes = machine.run(number, 1)
        assert (codes.count(LOAD) > 2) == (name in held), name


def test_frequent_calls_are_answered_in_few_steps(machine: Machine) -> None:
    private = 0x22
    numbers = system_call_numbers(machine.name)
    for counted in (True, False):
        steps = {
            name: len(machine.run(numbers[name], 0, 0, 0, private, counted=counted)[1])
            for name in FREQUENT.split()
            if name in numbers
        }
        assert max(steps[name] for name in ("mmap", "read", "close", "openat", "newfstatat", "futex")) <= 11
        assert max(steps.values()) <= 18
    assert max(len(machine.run(number)[1]) for number in range(HIGHEST_NUMBER)) <= 30
