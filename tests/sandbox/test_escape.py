"""Escapes and snooping: what a program in a sandbox sees, and which errors it gets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from firebox.sandbox.instance import sandbox
from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.plan.cgroups import Meter
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import LONG_MESSAGE_BYTES, MESSAGE_BYTES, Kind
from firebox.sandbox.spec import Command, CommandRefused, InputFile, Pack, SandboxFailure
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, SOURCE, Box, follow
from tests.sandbox.raw_calls import raw_files

REFUSED = {"EPERM", "EACCES", "ENOENT", "EROFS", "ENOSYS", "ENOTSUP"}


async def told(box: Box, code: str, *names: str, **command: Any) -> dict[str, Any]:
    """Run Python code that imports `raw` and reports with `tell`. Returns the report."""
    outcome = await box.python(f"from raw import *\n{code}", files=raw_files(*names), **command)
    assert outcome.text, (outcome.error_text, outcome.exit)
    answers: dict[str, Any] = json.loads(outcome.text.splitlines()[-1])
    return answers


async def test_attack_55_nothing_of_pid_1_can_be_read(box: Box) -> None:
    answers = await told(
        box,
        """
def look(name):
    path = "/proc/1/" + name
    if os.path.isdir(path) and not os.path.islink(path):
        return attempt(lambda: sorted(os.listdir(path)))
    return attempt(lambda: os.readlink(path)) if os.path.islink(path) else read(path)
hidden = ["environ", "maps", "smaps", "smaps_rollup", "numa_maps", "mem", "auxv", "syscall", "stack", "io", "personality",
    "pagemap",
          "exe", "cwd", "root", "fd", "fdinfo", "map_files", "clear_refs", "patch_state", "timers"]
tell(hidden={name: look(name) for name in hidden if os.path.lexists("/proc/1/" + name)},
     links={name: attempt(lambda: os.readlink(f"/proc/1/ns/{name}")) for name in os.listdir("/proc/self/ns")},
     task=attempt(lambda: os.readlink("/proc/1/task/1/exe")), memory=attempt(lambda: os.open("/proc/1/mem", os.O_RDWR)),
     writable=[name for name in ("oom_score_adj", "comm", "clear_refs", "coredump_filter", "loginuid", "uid_map", "autogroup",
         "sched",
                                 "timerslack_ns", "attr/current") if not isinstance(write(f"/proc/1/{name}", "0"), str)],
     command=read("/proc/1/cmdline"), name=read("/proc/1/comm"), owner=os.stat("/proc/1/environ").st_uid)
""",
    )
    empty = {"timers", "patch_state"}
    assert {
        name: said for name, said in answers["hidden"].items() if said not in REFUSED and not (name in empty and not said)
    } == {}
    assert len(answers["hidden"]) > 15
    assert set(answers["links"].values()) <= REFUSED
    assert answers["task"] in REFUSED
    assert answers["memory"] in REFUSED
    assert answers["writable"] == []
    assert answers["owner"] != 1000  # not dumpable: its files belong to root
    assert str(SOURCE) not in answers["command"]
    assert "/" not in answers["command"]


async def test_attack_55_only_processes_of_the_sandbox_are_there(box: Box) -> None:
    answers = await told(
        box,
        """
tell(pids=sorted(int(name) for name in os.listdir("/proc") if name.isdigit()), own=os.getpid(), parent=os.getppid(),
     readable=[name for name in os.listdir("/proc") if name.isdigit() and isinstance(read(f"/proc/{name}/environ"), str)
               and "PATH=" in read(f"/proc/{name}/environ")])
""",
    )
    assert answers["pids"] == [1, answers["own"]]
    assert answers["parent"] == 1
    assert answers["readable"] == [str(answers["own"])]


async def test_attack_55_the_kernel_reveals_no_secrets(box: Box) -> None:
    answers = await told(
        box,
        """
masked = ["kcore", "keys", "key-users", "kmsg", "kallsyms", "timer_list", "sched_debug", "sysrq-trigger", "kpagecount",
    "kpageflags",
          "slabinfo", "vmallocinfo", "partitions", "diskstats", "swaps", "mtrr", "locks", "cmdline", "acpi", "scsi", "asound", "driver", "tty"]
def content(path):
    return attempt(lambda: os.listdir(path)) if os.path.isdir(path) else read(path)
tell(masked={name: content(f"/proc/{name}") for name in masked if os.path.lexists(f"/proc/{name}")},
     system={path: content(path) for path in ("/sys", "/sys/class/dmi/id", "/sys/firmware", "/sys/kernel", "/sys/fs/cgroup",
         "/boot")},
     pressure=content("/proc/pressure") if os.path.exists("/proc/pressure") else [],
     sysrq=attempt(lambda: os.open("/proc/sysrq-trigger", os.O_WRONLY)))
""",
    )
    assert {name: said for name, said in answers["masked"].items() if said not in ("", [], *REFUSED)} == {}
    assert {name: said for name, said in answers["system"].items() if said not in ([], "ENOENT")} == {}
    assert answers["pressure"] == []
    assert answers["sysrq"] in REFUSED


async def test_attack_56_pid_1_can_be_neither_killed_nor_traced_nor_starved(box: Box) -> None:
    answers = await told(
        box,
        """
import resource, signal, time
signals = {}
for number in range(1, 65):
    signals[number] = attempt(lambda: os.kill(1, number))
    call("tgkill", 1, 1, number)
    call("rt_sigqueueinfo", 1, number, ctypes.create_string_buffer(128))
pidfd = os.pidfd_open(1)
attempt(lambda: signal.pidfd_send_signal(pidfd, signal.SIGKILL))
buffer = ctypes.create_string_buffer(64)
vector = ctypes.create_string_buffer(ctypes.string_at(ctypes.addressof(buffer), 64))
refused = {
    "seize": call("ptrace", 0x4206, 1, 0, 0), "attach": call("ptrace", 16, 1, 0, 0),
    "read": call("process_vm_readv", 1, vector, 1, vector, 1, 0), "write": call("process_vm_writev", 1, vector, 1, vector, 1, 0),
    "getfd": call("pidfd_getfd", pidfd, 3, 0), "advise": call("process_madvise", pidfd, vector, 1, 20, 0),
    "kcmp": call("kcmp", 1, os.getpid(), 0, 0, 0), "pages": call("move_pages", 1, 0, 0, 0, 0, 0),
    "prlimit_read": attempt(lambda: resource.prlimit(1, resource.RLIMIT_CPU) and "read"),
    "prlimit_cpu": attempt(lambda: resource.prlimit(1, resource.RLIMIT_CPU, (0, 0)) and "set"),
    "prlimit_files": attempt(lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0)) and "set"),
    "prlimit_memory": attempt(lambda: resource.prlimit(1, resource.RLIMIT_AS, (0, 0)) and "set"),
}
open("artifact", "w").write("still served")
tell(refused=refused, alive=os.path.exists("/proc/1"), parent=os.getppid())
""",
        *(
            "tgkill",
            "rt_sigqueueinfo",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "process_madvise",
            "kcmp",
            "move_pages",
        ),
        collect=["artifact"],
    )
    assert set(answers["refused"].values()) == {"EPERM"}, answers["refused"]
    assert (answers["alive"], answers["parent"]) == (True, 1)


async def test_attack_56_pid_1_reports_and_returns_files_after_every_signal(box: Box) -> None:
    """Even during a flood of the only signal that it handles."""
    code = """
import os, signal
for number in range(1, 65):
    os.kill(1, number)
for _ in range(20_000):
    os.kill(1, signal.SIGCHLD)
if os.fork() == 0: signal.pause()
os.kill(-1, signal.SIGKILL)  # everybody but PID 1 and the caller
open("artifact", "w").write("x")
print("done"); raise SystemExit(7)
"""
    outcome = await box.python(code, collect=["artifact"])
    assert (outcome.text, outcome.exit.status, outcome.exit.killed_by) == ("done\n", 7, "")
    assert outcome.artifacts == {"artifact": b"x"}


async def test_attack_56_killing_all_processes_reaches_none_outside(box: Box) -> None:
    bystander = await asyncio.create_subprocess_exec("/bin/sleep", "60")
    outcome = await box.shell(f"kill -9 -1; kill -9 {bystander.pid} {os.getpid()} {os.getppid()} {box.launcher.pid}; true")
    assert outcome.exit.killed_by == ""
    assert bystander.returncode is None
    assert (await box.shell("echo served")).text == "served\n"
    bystander.kill()
    await bystander.wait()


async def test_attack_57_only_three_descriptors_and_nothing_behind_them(box: Box) -> None:
    code = """
import os
listed = {}
for name in os.listdir("/proc/self/fd"):
    try: listed[name] = os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError: pass
print(sorted((name, target.split(":")[0]) for name, target in listed.items()))
"""
    outcome = await box.python(code)
    assert outcome.text.strip() == str([(number, "pipe") for number in "012"])
    terminal = await box.python(code, terminal=(24, 80))
    assert terminal.text.strip() == str([(number, "/dev/pts/0") for number in "012"])
    plain = await box.shell("ls /proc/$$/fd | tr '\\n' ' '; env")
    descriptors, _, environment = plain.text.partition("\n")[0].partition(" PATH")
    assert set(descriptors.split()) - {"10", "255"} == {"0", "1", "2"} or "PATH" not in environment


async def test_attack_57_the_environment_contains_only_the_given_variables(box: Box) -> None:
    outcome = await box.run("/usr/bin/env", "-0", env={"GIVEN": "1"})
    found = dict(entry.split("=", 1) for entry in outcome.text.split("\0") if entry)
    assert found == {**ENVIRONMENT, "GIVEN": "1"}


async def test_attack_57_output_after_the_end_and_forged_reports_mean_nothing(box: Box) -> None:
    """Output that looks like a message of PID 1 is plain output."""
    forged = '{"exited":0,"cpu_ms":0,"exceeded":""}'
    outcome = await box.shell(f"echo '{forged}'; echo '{forged}' >&2; (sleep 5; echo late) & exit 3")
    assert outcome.text == outcome.error_text == forged + "\n"
    assert outcome.exit.status == 3


class FakeOwner:
    """The owner of the sandboxes of attack 58. Records its calls."""

    def __init__(self) -> None:
        self.null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self.watcher = Watcher()
        self.ended: list[int] = []
        self.killed: list[int] = []
        self.on_kill: list[int] = []

    def owns(self, number: int) -> bool:
        return number not in self.ended

    def end(self, number: int) -> None:
        self.ended.append(number)

    def defer(self, work: Callable[[], None]) -> None:
        work()

    def kill(self, number: int) -> None:
        self.killed.append(number)
        while self.on_kill:
            os.close(self.on_kill.pop())


class Peer:
    """A fake PID 1 that sends what a test wants: the other end of a sandbox's link and streams."""

    def __init__(self) -> None:
        self.owner = FakeOwner()
        theirs, self.link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        stdin_read, stdin_write = os.pipe()
        stdout_read, self.stdout = os.pipe()
        stderr_read, self.stderr = os.pipe()
        self.stdin = stdin_read
        self.sandbox = Sandbox(self.owner, 1, 0, theirs, [stdin_write, stdout_read, stderr_read], Meter({}))

    def say(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self.link, [message], descriptors)

    def end_streams(self) -> None:
        for descriptor in (self.stdout, self.stderr):
            os.close(descriptor)
        self.stdout = self.stderr = -1

    def close(self) -> None:
        self.sandbox.close()
        self.owner.watcher.close()
        self.link.close()
        for descriptor in (self.stdin, self.stdout, self.stderr, self.owner.null, *self.owner.on_kill):
            if descriptor >= 0:
                os.close(descriptor)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    await asyncio.sleep(0)
    before = len(open_descriptors())
    peer = Peer()
    yield peer
    peer.close()
    await asyncio.sleep(0)
    assert len(open_descriptors()) == before


COMMAND = Command(("true",), {})


async def fails(running: asyncio.Task[Any]) -> SandboxFailure:
    with pytest.raises(SandboxFailure) as caught:
        await asyncio.wait_for(running, 10)
    return caught.value


async def running_of(peer: Peer, command: Command = COMMAND) -> asyncio.Task[Any]:
    """Start a command and receive its message, like PID 1."""
    running = asyncio.create_task(follow(peer.sandbox, command, lambda _name, _data: None))
    await asyncio.sleep(0)
    _data, descriptors, _flags, _address = socket.recv_fds(peer.link, 1 << 20, 32)
    for descriptor in descriptors:
        os.close(descriptor)
    return running


STARTED = messages.pack(messages.Started(Kind.STARTED, 0))


def exited(status: int = 0, exceeded: int = 0, cpu_us: int = 0, memory_peak_bytes: int = 0) -> bytes:
    return messages.pack(messages.Exited(Kind.EXITED, status, exceeded, 0, cpu_us, memory_peak_bytes))


NONSENSE: dict[str, bytes] = {
    "less than a kind": b"\x0d\0",
    "text": b"started",
    "NUL": b"\0" * 10,
    "half a message": exited()[:20],
    "longer than a message": exited() + b"x" * (MESSAGE_BYTES + 100),
    "unknown": b"\xff" * 16,
    "exited before it started": exited(),
    "ready": messages.pack(messages.Ready(Kind.READY, 1)),
    "collect": messages.pack(messages.Collect(Kind.COLLECT, 0, 0, 0, 0, 0)),
    "long": messages.pack(messages.LongMessage(Kind.LONG, 0, 1 << 60)),
    "failed": messages.pack(messages.Failed(Kind.FAILED, 1, 99, 1 << 31, (1 << 32) - 1, 0)),
    "text of another length": messages.pack(messages.Failed(Kind.FAILED, 1, 1, 1, 1, 1 << 31)) + b"mount",
    "refused with text of another length": messages.pack(messages.Refused(Kind.REFUSED, 1, 1, 1 << 31)),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_attack_58_a_malformed_message_before_the_start_is_a_failure(peer: Peer, what: str) -> None:
    running = await running_of(peer)
    peer.say(NONSENSE[what], [peer.stdin, peer.stdout])
    await fails(running)


EXITS = {
    "too large": exited(256),
    "no such signal": exited(-200),
    "huge": exited((1 << 31) - 1),
    "smallest": exited(-(1 << 31)),
    "endless time": exited(cpu_us=1 << 63),
    "endless memory": exited(memory_peak_bytes=(1 << 64) - 1),
    "unknown limit": exited(exceeded=3),
}


@pytest.mark.parametrize("what", EXITS)
async def test_attack_58_a_malformed_end_is_a_failure(peer: Peer, what: str) -> None:
    running = await running_of(peer)
    peer.say(STARTED)
    peer.say(EXITS[what])
    peer.end_streams()
    await fails(running)


async def test_attack_58_a_malformed_end_after_the_output_is_a_failure(peer: Peer) -> None:
    """The streams have ended already, and the program was killed: it is a failure still, with its own reason."""
    running = await running_of(peer)
    peer.say(STARTED)
    peer.end_streams()
    await asyncio.sleep(0.05)
    peer.sandbox.kill("wall_time")
    peer.say(EXITS["too large"])
    failure = await fails(running)
    assert (failure.step, failure.detail) == ("exit", "malformed report")


@pytest.mark.parametrize("what", NONSENSE)
async def test_attack_58_a_malformed_message_during_the_run_ends_it(peer: Peer, what: str) -> None:
    running = await running_of(peer)
    peer.say(STARTED)
    peer.say(NONSENSE[what], [peer.stdin])
    peer.end_streams()
    if what == "exited before it started":  # a true report by now
        assert (await running).status == 0
    else:
        await fails(running)
        peer.say(exited())  # the other end is closed
        await asyncio.sleep(0)


async def test_attack_58_unexpected_descriptors_are_closed(peer: Peer) -> None:
    """Several, with every kind of message; they must not be used as a terminal either."""
    running = await running_of(peer)
    mine, other = os.pipe()
    peer.say(STARTED, [mine, other] * 10)
    os.close(other)
    assert await asyncio.to_thread(os.read, mine, 1) == b""  # every copy of the writing end is closed
    peer.say(exited(5, cpu_us=1500), [mine] * 5)
    peer.end_streams()
    ended = await asyncio.wait_for(running, 10)
    assert (ended.status, ended.cpu_ms) == (5, 1.5)
    os.close(mine)


async def test_attack_58_more_descriptors_than_a_terminal_needs_are_closed(peer: Peer) -> None:
    running = await running_of(peer, Command(("true",), {}, terminal=(24, 80)))
    mine, other = os.pipe()
    peer.say(STARTED, [mine] * 30)
    peer.say(exited())
    os.close(other)
    assert (await asyncio.wait_for(running, 10)).status == 0
    os.close(mine)


async def test_attack_58_a_terminal_that_does_not_arrive_is_a_failure(peer: Peer) -> None:
    running = await running_of(peer, Command(("true",), {}, terminal=(24, 80)))
    peer.say(STARTED)
    assert (await fails(running)).step == "terminal"


async def test_attack_58_a_refusal_of_any_shape_is_a_refusal(peer: Peer) -> None:
    running = await running_of(peer)
    peer.say(messages.pack(messages.Refused(Kind.REFUSED, 99, (1 << 32) - 1, 2)) + b"\xff\0", [peer.stdin])
    with pytest.raises(CommandRefused) as caught:
        await asyncio.wait_for(running, 10)
    assert caught.value.step == "start"


async def test_attack_58_silence_after_the_end_does_not_hold_a_run(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the exit report the streams stay open: their holder is killed."""
    monkeypatch.setattr(sandbox, "KILL_PATIENCE_S", 0.01)
    peer.owner.on_kill = [peer.stdout, peer.stderr]
    peer.stdout = peer.stderr = -1
    running = await running_of(peer)
    peer.say(STARTED)
    peer.say(exited())
    assert (await asyncio.wait_for(running, 10)).status == 0
    assert peer.owner.killed == [1]


async def test_attack_58_a_link_that_ends_is_a_failure(peer: Peer) -> None:
    running = await running_of(peer)
    peer.link.close()
    await fails(running)


async def test_a_kill_before_the_start_was_reported_is_no_failure(peer: Peer) -> None:
    running = await running_of(peer)
    peer.sandbox.kill("cancelled")
    peer.link.close()
    peer.end_streams()
    ended = await asyncio.wait_for(running, 10)
    assert (ended.status, ended.killed_by) == (None, "cancelled")


async def pack_of(peer: Peer, data: bytes, *, max_bytes: int = 1000, max_files: int = 10) -> Pack:
    """Let the sandbox collect files, and PID 1 respond with `data`."""
    running = await running_of(peer)
    peer.say(STARTED)
    peer.say(exited())
    peer.end_streams()
    await asyncio.wait_for(running, 10)
    collecting = asyncio.create_task(peer.sandbox.collect(["*"], max_bytes, max_files))
    await asyncio.sleep(0)
    _message, (sink,), _flags, _address = socket.recv_fds(peer.link, 1 << 20, 32)

    def write() -> None:
        with open(sink, "wb", buffering=0) as file:
            try:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            except BrokenPipeError:
                return  # the reader had seen enough

    writing = asyncio.create_task(asyncio.to_thread(write))
    try:
        pack, _skipped, _cpu_ms = await collecting
    finally:
        await writing
    return pack


def stream(*files: tuple[str, int, int], contents: bytes = b"") -> bytes:
    """Return a pack as PID 1 sends it. files: name, size, mode."""
    text = messages.Text()
    entries = [messages.pack(messages.CollectedFile(size, mode, text.add(name))) for name, size, mode in files]
    index = messages.pack(messages.CollectIndex(len(files), 0, text.bytes, 0, 0))
    return b"".join((index, *entries, text.encoded(), contents))


PACKS: dict[str, bytes] = {
    "nothing": b"",
    "half an index": stream()[:10],
    "a name that leaves": stream(("../a", 1, 0o644), contents=b"x"),
    "fewer bytes than said": stream(("a", 10, 0o644), contents=b"x"),
    "more bytes than allowed": stream(("a", 1_000_000, 0o644), contents=b"x" * 1_000_000),
    "more files than allowed": stream(*((f"{number}", 0, 0o644) for number in range(11))),
}
"""More in test_collect.py."""


@pytest.mark.parametrize("what", PACKS)
async def test_attack_58_a_malformed_pack_is_a_failure(peer: Peer, what: str) -> None:
    with pytest.raises(SandboxFailure) as caught:
        os.close((await pack_of(peer, PACKS[what])).descriptor)
    assert caught.value.step == "collect"


async def test_attack_58_a_good_pack_passes(peer: Peer) -> None:
    pack = await pack_of(peer, stream(("a", 1, 0o644), ("b/c", 0, 0o755), ("..d", 2, 0o600), contents=b"xyz"))
    assert [(file.name, os.pread(pack.descriptor, file.size, file.offset)) for file in pack.files] == [
        ("a", b"x"),
        ("b/c", b""),
        ("..d", b"yz"),
    ]
    os.close(pack.descriptor)


async def test_a_command_line_may_be_as_long_as_the_kernel_allows(box: Box) -> None:
    """Neither the message size nor the socket buffer limits it."""
    for size in (MESSAGE_BYTES - 10_000, MESSAGE_BYTES + 5000, 1_000_000):
        outcome = await box.run("/bin/sh", "-c", "echo $#", "sh", *["x" * 990] * (size // 1000))
        assert outcome.text == f"{size // 1000}\n"
    for size in (8_000_000, LONG_MESSAGE_BYTES + 1000):
        with pytest.raises(CommandRefused) as caught:
            await box.run("/bin/echo", *["x" * 1000] * (size // 1000))
        assert caught.value.errno == 7  # E2BIG


async def test_attack_59_no_namespace_can_be_made_or_entered(box: Box) -> None:
    answers = await told(
        box,
        """
flags = {"mnt": 0x20000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000, "pid": 0x20000000,
         "net": 0x40000000, "time": 0x80}
tell(unshare={name: call("unshare", flag) for name, flag in flags.items()},
     clone={name: call("clone", flag | 17, 0, 0, 0, 0) for name, flag in flags.items() if name != "time"},
     setns={name: call("setns", os.open(f"/proc/self/ns/{name}", os.O_RDONLY), 0) for name in flags if name != "time"},
     pidfd=call("setns", os.pidfd_open(1), 0x10000000),
     maps={name: write(f"/proc/self/{name}", "0 0 1") for name in ("uid_map", "gid_map", "setgroups")})
""",
        "unshare",
        "clone",
        "setns",
    )
    for name in ("unshare", "clone", "setns"):
        assert set(answers[name].values()) == {"EPERM"}, answers[name]
    assert answers["pidfd"] == "EPERM"
    assert set(answers["maps"].values()) <= {"EPERM", "EACCES", "EROFS"}


async def test_attack_60_nothing_can_be_mounted(box: Box) -> None:
    calls = ["mount", "umount2", "open_tree", "move_mount", "fsopen", "fsmount", "mount_setattr", "pivot_root", "chroot"]
    answers = await told(
        box,
        """
os.mkdir("m")
kinds = ["proc", "sysfs", "cgroup", "cgroup2", "tmpfs", "overlay", "bpf", "debugfs", "devtmpfs", "fuse", "ext4", "mqueue"]
tell(kinds={kind: call("mount", b"none", b"m", kind.encode(), 0, 0) for kind in kinds},
     bind=call("mount", b"/", b"m", 0, 0x1000, 0), remount=call("mount", b"none", b"/", 0, 0x20 | 0x1000, 0),
     shared=call("mount", b"none", b"/", 0, 0x100000, 0),
     others={name: call(name, b"m", b"m", 0, 0, 0) for name in numbers if name != "mount"})
""",
        *calls,
    )
    assert set(answers["kinds"].values()) == {"EPERM"}
    assert {answers["bind"], answers["remount"], answers["shared"], *answers["others"].values()} == {"EPERM"}


async def test_attack_60_mounts_made_inside_stay_inside(box: Box) -> None:
    """No other process sees the mounts of a sandbox, and the host's mounts are not in it."""
    before = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    outcome = await box.shell("cat /proc/self/mountinfo")
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == before
    assert "shared:" not in outcome.text
    points = [line.split()[4] for line in outcome.text.splitlines()]
    writable = {line.split()[4] for line in outcome.text.splitlines() if "rw" in line.split()[5].split(",")}
    assert writable <= {
        "/proc",
        "/dev/pts",
        "/tmp",
        "/dev/shm",
        "/run",
        "/home/firebox",
        "/box",
        *(f"/dev/{name}" for name in DEVICES),
    }
    assert len(points) == len([point for point in points if not point.startswith("/host")])


DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


async def test_attack_61_nothing_that_the_kernel_would_run_can_be_named(box: Box) -> None:
    answers = await told(
        box,
        """
paths = ["sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/hotplug", "sys/kernel/poweroff_cmd", "sys/kernel/hostname",
         "sys/kernel/domainname", "sys/vm/drop_caches", "sys/vm/overcommit_memory", "sys/fs/binfmt_misc/register", "sys/kernel/sysrq",
         "sys/fs/suid_dumpable", "sys/kernel/randomize_va_space", "sys/net/ipv4/ip_forward", "sys/user/max_user_namespaces",
         "sys/kernel/ns_last_pid", "irq/default_smp_affinity", "sysrq-trigger", "self/attr/exec", "bus/pci/devices", "fs/ext4"]
tell(opened=[path for path in paths if not isinstance(attempt(lambda: os.open("/proc/" + path, os.O_WRONLY)), str)],
     found=[path for path in paths if os.path.exists("/proc/" + path)],
     cgroup=[os.path.exists(path) for path in ("/sys/fs/cgroup", "/sys/fs/cgroup/release_agent")],
     walked=[os.path.join(folder, name) for top in ("/proc/sys", "/proc/fs", "/proc/bus", "/proc/irq") for folder, _,
         names in os.walk(top)
             for name in names if not isinstance(attempt(lambda: os.open(os.path.join(folder, name),
                 os.O_WRONLY | os.O_NONBLOCK)), str)])
""",
    )
    assert [path for path in answers["opened"] if path != "self/attr/exec"] == []
    assert answers["walked"] == []
    assert answers["cgroup"] == [False, False]
    assert len(answers["found"]) > 8


async def test_attack_62_its_own_cgroup_is_out_of_reach(box: Box) -> None:
    answers = await told(
        box,
        """
import glob
tell(paths=read("/proc/self/cgroup").split(), of_pid_1=read("/proc/1/cgroup").split(),
     files=glob.glob("/sys/fs/cgroup/**", recursive=True) + glob.glob("/sys/**/cgroup.procs", recursive=True),
     score=[write("/proc/self/oom_score_adj", value) for value in ("-1000", "-1", "0", "499", "1000")],
     kept=read("/proc/self/oom_score_adj"))
""",
    )
    assert all(line.endswith(":/") or ".." not in line for line in answers["paths"])
    assert not any("firebox" in line for line in answers["paths"] + answers["of_pid_1"])
    assert answers["files"] in ([], ["/sys/fs/cgroup/"])
    # Without CAP_SYS_RESOURCE the kernel would allow it, so the file is not writable at all.
    assert answers["score"] in (["EROFS"] * 5, ["EACCES"] * 4 + [4]), "the kernel must take a sandbox before the server"
    assert int(answers["kept"]) == 1000


async def test_attack_62_the_kernel_kills_the_program_first(box: Box) -> None:
    answers = await told(box, 'tell(own=read("/proc/self/oom_score_adj"), one=read("/proc/1/oom_score_adj"))')
    assert (int(answers["own"]), int(answers["one"])) == (1000, 500)


async def test_attack_63_no_device_but_six_harmless_ones(box: Box) -> None:
    answers = await told(
        box,
        """
import stat
wanted = {"mem": (1, 1), "kmem": (1, 2), "port": (1, 4), "kmsg": (1, 11), "kvm": (10, 232), "fuse": (10, 229), "uinput": (10,
    223),
          "tun": (10, 200), "loop0": (7, 0), "sda": (8, 0), "vda": (254, 0), "nvram": (10, 144)}
made = {}
for name, (major, minor) in wanted.items():
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        made[f"{name} {kind}"] = attempt(lambda: os.mknod(f"/tmp/{name}{kind}", kind | 0o666, os.makedev(major, minor)))
def nodes():
    for folder, _, names in os.walk("/dev"):
        for name in names:
            path = os.path.join(folder, name)
            if stat.S_ISCHR(os.lstat(path).st_mode) or stat.S_ISBLK(os.lstat(path).st_mode): yield path
tell(made=made, nodes=sorted(nodes()), opened={name: attempt(lambda: os.open(f"/dev/{name}", os.O_RDWR)) for name in wanted})
""",
    )
    assert set(answers["made"].values()) == {"EPERM"}
    assert answers["nodes"] == sorted([*(f"/dev/{name}" for name in DEVICES), "/dev/pts/ptmx"])
    assert set(answers["opened"].values()) <= {"ENOENT", "EROFS"}


async def test_one_sandbox_cannot_use_up_all_terminals(box: Box) -> None:
    answers = await told(
        box,
        """
opened = []
said = ""
while not isinstance(said, str) or not said:
    said = attempt(lambda: opened.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)))
tell(count=len(opened), said=said)
""",
    )
    assert answers == {"count": 64, "said": "ENOSPC"}


async def test_attack_66_the_machine_stays_as_it_is(box: Box) -> None:
    """test_filter has every call; these are a few that a program would notice."""
    answers = await told(
        box,
        """
import socket, time
tell(name=attempt(lambda: socket.sethostname("other")), host=socket.gethostname(), clock=attempt(lambda: time.clock_settime(0,
    1.0)),
     priority=attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
     realtime=attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
     personality=[call("personality", value) for value in (0xFFFFFFFF, 0x0040000, 0x0400000, 8)])
""",
        "personality",
    )
    assert answers["host"] == "firebox"
    assert [answers[name] for name in ("name", "clock", "realtime")] == ["EPERM"] * 3
    assert answers["priority"] in ("EPERM", "EACCES")
    assert answers["personality"] == [0, "ENOSYS", "ENOSYS", "ENOSYS"]
    assert socket.gethostname() != "firebox"


async def test_attack_68_only_ordinary_sockets(box: Box) -> None:
    answers = await told(
        box,
        """
import socket
families = {number: attempt(lambda: socket.socket(number, socket.SOCK_DGRAM) and "made") for number in range(46)}
netlink = {f"{kind} {protocol}": attempt(lambda: socket.socket(16, kind, protocol) and "made")
           for kind in (1, 2, 3, 4, 5) for protocol in (*range(33), 1 << 8, 1 << 30)}
raw = {f"{family} {protocol}": attempt(lambda: socket.socket(family, socket.SOCK_RAW, protocol) and "made")
       for family in (2, 10) for protocol in (0, 1, 6, 255)}
odd = {f"{family} {kind} {protocol}": attempt(lambda: socket.socket(family, kind, protocol) and "made")
       for family in (2, 10) for kind, protocol in ((1, 132), (5, 132), (5, 0), (6, 33), (1, 262), (2, 115), (2, 136), (10,
           0), (4, 0), (1, 200))}
made = {"tcp": socket.socket(2, 1), "tcp6": socket.socket(10, 1), "udp": socket.socket(2, 2), "unix": socket.socket(1, 1)}
made["tcp"].bind(("127.0.0.1", 0)); made["tcp"].listen()
client = socket.create_connection(made["tcp"].getsockname())
tls = attempt(lambda: client.setsockopt(6, 31, b"tls"))
import fcntl
ioctls = {hex(number): attempt(lambda: fcntl.ioctl(client, number, bytes(64)) and "done") for number in (0x8940, 0x8941,
    0x8982, 0x8983, 0x89A0, 0x89A1)}
tell(families=families, netlink=netlink, raw=raw, odd=odd, tls=tls, ioctls=ioctls)
""",
    )
    made = {number for number, said in answers["families"].items() if said == "made"}
    assert made == {"1", "2", "10", "16"}
    assert {name for name, said in answers["netlink"].items() if said == "made"} == {"2 0", "3 0"}  # NETLINK_ROUTE
    assert set(answers["netlink"].values()) == {"made", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"}
    assert set(answers["raw"].values()) <= {"EPERM", "EPROTONOSUPPORT"}
    assert set(answers["odd"].values()) <= {"EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENOSYS"}
    assert answers["tls"] == "ENOENT"
    assert set(answers["ioctls"].values()) == {"EPERM"}


async def test_attack_69_the_root_is_the_root(box: Box) -> None:
    answers = await told(
        box,
        """
kept = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
os.mkdir("jail")
refused = call("chroot", b"jail")
os.fchdir(kept)
for _ in range(100): os.chdir("..")
links = {name: attempt(lambda: os.listdir(f"/proc/self/{name}")) for name in ("root", "cwd")}
tell(refused=refused, top=sorted(os.listdir(".")), root=links["root"] == os.listdir("/"), host=os.path.exists("/host"),
     same=os.stat(".").st_ino == os.stat("/").st_ino, thread=sorted(os.listdir("/proc/thread-self/root")) == sorted(os.listdir("/")))
""",
        "chroot",
    )
    assert answers["refused"] == "EPERM"
    assert (answers["root"], answers["host"], answers["same"], answers["thread"]) == (True, False, True, True)
    assert set(answers["top"]) <= {
        *(
            "bin",
            "box",
            "dev",
            "etc",
            "home",
            "lib",
            "lib32",
            "lib64",
            "libx32",
            "proc",
            "run",
            "sbin",
            "sys",
            "tmp",
            "usr",
            "var",
        ),
        *(".ahead", ".mask"),
    }


async def test_attack_70_set_uid_programs_gain_nothing(box: Box) -> None:
    answers = await told(
        box,
        """
import shutil, subprocess
def whole(*words):
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode
shutil.copy("/usr/bin/id", "suid"); os.chmod("suid", 0o6755)
effective = subprocess.run(["./suid", "-u"], capture_output=True, text=True).stdout.strip()
tools = {name: whole(name, *words) for name, *words in (
    ("su", "-c", "id"), ("mount", "-t", "tmpfs", "none", "/tmp"), ("newuidmap", "1", "0", "0",
        "1"), ("passwd",), ("chsh",), ("sudo", "-n", "id"))
    if shutil.which(name)}
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
tell(effective=effective, own=str(os.getuid()), tools=tools, nnp=status["NoNewPrivs"].strip(),
     setuid=[attempt(lambda: os.setuid(number)) for number in (0, 1, 65534, 210000)],
     setgid=attempt(lambda: os.setgid(0)), groups=attempt(lambda: os.setgroups([0])), chown=attempt(lambda: os.chown("suid",
         0, 0)))
""",
    )
    assert answers["effective"] == answers["own"] == "1000"
    assert all(code != 0 for code in answers["tools"].values()), answers["tools"]
    assert answers["nnp"] == "1"
    assert set(answers["setuid"]) | {answers["setgid"], answers["groups"], answers["chown"]} <= {"EPERM", "EINVAL"}


async def test_attack_71_no_groups_no_capabilities_locked_securebits(box: Box) -> None:
    answers = await told(
        box,
        """
status = dict(line.strip().split(":", 1) for line in open("/proc/self/status") if ":" in line)
tell(capabilities={name: status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
     groups=os.getgroups(), ids=[os.getresuid(),
         os.getresgid()], seccomp=status["Seccomp"].strip(), filters=status["Seccomp_filters"].strip(),
     securebits=libc.prctl(27, 0, 0, 0, 0), unlocked=libc.prctl(28, 0, 0, 0, 0), ambient=libc.prctl(47, 2, 0, 0,
         0), bounding=libc.prctl(23, 0, 0, 0, 0))
""",
    )
    assert set(answers["capabilities"].values()) == {"0" * 16}
    # Rootless without subordinate gids the kernel forbids to drop groups; this launcher was started without any.
    assert answers["groups"] == []
    assert answers["ids"] == [[1000] * 3, [1000] * 3]
    assert (answers["seccomp"], answers["filters"]) == ("2", "1")
    assert answers["securebits"] == 0b11101111
    assert (answers["unlocked"], answers["ambient"], answers["bounding"]) == (-1, -1, 0)


async def test_attack_72_a_program_from_memory_is_confined_like_any_other(box: Box) -> None:
    """Programs may run from memory or through the loader: isolation does not depend on the file system."""
    answers = await told(
        box,
        """
import glob, subprocess
try:
    descriptor = os.memfd_create("program")
except OSError:  # not where no cgroup counts memory: there a file without a name does
    descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o700)
os.write(descriptor, open("/usr/bin/env", "rb").read())
written, descriptor = descriptor, os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
os.close(written)
pid = os.fork()
if pid == 0:
    os.execve(descriptor, ["env", "/bin/true"], {"PATH": "/usr/bin:/bin"})
ran = os.waitpid(pid, 0)[1]
loader = (glob.glob("/lib64/ld-linux*") + glob.glob("/lib/ld-linux*"))[0]
status = subprocess.run([loader, "/usr/bin/cat", "/proc/self/status"], capture_output=True, text=True).stdout
tell(ran=ran, held=[line for line in status.splitlines() if line.startswith(("CapEff", "NoNewPrivs", "Seccomp:"))])
""",
    )
    assert answers["ran"] == 0
    assert [line.split()[1] for line in answers["held"]] == ["0" * 16, "1", "2"]


async def test_no_crash_calls_the_crash_handler_of_the_host(box: Box) -> None:
    """Only a core limit of one byte stops a piped core_pattern; lowering it to 0 succeeds and is ignored."""
    answers = await told(
        box,
        """
import resource, subprocess
before = resource.getrlimit(resource.RLIMIT_CORE)
raised = attempt(lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
child = subprocess.run(["/bin/sh", "-c", "ulimit -c 0; echo $?; kill -SEGV $$"], capture_output=True, text=True)
both = attempt(lambda: resource.prlimit(0, resource.RLIMIT_CORE, (0, 0)))
tell(before=before, raised=raised, after=resource.getrlimit(resource.RLIMIT_CORE), child=child.stdout.strip(),
    code=child.returncode,
     both=both, left=sorted(name for name in os.listdir(".") if "core" in name))
""",
    )
    assert answers["before"] == answers["after"] == [1, 1]
    assert answers["raised"] is None
    assert answers["both"] == "EPERM"
    assert (answers["child"], answers["code"]) == ("0", -signal.SIGSEGV)
    assert answers["left"] == []


async def test_limits_of_the_launcher_are_not_raised(box: Box) -> None:
    answers = await told(
        box,
        """
import resource
names = ["CORE", "MEMLOCK", "MSGQUEUE", "SIGPENDING", "NICE", "RTPRIO", "NOFILE", "FSIZE", "NPROC", "CPU"]
tell(limits={name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names})
""",
        open_files=64,
        processes=20,
        file_size_bytes=4096,
        cpu_ms=3000,
    )
    limits = answers["limits"]
    assert limits["NOFILE"] == [64, 64]
    assert limits["FSIZE"] == [4096, 4096]
    assert limits["NPROC"] == [21, 21]
    assert limits["CPU"] == [5, 5]
    assert limits["CORE"] == [1, 1]
    assert limits["RTPRIO"] == limits["NICE"] == [0, 0]


def cpu_limit(pid: int) -> list[str]:
    """The soft and the hard RLIMIT_CPU of a process."""
    lines = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("Max cpu time"))
    return line.split()[3:5]


async def test_pid_1_is_exempt_from_the_cpu_limit_of_the_program(box: Box) -> None:
    """Sampling many sleeping processes takes CPU time of PID 1; its own RLIMIT_CPU must not kill it."""
    sandbox = await box.make()
    code = b"import time\nprint('up', flush=True)\ntime.sleep(60)"
    up = asyncio.Event()
    ran = Command((PYTHON, "main.py"), ENVIRONMENT, files=(InputFile("main.py", code),), cpu_ms=1000, wall_ms=60_000)
    running = asyncio.create_task(follow(sandbox, ran, lambda _name, _data: up.set()))
    await asyncio.wait_for(up.wait(), 20)
    children = Path(f"/proc/{sandbox.pid}/task/{sandbox.pid}/children").read_text(encoding="ascii").split()
    assert cpu_limit(sandbox.pid) == ["unlimited", "unlimited"]
    assert cpu_limit(int(children[0])) == ["3", "3"]
    sandbox.kill("cancelled")
    await running
    sandbox.close()


async def test_the_host_shows_only_what_toolchains_need(box: Box) -> None:
    outcome = await box.shell(
        "ls -a /etc /home /root /boot /mnt /media /srv /opt /var /run /tmp 2>/dev/null; cat /etc/passwd /etc/group /etc/hostname /etc/machine-id"
    )
    for word in ("shadow", "gshadow", "sudoers", "ssh", "crontab", "cron.d", "fstab", "docker.sock", "systemd"):
        assert word not in outcome.text.split(), word
    assert "firebox:x:1000:1000:" in outcome.text
    own = Path("/etc/passwd").read_text(encoding="utf-8").splitlines()
    ordinary = {line.split(":")[0] for line in own} - {"root", "nobody"}
    assert not {line.split(":")[0] for line in outcome.text.splitlines() if ":x:" in line} & ordinary
    real = Path("/etc/machine-id")
    if real.exists() and real.read_text(encoding="ascii").strip():
        assert real.read_text(encoding="ascii").strip() not in outcome.text


async def test_files_that_are_not_world_readable_stay_unreadable(box: Box, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the visible trees. Rootless without subordinate uids the program runs as the starting user, with that user's permissions."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a file of another user")
    folder = Path("/usr/local/share") / f"firebox-test-{os.getpid()}-{box.kind}"
    folder.mkdir()
    try:
        (folder / "secret").write_text("secret", encoding="ascii")
        (folder / "secret").chmod(0o640)
        (folder / "own").write_text("own", encoding="ascii")
        os.chown(folder / "own", 65533, 65533)
        (folder / "own").chmod(0o600)
        folder.chmod(0o755)
        outcome = await box.shell(f"cat {folder}/secret; cat {folder}/own; echo x > {folder}/own; rm {folder}/own")
        assert "secret" not in outcome.text
        assert ("own" in outcome.text) == (box.kind == "rootless")
        assert (folder / "own").read_text(encoding="ascii") == "own"
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
