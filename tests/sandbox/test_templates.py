"""Templates: an interpreter is captured once where it waits, and restored in other sandboxes."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firebox.sandbox.instance.sandbox import Template
from firebox.sandbox.pool import templates
from firebox.sandbox.pool.templates import Templates, capture, make_template
from firebox.sandbox.spec import Command, InputFile, Prestart, SandboxFailure, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, Box, follow
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not templates.ARE_POSSIBLE, reason="templates are for x86-64")


GOES_ON = """
import os, sys
words = b""
while piece := os.read(200, 4096):
    words += piece
os.close(200)
exec(open("main.py").read())
"""
"""Waits like a hook, and then runs the main file."""


def kind_of(before: str = "", **fields: object) -> SandboxSpec:
    """Return the spec of a sandbox with a waiting Python that has run some code before."""
    ahead = Prestart((PYTHON, "-c", before + GOES_ON), tuple(ENVIRONMENT.items()), "main.py", template="")
    return SandboxSpec(prestart=ahead)._replace(**fields)  # type: ignore[arg-type]


async def template_of(box: Box, kind: SandboxSpec) -> Template:
    return Template(await capture(kind, box.launcher.make), 0.0)


async def run(box: Box, kind: SandboxSpec, template: Template | None, code: str) -> tuple[str, bool]:
    """Run code in a sandbox of this spec. Returns its output, and whether it ran in the prestarted program."""
    sandbox = await box.launcher.make(kind, template)
    heard: list[bytes] = []
    assert kind.prestart is not None
    command = Command(
        argv=(PYTHON, "main.py"),
        env=ENVIRONMENT,
        files=(InputFile("main.py", code.encode()),),
        resume_words=(),
        wall_ms=20_000,
        cpu_ms=20_000,
    )
    try:
        ended = await follow(sandbox, command, lambda _stream, data: heard.append(data))
        assert ended.status == 0, (ended, heard)
        return b"".join(heard).decode(), bool(sandbox.was_prestarted)
    finally:
        sandbox.close()


async def test_loaded_modules_are_restored_and_runs_do_not_affect_each_other(box: Box, nothing_left: None) -> None:
    kind = kind_of("import json\nseen = []\n")
    template = await template_of(box, kind)
    code = "seen.append(1); print(len(seen), 'json' in sys.modules, os.getpid())"
    assert [await run(box, kind, template, code) for _ in range(3)] == [("1 True 2\n", True)] * 3


async def test_has_the_same_descriptors_as_a_fresh_program(box: Box) -> None:
    kind = kind_of()
    template = await template_of(box, kind)
    code = (
        "print([(number, os.readlink(f'/proc/self/fd/{number}')[:5]) for number in (0, 1, 2)], len(os.listdir('/proc/self/fd')))"
    )
    restored, was_prestarted = await run(box, kind, template, code)
    assert was_prestarted
    assert restored == (await run(box, kind, None, code))[0]


async def test_open_files_keep_their_positions(box: Box) -> None:
    kind = kind_of("file = open('/etc/passwd', 'rb', buffering=0)\nfirst = file.read(4)\n")
    template = await template_of(box, kind)
    code = "print(first, file.read(1), file.fileno())"
    assert await run(box, kind, template, code) == ("b'root' b':' 3\n", True)


async def test_unarmed_timers_are_restored(box: Box) -> None:
    kind = kind_of(
        "import ctypes, signal\n"
        "heard, numbers = [], []\n"
        "for number in (signal.SIGUSR1, signal.SIGUSR2):\n"
        "  signal.signal(number, lambda number, _frame: heard.append(number))\n"
        "  event, timer = (ctypes.c_int * 16)(0, 0, number, 0), ctypes.c_void_p()\n"
        "  assert ctypes.CDLL(None).timer_create(0, event, ctypes.byref(timer)) == 0\n"
        "  numbers.append(timer)\n"
    )
    template = await template_of(box, kind)
    code = (
        "for timer in numbers:\n"
        "  assert ctypes.CDLL(None).timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, 1000), None) == 0\n"
        "while len(heard) < 2: pass\n"
        "print(sorted(heard))\n"
    )
    assert await run(box, kind, template, code) == ("[10, 12]\n", True)


async def test_threads_keep_their_ids_and_wait_in_the_same_call(box: Box) -> None:
    kind = kind_of(
        "import threading\n"
        "began, heard, own = [threading.Event() for _ in range(3)], [], threading.local()\n"
        "def wait(event):\n"
        "  own.value = threading.get_native_id()\n"
        "  event.wait()\n"
        "  heard.append(own.value == threading.get_native_id() == threading.current_thread().native_id)\n"
        "before = threading.Thread(target=int); before.start(); before.join()\n"
        "threads = [threading.Thread(target=wait, args=(event,)) for event in began]\n"
        "for thread in threads: thread.start()\n"
        "numbers = set(map(int, os.listdir('/proc/self/task'))) if (os := __import__('os')) else 0\n"
    )
    template = await template_of(box, kind)
    code = (
        "print(numbers <= set(map(int, os.listdir('/proc/self/task'))), heard)\n"
        "for event, thread in zip(began, threads): event.set(); thread.join()\n"
        "print(heard)\n"
        "more = threading.Thread(target=print, args=('one more',)); more.start(); more.join()\n"
    )
    assert await run(box, kind, template, code) == ("True []\n[True, True, True]\none more\n", True)


async def test_threads_have_their_settings(box: Box) -> None:
    kind = kind_of(
        "import ctypes, os, signal, threading\n"
        "libc = ctypes.CDLL(None)\n"
        "told, began = [], threading.Event()\n"
        "def settings():\n"
        "  status = open(f'/proc/self/task/{threading.get_native_id()}/status').read()\n"
        "  stack = ctypes.create_string_buffer(24)\n"
        "  libc.sigaltstack(None, stack)\n"
        "  return [line for line in status.splitlines() if line[:4] in ('Name', 'SigB')], stack.raw\n"
        "kept = ctypes.create_string_buffer(65536)\n"
        "def wait():\n"
        "  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "  libc.prctl(15, b'of its own')\n"
        "  libc.sigaltstack(ctypes.byref((ctypes.c_uint64 * 3)(ctypes.addressof(kept), 0, 65536)), None)\n"
        "  told.append(settings())\n"
        "  began.wait()\n"
        "  told.append(settings())\n"
        "thread = threading.Thread(target=wait)\n"
        "thread.start()\n"
        "while not told: pass\n"
        "main = settings()\n"
    )
    template = await template_of(box, kind)
    code = "began.set(); thread.join(); print(told[0] == told[1], main == settings(), main != told[0])"
    assert await run(box, kind, template, code) == ("True True True\n", True)


async def test_internal_pipes_keep_their_data(box: Box) -> None:
    kind = kind_of(
        "import os\n"
        "moved, (first, second) = os.open('/dev/null', os.O_RDONLY), os.pipe()\n"
        "os.write(second, b'held')\n"
        "os.set_blocking(first, False)\n"
        "backwards = os.pipe()\n"
        "os.dup2(backwards[0], 20); os.close(backwards[0])\n"  # the number of the end that reads is the higher one
        "os.write(backwards[1], b'x' * 8)\n"
    )
    template = await template_of(box, kind)
    code = (
        "print(os.read(first, 9), os.get_blocking(first), os.get_blocking(second), os.get_inheritable(first), os.read(20, 9))\n"
        "os.write(second, b'more'); print(os.read(first, 9), os.read(moved, 9))\n"
    )
    assert await run(box, kind, template, code) == ("b'held' False True False b'xxxxxxxx'\nb'more' b''\n", True)


async def test_epoll_entries_are_restored(box: Box) -> None:
    kind = kind_of(
        "import os, select\n"
        "watching, event, ends = select.epoll(), os.eventfd(0), os.pipe()\n"
        "watching.register(event, select.EPOLLIN)\n"
        "watching.register(ends[0], select.EPOLLIN | select.EPOLLET)\n"
    )
    template = await template_of(box, kind)
    code = (
        "print(watching.poll(0)); os.write(ends[1], b'x'); print(watching.poll(0) == [(ends[0], 1)], watching.poll(0))\n"
        "os.eventfd_write(event, 1); print(watching.poll(0) == [(event, 1)], watching.poll(0) == [(event, 1)])\n"
    )
    assert await run(box, kind, template, code) == ("[]\nTrue []\nTrue True\n", True)


async def test_memory_with_madv_dontfork_stays_so(box: Box) -> None:
    kind = kind_of(
        "import mmap, os\n"
        "memory = mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "memory.madvise(mmap.MADV_DONTFORK)\n"
        "memory[:4] = b'kept'\n"
    )
    template = await template_of(box, kind)
    code = (
        "child = os.fork()\n"
        "if child == 0: print(memory[:4])\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), memory[:4])\n"
    )
    assert await run(box, kind, template, code) == ("-11 b'kept'\n", True)


async def test_random_numbers_are_written_to_the_requested_address(box: Box) -> None:
    kind = kind_of(
        "import ctypes\n"
        "place = ctypes.create_string_buffer(b'12345678')\n"
        "with open('.firebox-random', 'w') as file: file.write(f'{ctypes.addressof(place) + 2} 4')\n"
    )
    template = await template_of(box, kind)
    numbers = set[str]()
    for _ in range(4):
        output, was_prestarted = await run(box, kind, template, "print(place.raw[:2], place.raw[6:8], place.raw[2:6].hex())")
        assert was_prestarted
        assert output.startswith("b'12' b'78' ")
        numbers.add(output)
    assert len(numbers) == 4


async def test_pid_is_different_during_the_capture(box: Box) -> None:
    kind = kind_of("import os\nseen = os.getpid()\n")
    assert kind.prestart is not None
    other = kind._replace(prestart=kind.prestart._replace(other_pid=True))
    for each, seen in ((kind, 2), (other, 4194304)):
        assert await run(box, each, await template_of(box, each), "print(seen, os.getpid())") == (f"{seen} 2\n", True)


async def test_calls_whose_state_cannot_be_restored_are_absent_during_a_capture(box: Box) -> None:
    kind = kind_of(
        "import ctypes, errno\n"
        "def call(number):\n"
        "  returned = ctypes.CDLL(None, use_errno=True).syscall(number, 0, 0, 0)\n"
        "  return errno.errorcode[ctypes.get_errno()] if returned < 0 else 'there'\n"
        "membarrier, pkey_alloc, set_mempolicy, mbind = 324, 330, 238, 237\n"
        "captured = [call(number) for number in (membarrier, pkey_alloc, set_mempolicy, mbind)]\n"
    )
    template = await template_of(box, kind)
    code = "print(*captured, call(membarrier), call(set_mempolicy))"
    assert await run(box, kind, template, code) == ("ENOSYS ENOSYS ENOSYS ENOSYS there there\n", True)


@pytest.mark.parametrize(
    ("draws", "reason"),
    [
        ("print(number)", "restored programs draw the same random numbers"),
        ("print(os.urandom(8)); print(number)", "restored programs draw the same random numbers"),
        ("pass", "the restored program does not continue"),
        ("raise SystemExit('no such thing')", "no such thing"),
    ],
)
async def test_repeated_random_numbers_prevent_a_template(box: Box, nothing_left: None, draws: str, reason: str) -> None:
    kind = kind_of("import os\nnumber = os.urandom(8)\n")
    assert kind.prestart is not None
    with pytest.raises(SandboxFailure, match=reason):
        await make_template(kind._replace(prestart=kind.prestart._replace(draws=draws)), box.launcher.make, 0.0)
    others = kind._replace(prestart=kind.prestart._replace(draws="print(os.urandom(8)); print(os.urandom(8))"))
    assert not (await make_template(others, box.launcher.make, 0.0)).failed


async def test_its_child_programs_have_random_addresses(box: Box) -> None:
    kind = kind_of()
    template = await template_of(box, kind)
    code = "import subprocess; print(subprocess.run(['cat', '/proc/self/maps'], capture_output=True, text=True).stdout)"
    stacks = set[str]()
    for _ in range(3):
        output, was_prestarted = await run(box, kind, template, code)
        assert was_prestarted
        stacks.update(line for line in output.splitlines() if line.endswith("[stack]"))
    assert len(stacks) == 3


async def test_the_program_file_is_the_interpreter(box: Box) -> None:
    kind = kind_of()
    template = await template_of(box, kind)
    code = "os.execv('/proc/self/exe', ['python3', '-c', 'print(6 * 7)'])"
    assert await run(box, kind, template, code) == ("42\n", True)


async def test_memory_stack_and_threads_can_grow(box: Box) -> None:
    kind = kind_of()
    template = await template_of(box, kind)
    code = (
        "import threading\n"
        "sys.setrecursionlimit(50_000)\n"
        "def deep(n): return n and 1 + deep(n - 1)\n"
        "data = bytearray(100 << 20)\n"
        "data[::4096] = data[::4096]\n"
        "small = [bytes(1000) for _ in range(20_000)]\n"
        "thread = threading.Thread(target=lambda: print(deep(20_000)))\n"
        "threading.stack_size(64 << 20)\n"
        "thread.start(); thread.join()\n"
        "print(deep(40_000), len(data), len(small))\n"
    )
    assert await run(box, kind, template, code) == ("20000\n40000 104857600 20000\n", True)


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("raise SystemExit\n", "ended before it waited"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n",
            "it has a thread that does not wait",
        ),
        (
            "import threading\ndef work():\n  while True: pass\nthreading.Thread(target=work, daemon=True).start()\n",
            "it has a thread that does not wait",
        ),
        (
            "import threading\nfor _ in range(16):\n  threading.Thread(target=threading.Event().wait, daemon=True).start()\n",
            "it has too many threads",
        ),
        (
            (
                "import threading\nthreads = [threading.Thread(target=int) for _ in range(65)]\n"
                "for thread in threads: thread.start(); thread.join()\n"
                "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
            ),
            "its thread ids are too far apart",
        ),
        ("import os\nends = os.pipe()\nos.close(ends[1])\n", "it has a pipe to another process"),
        ("import os\nends = os.pipe()\nos.dup(ends[1])\n", "it has a pipe to another process"),
        ("import os\nends = os.pipe()\nos.write(ends[1], b'123456789')\n", "it has a pipe with too much data"),
        ("import os\nevents = os.eventfd(1, os.EFD_SEMAPHORE)\n", "it has opened something other than a file"),
        ("import ctypes\nassert ctypes.CDLL(None).timerfd_create(1, 0) >= 0\n", "it has opened something other than a file"),
        (
            "import os, select\nwatching = select.epoll()\nfor _ in range(17): watching.register(os.eventfd(0))\n" * 2,
            "it watches too many files|it has too many open files",
        ),
        (
            "import os, select\nwatching, event = select.epoll(), os.eventfd(0)\nwatching.register(event)\nos.dup(event), os.close(event)\n",
            "it watches a closed file",
        ),
        ("open('.firebox-random', 'w').write('4096')\n", "it requests random numbers at an invalid address"),
        ("import subprocess\nchild = subprocess.Popen(['/bin/sleep', '9'])\n", "it has started a program"),
        ("import socket\nopened = socket.socket()\n", "it has opened something other than a file"),
        (
            "import mmap\nwith open('/tmp/file', 'w+b') as file:\n  file.truncate(9)\n  shared = mmap.mmap(file.fileno(), 0)\n",
            "it shares memory",
        ),
        (
            (
                "import ctypes, os\nname = 'a' * 200\nfile = os.open(name, os.O_RDWR | os.O_CREAT)\nos.unlink(name)\n"
                "ctypes.CDLL(None).mmap(None, 4096, 1, 2, file, 0)\nos.close(file)\n"
            ),
            "/box/a{90,}: error 2$",
        ),
        ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 9)\n", "it has set a timer"),
        ("import os\nlarge = os.urandom(70 << 20)\n", "write: error 27"),
    ],
    ids=[
        *(
            "ended",
            "sleeping thread",
            "busy thread",
            "many threads",
            "far threads",
            "pipe",
            "pipe twice",
            "full pipe",
            "semaphore",
        ),
        *("timerfd", "many watched", "watched and closed", "random", "child", "socket", "shared", "deleted", "timer", "large"),
    ],
)
async def test_unsupported_state_prevents_a_template(box: Box, nothing_left: None, before: str, reason: str) -> None:
    with pytest.raises(SandboxFailure, match=reason):
        await template_of(box, kind_of(before))


@pytest.fixture
def shown() -> Iterator[Path]:
    """A folder that sandboxes can see."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


async def test_is_not_restored_when_a_mapped_file_has_changed(box: Box, shown: Path) -> None:
    file = shown / "mapped"
    file.write_bytes(b"x" * 8192)
    file.chmod(0o644)
    kind = kind_of(
        f"import mmap\nfile = os.open('/.host{file}', os.O_RDONLY) if (os := __import__('os')) else 0\n"
        "mapped = mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)\nos.close(file)\n",
        trees=(str(shown),),
    )
    template = await template_of(box, kind)
    code = "print('here')"
    assert await run(box, kind, template, code) == ("here\n", True)
    file.write_bytes(b"y" * 8193)
    assert await run(box, kind, template, code) == ("here\n", False)


async def test_a_modified_file_mapping_is_restored_copy_on_write(box: Box, shown: Path) -> None:
    file = shown / "mapped"
    file.write_bytes(b"a" * 4096 + b"b" * 4096 + b"c" * 4096)
    file.chmod(0o644)
    kind = kind_of(
        f"import ctypes, mmap, os\nfile = os.open('/.host{file}', os.O_RDONLY)\n"
        "mapped = mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)\nos.close(file)\n"
        "mapped[:1] = mapped[4096:4097] = b'x'\n",
        trees=(str(shown),),
    )
    template = await template_of(box, kind)
    code = (
        'begin = f"{ctypes.addressof(ctypes.c_char.from_buffer(mapped)):x}-"\n'
        'about = open("/proc/self/smaps").read().split("\\n" + begin)[1]\n'
        'print(*[int(about.split(name)[1].split()[0]) for name in ("Private_Clean:", "Private_Dirty:")])\n'
        "print(mapped[:2], mapped[4095:4098], mapped[8191:8193])\n"
        "mapped[:1] = mapped[8192:8193] = b'y'\n"
        f"print(mapped[:2], mapped[8191:8193], open('/.host{file}', 'rb').read(2))\n"
    )
    seen = "0 0\nb'xa' b'axb' b'bc'\nb'ya' b'by' b'aa'\n"
    assert [await run(box, kind, template, code) for _ in range(2)] == [(seen, True)] * 2


async def test_memory_in_more_pieces_than_one_call_reads_is_whole(box: Box) -> None:
    kind = kind_of(
        "import mmap\nmemory = mmap.mmap(-1, 6000 << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "for page in range(0, 6000, 2):\n  memory[page << 12 : (page << 12) + 2] = page.to_bytes(2, 'big')\n"
    )
    template = await template_of(box, kind)
    code = (
        "expected = [page * (page % 2 == 0) for page in range(6000)]\n"
        "print([int.from_bytes(memory[page << 12 : (page << 12) + 2], 'big') for page in range(6000)] == expected)\n"
    )
    assert await run(box, kind, template, code) == ("True\n", True)


async def test_cannot_be_changed(box: Box) -> None:
    template = await template_of(box, kind_of())
    for change in (
        lambda: os.pwrite(template.descriptor, b"x", 0),
        lambda: os.ftruncate(template.descriptor, 0),
        lambda: os.ftruncate(template.descriptor, template.bytes + 1),
    ):
        with pytest.raises(PermissionError):
            change()


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Kept:
    """Templates with a fake clock, and the reported reasons."""

    def __init__(self, box: Box, *, age_s: float = 100, runs: int = 3) -> None:
        self.clock = Clock()
        self.noted: list[str] = []
        self.templates = Templates(
            box.launcher.make, age_s=age_s, runs=runs, note=lambda _kind, reason: self.noted.append(reason), clock=self.clock
        )

    async def made(self, kind: SandboxSpec, other_than: Template | None = None) -> Template:
        """Request a template and wait until it exists."""
        self.templates.want(kind)
        await until(lambda: self.templates._templates.get(kind) not in (None, other_than), "there is a new template")
        return self.templates._templates[kind]


async def test_is_renewed_after_a_number_of_runs_and_by_age(box: Box, nothing_left: None) -> None:
    kept, kind = Kept(box), kind_of()
    assert kept.templates.take(kind) is None
    first = await kept.made(kind)
    for _ in range(3):
        assert kept.templates.take(kind) is first
        kept.templates.want(kind) if first.runs < 3 else None
    assert not kept.templates._under_way
    second = await kept.made(kind, first)
    kept.templates.want(kind)
    assert not kept.templates._under_way
    kept.clock.now_s = 100.0
    kept.templates.want(kind)
    assert kept.templates.take(kind) is second  # the old one serves on
    third = await kept.made(kind, second)
    assert third.made_at == 100.0
    await kept.templates.close()
    assert kept.noted == []


async def test_a_broken_template_is_not_retried_for_a_while(box: Box, nothing_left: None) -> None:
    kept, kind = Kept(box), kind_of()
    first = await kept.made(kind)
    first.failed = True
    assert kept.templates.take(kind) is None
    kept.templates.want(kind)
    assert not kept.templates._under_way
    assert kept.noted == ["a restored program ended before it could continue"]
    kept.clock.now_s = 100.0
    await kept.made(kind)
    await kept.templates.close()


async def test_a_failed_capture_is_reported_and_retried_later(box: Box, nothing_left: None) -> None:
    kept, kind = Kept(box), kind_of("raise SystemExit\n")
    kept.templates.want(kind)
    await until(lambda: kept.noted != [] and not kept.templates._under_way, "a reason is noted")
    assert "ended before it waited" in kept.noted[0]
    kept.templates.want(kind)
    assert not kept.templates._under_way
    kept.clock.now_s = 100.0
    kept.templates.want(kind)
    assert kept.templates._under_way
    await kept.templates.close()


async def test_the_total_size_is_bounded(box: Box, nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, first, second = Kept(box), kind_of(), kind_of("import json\n")
    template = await kept.made(first)
    monkeypatch.setattr(templates, "TOTAL_BYTES", template.bytes + 1)
    kept.templates.want(second)
    await until(lambda: kept.noted != [], "a reason is noted")
    assert kept.noted == ["other templates leave no room"]
    assert kept.templates.take(second) is None
    await kept.templates.close()


async def test_specs_without_templates_and_forgotten_specs_create_none(box: Box, nothing_left: None) -> None:
    kept, kind = Kept(box), kind_of()
    assert kind.prestart is not None
    for other in (SandboxSpec(), kind._replace(prestart=kind.prestart._replace(template=None))):
        kept.templates.want(other)
    assert not kept.templates._under_way
    kept.templates.want(kind)
    kept.templates.forget(kind)
    await asyncio.sleep(0)
    assert kept.templates.take(kind) is None
    await kept.templates.close()


@pytest.mark.parametrize(
    "code", ["import ctypes; print(ctypes.CDLL(None, use_errno=True).ptrace(0, 0, 0, 0), ctypes.get_errno())"]
)
async def test_processes_in_an_ordinary_sandbox_cannot_trace_each_other(box: Box, code: str) -> None:
    kind = kind_of()
    template = await template_of(box, kind)
    assert await run(box, kind, template, code) == ("-1 1\n", True)


async def test_few_are_created_in_parallel(box: Box, nothing_left: None) -> None:
    kept = Kept(box)
    kinds = [kind_of(f"number = {number}\n") for number in range(3)]
    for kind in kinds:
        kept.templates.want(kind)
    assert set(kept.templates._under_way) == set(kinds[:2])
    await kept.made(kinds[0])
    await kept.made(kinds[2])
    await kept.templates.close()
