"""Two sandboxes, concurrent or one after the other: nothing of one is visible in the other.

Each attack leaves something in a first sandbox that keeps it open, and looks for it from a second one of the same launcher
while the first still runs, and from a third one after it has ended. Attack 84, what two programs can learn from load, timing,
counters of the whole machine and the page cache, is documented in SECURITY.md and not promised.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.spec import Command, Exit, InputFile
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, Box, follow, launcher_of
from tests.sandbox.conversation import talk_python
from tests.sandbox.raw_calls import raw_files

SHARED_FILE = "/usr/bin/env"


@dataclass
class Holder:
    """A program that has acted, reported it, and waits until its input ends."""

    sandbox: Sandbox
    running: asyncio.Task[Exit]
    said: list[bytes]

    @property
    def words(self) -> Any:
        return json.loads(b"".join(self.said))

    async def end(self) -> Exit:
        self.sandbox.close_stdin()
        return await self.running


@contextlib.asynccontextmanager
async def holding(launcher: LauncherProcess, box: Box, code: str, *names: str) -> AsyncGenerator[Holder]:
    """Run `code` in a sandbox of `launcher` until it calls `hold(...)`, where it waits."""
    sandbox = await Box(launcher, box.kind).make()
    files = {
        **raw_files(*names),
        "main.py": "from raw import *\nimport sys\ndef hold(**values):\n    print(json.dumps(values), flush=True)\n    sys.stdin.read()\n"
        + code,
    }
    inputs = tuple(InputFile(name, text.encode() if isinstance(text, str) else text) for name, text in files.items())
    command = Command((PYTHON, "main.py"), ENVIRONMENT, files=inputs, interactive=True, wall_ms=60_000, cpu_ms=60_000)
    said: list[bytes] = []
    ready = asyncio.Event()

    def take(_name: str, data: bytes) -> None:
        said.append(data)
        if data.endswith(b"\n"):
            ready.set()

    running = asyncio.create_task(follow(sandbox, command, take))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    assert ready.is_set(), (running, said)
    holder = Holder(sandbox, running, said)
    try:
        yield holder
    finally:
        sandbox.kill("cancelled")
        with contextlib.suppress(Exception):
            await running
        sandbox.close()


async def look(box: Box, code: str, *names: str, files: dict[str, bytes | str] | None = None) -> Any:
    outcome = await box.python("from raw import *\n" + code, files={**raw_files(*names), **(files or {})})
    assert outcome.exit.status == 0, outcome.error_text
    return json.loads(outcome.text)


async def both(box: Box, deed: str, search: str, *names: str) -> tuple[Any, Any, Any]:
    """Act in one sandbox, search in a second one meanwhile, and in a third one afterwards."""
    async with holding(box.launcher, box, deed, *names) as holder:
        during = await look(box, search, *names)
        words = holder.words
        await holder.end()
    return words, during, await look(box, search, *names)


WRITE_EVERYWHERE = """
places = ["/dev/shm", "/tmp", "/var/tmp", "/run", "/run/lock", "/var/lock", os.environ["HOME"], "/box", "/home/firebox"]
made = []
for number, place in enumerate(places):
    open(f"{place}/left-{number}", "w").write("secret"); made.append(f"{place}/left-{number}")
for place in ("/var/spool", "/var/spool/cron", "/etc/cron.d", "/var/mail", "/var/cache", "/var/lib",
    "/usr/lib/python3/dist-packages",
              "/usr/local/lib", "/etc", "/usr/bin", "/dev", "/", "/proc", "/sys", "/home", "/opt"):
    if not isinstance(attempt(lambda: open(f"{place}/left", "w").close()), str): made.append(place)
hold(made=made)
"""
FIND_LEFT = """
found = []
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/usr")]
    found += [os.path.join(folder, name) for name in names if name.startswith("left")]
tell(found=found, usage={place: os.statvfs(place).f_blocks - os.statvfs(place).f_bfree for place in ("/tmp", "/dev/shm", "/box")})
"""


async def test_attacks_73_80_files_are_nowhere_to_be_found(box: Box) -> None:
    """In /dev/shm, /tmp, /var/tmp, /run/lock, $HOME, spools and crontabs."""
    made, during, after = await both(box, WRITE_EVERYWHERE, FIND_LEFT)
    assert len(made["made"]) == 9  # what cannot be written is not among them
    assert during["found"] == after["found"] == []
    assert during["usage"] == after["usage"]
    assert not list(Path("/dev/shm").glob("left-*")) + list(Path("/tmp").glob("left-*"))


SYSTEM_V = """
key = 0x46697265
create = 0o1666
memory, semaphore, queue = (call("shmget", key, 4096, create), call("semget", key, 1, create), call("msgget", key, create))
sent = call("msgsnd", queue, (1).to_bytes(8, "little") + b"secret", 6, 0)
hold(made=[memory, semaphore, queue], sent=sent)
"""
FIND_SYSTEM_V = """
key = 0x46697265
tell(found=[call("shmget", key, 1, 0), call("semget", key, 1, 0), call("msgget", key, 0)],
     listed={name: len(read(f"/proc/sysvipc/{name}").splitlines()) - 1 for name in ("shm", "sem", "msg")},
     by_number=[call("shmctl", 0, 2, ctypes.create_string_buffer(256)), call("msgctl", 0, 2, ctypes.create_string_buffer(256))])
"""


async def test_attack_74_system_v_memory_semaphores_and_queues(box: Box) -> None:
    made, during, after = await both(box, SYSTEM_V, FIND_SYSTEM_V, "shmget", "semget", "msgget", "msgsnd", "shmctl", "msgctl")
    assert all(isinstance(number, int) for number in made["made"])
    assert made["sent"] == 0
    for seen in (during, after):
        assert seen["found"] == ["ENOENT"] * 3
        assert seen["listed"] == {"shm": 0, "sem": 0, "msg": 0}
        assert seen["by_number"] == ["EINVAL"] * 2


async def test_attack_75_posix_message_queues(box: Box) -> None:
    deed = 'queue = call("mq_open", b"firebox-left", os.O_CREAT | os.O_RDWR, 0o666, 0)\nhold(made=queue)'
    search = 'tell(found=call("mq_open", b"firebox-left", os.O_RDWR, 0, 0))'
    made, during, after = await both(box, deed, search, "mq_open")
    assert isinstance(made["made"], int)
    assert during["found"] == after["found"] == "ENOENT"


async def test_attack_76_keyrings(box: Box) -> None:
    """Keyrings belong to a user, not to a namespace; no sandbox can use them."""
    deed = 'hold(made=call("add_key", b"user", b"left", b"secret", 6, (-4) & 0xFFFFFFFF))'
    search = """
tell(found=[call("request_key", b"user", b"left", 0, 0), call("keyctl", 0, (-3) & 0xFFFFFFFF, 0), call("keyctl", 10, 0, 0)],
     listed=read("/proc/keys"), users=read("/proc/key-users"))
"""
    made, during, after = await both(box, deed, search, "add_key", "request_key", "keyctl")
    assert made["made"] == "EPERM"
    for seen in (during, after):
        assert seen["found"] == ["EPERM"] * 3
        assert seen["listed"] in ("", "ENOENT")
        assert seen["users"] in ("", "ENOENT")


ABSTRACT = """
import socket
server = socket.socket(socket.AF_UNIX); server.bind("\\0firebox-left"); server.listen()
datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); datagrams.bind("\\0firebox-left-datagrams")
named = socket.socket(socket.AF_UNIX); named.bind("/tmp/left.sock"); named.listen()
tcp = socket.create_server(("127.0.0.1", 45455)); tcp6 = socket.create_server(("::1", 45455), family=socket.AF_INET6)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("0.0.0.0", 45456))
hold(made=True)
"""
FIND_SOCKETS = """
import socket
def reach(family, kind, address):
    return attempt(lambda: socket.socket(family, kind).connect(address) or "reached")
def bound(family, kind, address):
    return attempt(lambda: socket.socket(family, kind).bind(address) or "free")
stream, datagram, unix, inet, inet6 = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.AF_UNIX, socket.AF_INET, socket.AF_INET6
tell(reached=[reach(unix, stream, "\\0firebox-left"), reach(unix, datagram, "\\0firebox-left-datagrams"), reach(unix, stream,
    "/tmp/left.sock"),
              reach(inet, stream, ("127.0.0.1", 45455)), reach(inet6, stream, ("::1", 45455)), reach(inet, stream,
                  ("127.1.2.3", 45455))],
     bound=[bound(unix, stream, "\\0firebox-left"), bound(inet, stream, ("127.0.0.1", 45455)), bound(inet, datagram,
         ("0.0.0.0", 45456))],
     listed=[line for name in ("unix", "tcp", "tcp6", "udp") for line in read(f"/proc/net/{name}").splitlines()[1:]])
"""


async def test_attacks_77_82_sockets_of_every_kind(box: Box) -> None:
    """Abstract and named unix sockets, and listeners on loopback."""
    _made, during, after = await both(box, ABSTRACT, FIND_SOCKETS)
    for seen in (during, after):
        assert seen["reached"] == ["ECONNREFUSED", "ECONNREFUSED", "ENOENT", "ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED"]
        assert seen["bound"] == ["free"] * 3
        assert not [line for line in seen["listed"] if "firebox-left" in line]


async def test_attack_77_abstract_sockets_of_the_host_are_not_there(box: Box) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0firebox-test-{os.getpid()}-{box.kind}")
        server.listen()
        seen = await look(
            box,
            f"""
import socket
tell(reached=attempt(lambda: socket.socket(socket.AF_UNIX).connect("\\0firebox-test-{os.getpid()}-{box.kind}") or "reached"),
     listed=[line.split()[-1] for line in read("/proc/net/unix").splitlines()[1:] if "@" in line])
""",
        )
    assert seen == {"reached": "ECONNREFUSED", "listed": []}


LOCKS = f"""
import fcntl
shared = [path for path in ("{SHARED_FILE}", "/usr/bin", "/usr/lib", "/etc/passwd", "/etc", "/", "/dev/zero",
    "/proc/version") if os.path.exists(path)]
kept = {{path: os.open(path, os.O_RDONLY) for path in shared}}
taken = {{path: attempt(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) or "taken") for path,
    descriptor in kept.items()}}
import struct
region = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0)
records = {{path: attempt(lambda: fcntl.fcntl(descriptor, 6, region) and "taken") for path,
    descriptor in kept.items() if os.path.isfile(path)}}
leases = {{path: attempt(lambda: fcntl.fcntl(descriptor, 1024, fcntl.F_RDLCK)) for path,
    descriptor in kept.items() if os.path.isfile(path)}}
"""


async def test_attack_78_locks_and_leases_on_shared_read_only_files(box: Box) -> None:
    """Each sandbox has inodes of its own (see the decision on private inodes), so an exclusive lock holds in one only.

    Rootless the six device nodes are the host's own, bound over: locks on them are shared, and listed in SECURITY.md.
    """
    deed = LOCKS + "hold(taken=taken, records=records, leases=leases)"
    search = LOCKS + 'tell(taken=taken, records=records, leases=leases, listed=read("/proc/locks"))'
    made, during, after = await both(box, deed, search)
    private = {path for path in made["taken"] if path != "/dev/zero" or box.kind == "root"}
    private.discard("/proc/version")  # a procfs for each PID namespace: checked too, but the kernel may refuse to lock it
    for seen in (made, during, after):
        assert {path: said for path, said in seen["taken"].items() if path in private and said != "taken"} == {}
        assert set(seen["records"].values()) <= {"taken", "EBADF", "EINVAL"}
        # Only an owner may take one: rootless the synthetic /etc belongs to the starting user, separately in each sandbox.
        assert set(seen["leases"].values()) <= {"EACCES", "EINVAL", "EPERM"} | ({0} if box.kind == "rootless" else set())
    assert during["listed"] == after["listed"] == ""  # /proc/locks would show some locks of the whole machine
    if box.kind == "rootless":
        assert during["taken"]["/dev/zero"] in ("EAGAIN", "taken")


async def test_attack_78_a_lock_of_the_host_is_not_seen_and_none_of_ours_reaches_it(box: Box) -> None:
    with open(SHARED_FILE, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        async with holding(box.launcher, box, LOCKS + "hold(taken=taken)") as holder:
            assert holder.words["taken"][SHARED_FILE] == "taken"
            fcntl.flock(file, fcntl.LOCK_UN)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


WATCH = f"""
import select, struct
watcher = libc.inotify_init1(os.O_NONBLOCK)
watched = [path for path in ("{SHARED_FILE}", "/usr/bin", "/etc", "/etc/passwd", "/", "/tmp", "/dev/shm",
    "/dev") if os.path.exists(path)]
numbers = {{libc.inotify_add_watch(watcher, path.encode(), 0xFFF): path for path in watched}}
print(json.dumps(len(numbers)), flush=True)
sys.stdin.read(1)
events = b""
try: events = os.read(watcher, 65536)
except BlockingIOError: pass
seen = sorted({{numbers.get(struct.unpack_from("i", events)[0], "?")}}) if events else []
print(json.dumps(seen), flush=True)
sys.stdin.read()
"""
TOUCH = f"""
import subprocess
for _ in range(20):
    open("{SHARED_FILE}", "rb").read(); os.listdir("/usr/bin"); os.listdir("/etc"); open("/etc/passwd").read()
    os.listdir("/"); os.listdir("/dev")
    open("/dev/shm/x", "w").close(); open("/tmp/x", "w").close()
subprocess.run(["{SHARED_FILE}", "/bin/true"])
tell(done=True)
"""


async def test_attack_79_watches_on_shared_trees_see_nothing_of_others(box: Box) -> None:
    async with holding(box.launcher, box, WATCH) as holder:
        assert holder.words >= 6
        await look(box, TOUCH)
        for path in (SHARED_FILE, "/etc/passwd"):
            Path(path).read_bytes()  # by the host
        holder.said.clear()
        await holder.sandbox.write_stdin(b"x")
        await holder.end()
        assert holder.words == []


async def test_attack_79_fanotify_is_refused(box: Box) -> None:
    seen = await look(
        box,
        'tell(init=call("fanotify_init", 0, 0), mark=call("fanotify_mark", 0, 1, 1, 0, b"/"))',
        "fanotify_init",
        "fanotify_mark",
    )
    assert seen == {"init": "EPERM", "mark": "EPERM"}


async def test_attack_81_a_daemon_does_not_outlive_the_response(box: Box) -> None:
    """Forked twice, in a session of its own, ignoring signals and without the streams of the run."""
    code = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        os.closerange(0, 3)
        open("up", "w").close()
        while True: time.sleep(60)
    os._exit(0)
while not os.path.exists("up"): pass
"""
    sandbox = await box.make()
    ended = await follow(
        sandbox,
        Command((PYTHON, "main.py"), ENVIRONMENT, files=(InputFile("main.py", code.encode()),), wall_ms=30_000),
        lambda _name, _data: None,
    )
    assert (ended.status, ended.killed_by) == (0, "")
    # Only PID 1 is left to return files, without any children.
    assert Path(f"/proc/{sandbox.pid}/task/{sandbox.pid}/children").read_text(encoding="ascii") == ""
    pid = sandbox.pid
    sandbox.close()
    await box.launcher.ended(sandbox.number)
    assert not Path(f"/proc/{pid}").exists()


async def test_attack_81_a_daemon_does_not_outlive_a_kill(box: Box) -> None:
    async with holding(
        box.launcher,
        box,
        "import time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid(); time.sleep(600)\nhold(made=True)",
    ) as holder:
        pid = holder.sandbox.pid
        holder.sandbox.kill("cancelled")
        assert (await holder.running).killed_by == "cancelled"
        holder.sandbox.close()
        await box.launcher.ended(holder.sandbox.number)
        assert not Path(f"/proc/{pid}").exists()


async def test_attack_83_every_run_starts_from_the_same_state_and_no_secret_of_an_earlier_one(box: Box) -> None:
    """Working directory, umask, limits, signals and environment are equal; addresses and seeds are not."""
    code = """
import resource, signal, sys
status = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status") if ":" in line)
tell(same=[os.getcwd(), sorted(os.environ), status["Umask"], status["SigBlk"], status["SigIgn"], status["SigCgt"],
    os.getpid(), os.getpgrp() == os.getsid(0),
           [resource.getrlimit(number) for number in range(16)], os.listdir("/tmp"), os.getpriority(os.PRIO_PROCESS,
               0), sorted(os.sched_getaffinity(0))],
     other=[[line.split("-")[0] for line in open("/proc/self/maps") if "[stack]" in line], hash("x"), os.urandom(8).hex(),
         read("/proc/sys/kernel/random/uuid")])
"""
    spoil = """
os.umask(0o777); os.environ["LEFT"] = "x"; os.chdir("/tmp"); os.nice(5); open("/tmp/left", "w").close()
import resource, signal
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)); signal.signal(signal.SIGTERM, signal.SIG_IGN); os.sched_setaffinity(0,
    {min(os.sched_getaffinity(0))})
hold(done=True)
"""
    first = await look(box, code)
    async with holding(box.launcher, box, spoil):
        second = await look(box, code)
    third = await look(box, code)
    assert first["same"] == second["same"] == third["same"]
    for one, two in zip(first["other"], third["other"], strict=True):
        assert one != two


async def test_processes_of_two_sandboxes_cannot_see_or_signal_each_other(box: Box) -> None:
    async with holding(box.launcher, box, "hold(pid=os.getpid())") as holder:
        outcome = await box.shell(
            "for pid in $(seq 2 300); do [ $pid = $$ ] || kill -9 $pid 2>/dev/null; done; kill -9 -1 2>/dev/null; ls /proc | grep -c '^[0-9]'"
        )
        assert holder.running.done() is False
        assert outcome.exit.status in (0, None)
        assert (await holder.end()).status == 0


async def test_each_sandbox_has_a_uid_of_its_own(box: Box) -> None:
    """As root. Rootless without subordinate uids all run as the starting user, and only namespaces separate them."""
    async with (
        holding(box.launcher, box, "hold(uid=os.getuid())") as first,
        holding(box.launcher, box, "hold(uid=os.getuid())") as second,
    ):
        assert first.words == second.words == {"uid": 1000}
        uids = {os.stat(f"/proc/{each.sandbox.pid}/task/{each.sandbox.pid}").st_uid for each in (first, second)}
        status = [Path(f"/proc/{each.sandbox.pid}/status").read_text(encoding="ascii") for each in (first, second)]
    outside = {line for text in status for line in text.splitlines() if line.startswith("Uid:")}
    assert len(outside) == (2 if box.kind == "root" else 1)
    assert len(uids) == (2 if box.kind == "root" else 1)
    assert not any("\t0\t" in line + "\t" for line in outside)


async def test_two_launchers_never_share_a_uid(sandbox_kind: str) -> None:
    """Two servers on one machine: their sandboxes have different uids and cannot reach each other."""
    first, second = (launcher_of(sandbox_kind) for _ in range(2))
    await asyncio.gather(first.start(), second.start())
    try:
        box = Box(second, sandbox_kind)
        async with holding(first, box, ABSTRACT) as one, holding(second, box, "hold(made=True)") as other:
            outside = {
                Path(f"/proc/{each.sandbox.pid}/status").read_text(encoding="ascii").split("Uid:")[1].split()[0]
                for each in (one, other)
            }
            assert len(outside) == (2 if sandbox_kind == "root" else 1)
            seen = await look(box, FIND_SOCKETS)
            assert "reached" not in seen["reached"]
            assert seen["bound"] == ["free"] * 3
    finally:
        await asyncio.gather(first.close(), second.close())


DESCRIPTORS_UNDER_WAY = """
import os, socket, time
kept, (readable, _writable) = [], os.pipe()
try:
    while len(kept) < 100:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        kept.append((left, right))
        left.setblocking(False)
        try:
            while True:
                socket.send_fds(left, [b"x"], [readable] * 250)
        except BlockingIOError:
            pass
except OSError as error:
    print("refused", error.errno, flush=True)
time.sleep(60)
"""


async def test_descriptors_in_flight_do_not_block_other_sandboxes(sandbox_kind: str) -> None:
    """The kernel counts them by user, and compares them with the sender's limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("so few descriptors that a program may have as many as a sandbox")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    launcher = launcher_of(sandbox_kind)
    try:
        await launcher.start()
        async with talk_python(Box(launcher, sandbox_kind), DESCRIPTORS_UNDER_WAY) as attacker:
            await attacker.hear(b"refused 109")
            assert (await Box(launcher, sandbox_kind).shell("echo well", terminal=(24, 80))).text == "well\r\n"
    finally:
        await launcher.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
