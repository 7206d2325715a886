"""How programs that were restored from one template could affect each other."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import pytest

from firebox.sandbox.instance.sandbox import Template
from firebox.sandbox.launcher import launcher_start
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.pool.templates import ARE_POSSIBLE, Templates, capture
from firebox.sandbox.spec import Command, InputFile, Prestart, SandboxFailure, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, Box, follow
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not ARE_POSSIBLE, reason="templates are for x86-64")

WAITS = """
import os
while os.read(200, 4096):
    pass
os.close(200)
exec(open("main.py").read())
"""


def kind_of(script: str) -> SandboxSpec:
    return SandboxSpec(prestart=Prestart((PYTHON, "-c", script), tuple(ENVIRONMENT.items()), "main.py", template=""))


KIND = kind_of(WAITS)


async def run(box: Box, template: Template, code: str, kind: SandboxSpec = KIND) -> str:
    """Run code in a restored interpreter. Returns its output."""
    sandbox = await box.launcher.make(kind, template)
    heard: list[bytes] = []
    restored = "assert any('-7ffffffff000 ' in line for line in open('/proc/self/maps'))\n"  # addresses are not random
    files = (InputFile("main.py", (restored + code).encode()),)
    command = Command((PYTHON, "main.py"), ENVIRONMENT, files, resume_words=(), wall_ms=20_000, cpu_ms=20_000)
    try:
        ended = await follow(sandbox, command, lambda _stream, data: heard.append(data))
        assert (ended.status, sandbox.was_prestarted) == (0, True), (ended, heard)
        return b"".join(heard).decode()
    finally:
        sandbox.close()


async def test_each_program_has_its_own_program_file(box: Box) -> None:
    """Else programs could communicate through flock(2), or notice the start of others through inotify(7)."""
    template = Template(await capture(KIND, box.launcher.make), 0.0)
    shared = os.fstat(template.descriptor)
    own = await run(box, template, "status = os.stat('/proc/self/exe'); print((status.st_dev, status.st_ino))")
    assert own != f"{(shared.st_dev, shared.st_ino)}\n"


async def test_program_file_has_the_name_of_the_interpreter(box: Box) -> None:
    template = Template(await capture(KIND, box.launcher.make), 0.0)
    code = "import sys; print(os.readlink('/proc/self/exe') == os.path.realpath(sys.executable))"
    assert await run(box, template, code) == "True\n"


async def test_program_file_holds_little_more(box: Box) -> None:
    """Without a memory cgroup and without a uid of its own, the file belongs to the program."""
    template = Template(await capture(KIND, box.launcher.make), 0.0)
    code = """
import contextlib
kept = 0
with contextlib.suppress(OSError):
    os.chmod("/proc/self/exe", 0o755)
    for kept in range(100):
        os.setxattr("/proc/self/exe", f"user.{kept}", bytes(60_000))
print(kept)
"""
    assert int(await run(box, template, code)) <= 1


async def test_program_file_cannot_be_modified_for_others(box: Box) -> None:
    template = Template(await capture(KIND, box.launcher.make), 0.0)
    spoil = """
import contextlib
for attempt in (
    lambda: os.chmod("/proc/self/exe", 0o200),
    lambda: os.utime("/proc/self/exe", (1, 1)),
    lambda: os.truncate("/proc/self/exe", 0),
    lambda: open("/proc/self/exe", "r+b"),
):
    with contextlib.suppress(OSError):
        attempt()
"""
    await run(box, template, spoil)
    assert await run(box, template, "print(os.path.getmtime('/proc/self/exe') > 1)") == "True\n"


async def test_droppable_memory_is_restored_empty(box: Box) -> None:
    """C libraries keep the state of vgetrandom() there: the same random numbers must not be drawn twice."""
    before = """
import ctypes
mmap = ctypes.CDLL(None).mmap
mmap.restype, mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
MAP_DROPPABLE, MAP_ANONYMOUS = 0x08, 0x20
memory = mmap(None, 4096, 3, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0)
kept = memory != ctypes.c_void_p(-1).value
if kept:
    ctypes.memset(memory, 1, 4096)
"""
    kind = kind_of(before + WAITS)
    template = Template(await capture(kind, box.launcher.make), 0.0)
    looks = """
if kept:
    flags = open("/proc/self/smaps").read().split(f"\\n{memory:x}-")[1].split("VmFlags:")[1].split("\\n")[0]
    print(ctypes.string_at(memory, 4096) == bytes(4096), "dp" in flags)
"""
    heard = await run(box, template, looks, kind)
    if not heard:
        pytest.skip("this kernel has no such memory")
    assert heard == "True True\n"


async def test_interpreter_cannot_reach_its_tracer(box: Box) -> None:
    """The tracer is a fork of PID 1, with its link to the server and the launcher's data about other sandboxes."""
    before = """
import os
tracer = next(pid for pid in os.listdir("/proc") if pid.isdigit() and pid not in ("1", str(os.getpid())))
reached = []
for attempt in (lambda: open(f"/proc/{tracer}/mem", "rb"), lambda: os.listdir(f"/proc/{tracer}/fd")):
    try:
        attempt()
    except PermissionError:
        pass
    else:
        reached.append(attempt)
"""
    kind = kind_of(before + WAITS)
    template = Template(await capture(kind, box.launcher.make), 0.0)
    assert await run(box, template, "print(reached)", kind) == "[]\n"


async def test_is_captured_again_soon_when_the_launcher_was_killed(own_box: Box) -> None:
    now_s = 0.0
    noted: list[str] = []
    templates = Templates(
        own_box.launcher.make, age_s=1000, runs=10, note=lambda _kind, reason: noted.append(reason), clock=lambda: now_s
    )
    kind = kind_of("import time\ntime.sleep(100)")
    templates.want(kind)
    assert own_box.launcher.pid is not None
    os.kill(own_box.launcher.pid, signal.SIGKILL)
    await until(lambda: not templates._under_way, "the capture fails")
    assert len(noted) == 1
    templates.want(kind)
    assert not templates._under_way
    now_s = 10.0
    templates.want(kind)
    assert templates._under_way
    await templates.close()
    await own_box.launcher.start()


async def test_a_spec_is_captured_once(box: Box, nothing_left: None) -> None:
    noted: list[str] = []
    templates = Templates(box.launcher.make, age_s=1000, runs=10, note=lambda _kind, reason: noted.append(reason))
    templates.want(KIND)
    first = templates._under_way[KIND]
    await asyncio.sleep(0)
    templates.forget(KIND)
    templates.want(KIND)
    second = templates._under_way[KIND]
    await asyncio.wait([first])
    assert templates._under_way == {KIND: second}
    await second
    assert templates.take(KIND) is not None
    assert (templates._under_way, noted) == ({}, [])
    await templates.close()


REFUSES_PERSONALITY = """#!/usr/bin/python3
import ctypes, os, struct, sys
NUMBER, IS_PERSONALITY, REFUSE, PASS = (0x20, 0, 0, 0), (0x15, 0, 1, 135), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in (NUMBER, IS_PERSONALITY, REFUSE, PASS)))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(code)))
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
prctl = ctypes.CDLL(None).prctl
assert prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 == prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)
"""


async def test_is_not_captured_where_a_container_engine_refuses_personality(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result of -1 has every bit set, including ADDR_NO_RANDOMIZE."""
    program = tmp_path / "launcher"
    program.write_text(f"{REFUSES_PERSONALITY}os.execv({launcher_start.LAUNCHER!r}, sys.argv)\n")
    program.chmod(0o755)
    monkeypatch.setattr(launcher_start, "LAUNCHER", str(program))
    launcher = LauncherProcess()
    await launcher.start()
    with pytest.raises(SandboxFailure, match="address randomization cannot be disabled here"):
        await capture(KIND, launcher.make)
    await launcher.close()


async def test_is_not_restored_when_a_mapped_file_was_replaced_with_equal_size_and_mtime(box: Box) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        file = Path(folder, "mapped")
        file.write_bytes(b"x" * 8192)
        file.chmod(0o644)
        before = f"""
import ctypes, os
mmap = ctypes.CDLL(None).mmap
mmap.restype, mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
PROT_READ, MAP_PRIVATE = 1, 2
file = os.open("/.host{file}", os.O_RDONLY)
mapped = mmap(None, 8192, PROT_READ, MAP_PRIVATE, file, 0)
os.close(file)
"""
        kind = kind_of(before + WAITS)._replace(trees=(folder,))
        template = Template(await capture(kind, box.launcher.make), 0.0)
        assert await run(box, template, "print(ctypes.string_at(mapped, 1))", kind) == "b'x'\n"
        status = file.stat()
        file.write_bytes(b"y" * 8192)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        sandbox = await box.launcher.make(kind, template)
        files = (InputFile("main.py", b"print('here')"),)
        ended = await follow(
            sandbox,
            Command((PYTHON, "main.py"), ENVIRONMENT, files, resume_words=(), wall_ms=20_000, cpu_ms=20_000),
            lambda _stream, _data: None,
        )
        sandbox.close()
        assert (ended.status, sandbox.was_prestarted) == (0, False)


async def test_interpreter_cannot_leave_a_template_of_its_own(box: Box) -> None:
    template = Template(await capture(kind_of("open('template', 'wb').write(b'#!/bin/false')\n" + WAITS), box.launcher.make), 0.0)
    assert await run(box, template, "print('here')") == "here\n"


async def test_a_forged_template_creates_no_file_on_the_host(box: Box, tmp_path: Path) -> None:
    """PID 1, still privileged, copies the start of a template to a path that the template names."""
    genuine = await capture(KIND, box.launcher.make)
    content = os.pread(genuine, os.fstat(genuine).st_size, 0)
    os.close(genuine)
    interpreter = os.path.realpath(PYTHON).encode()
    target = b"/.." + os.fsencode(tmp_path / "made")
    start = content.rindex(interpreter + b"\0", 0, 1 << 20)
    forged = content[:start] + target + b"\0" + content[start + len(target) + 1 :]
    tmp_path.chmod(0o777)
    memory = os.memfd_create("forged", os.MFD_CLOEXEC)
    os.truncate(memory, 0)
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(forged)
    os.fchmod(memory, 0o555)
    sandbox = await box.launcher.make(KIND, Template(memory, 0.0))
    command = Command(
        (PYTHON, "main.py"), ENVIRONMENT, (InputFile("main.py", b"print('here')"),), resume_words=(), wall_ms=20_000
    )
    heard: list[bytes] = []
    await follow(sandbox, command, lambda _stream, data: heard.append(data))
    sandbox.close()
    assert (heard, os.listdir(tmp_path)) == ([b"here\n"], [])


async def test_the_mapped_template_is_unreachable(box: Box) -> None:
    """Programs could communicate through a file that is shared by several sandboxes."""
    template = Template(await capture(KIND, box.launcher.make), 0.0)
    code = """
import contextlib
shared = [line.split() for line in open("/proc/self/maps") if "memfd:" in line]
reached = []
for places, *_ in shared:
    path = "/proc/self/map_files/" + "-".join(f"{int(place, 16):x}" for place in places.split("-"))
    for attempt in (lambda: os.open(path, os.O_RDONLY), lambda: os.stat(path), lambda: os.setxattr(path, "user.x", b"")):
        with contextlib.suppress(PermissionError):
            attempt()
            reached.append(path)
print(len(shared) > 0, {words[1][3] for words in shared}, reached)
"""
    assert await run(box, template, code) == "True {'p'} []\n"
