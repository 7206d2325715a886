"""Files in and out of a sandbox: which names and file types a program may leave, and that only contents come out.

Taking files happens after every process of the sandbox but its PID 1 is dead, by that PID 1, with the program's own rights.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from pathlib import Path

import pytest

from firebox.sandbox.spec import Command, CommandRefused, InputFile, Pack, PackedFile, SandboxFailure, SandboxSpec
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, Box, follow
from tests.support.waiting import until

HERE = Path(__file__)


async def refused(box: Box, name: str) -> CommandRefused:
    with pytest.raises(CommandRefused) as caught:
        await box.run("/bin/true", files={name: b"x"})
    return caught.value


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "a/../x", "/etc/x", "/tmp/x", "..", "../../../../../../tmp/x", "", ".", "a/", "a//b", "./a", "a/./b"],
)
async def test_attack_43_a_name_that_leaves_the_folder_is_refused(box: Box, name: str) -> None:
    assert (await refused(box, name)).step == "files"


async def test_attack_43_odd_but_harmless_names_are_kept(box: Box) -> None:
    names = ["..foo", "foo..", "...", "C:\\x", "a b", "-rf", "üñí", "new\nline", "*", "a/b/c/d", "x" * 255, "\udcff\udcfe"]
    outcome = await box.python(
        "import os, sys\nfor folder, _, names in os.walk(b'.'):\n"
        "    for name in names: sys.stdout.buffer.write(os.path.join(folder, name)[2:] + b'\\0')",
        files=dict.fromkeys(names, b"x"),
        collect=["*"],
    )
    assert {os.fsdecode(name) for name in outcome.stdout.split(b"\0")} == {*names, "main.py", ""}
    assert outcome.artifacts.keys() == {*names, "main.py"}


async def test_attack_43_a_name_twice_is_written_twice_and_a_clash_with_a_folder_is_refused(box: Box) -> None:
    sandbox = await box.make()
    files = (InputFile("a", b"first"), InputFile("a", b"2nd"))
    output: list[bytes] = []
    await follow(sandbox, Command(("/bin/cat", "a"), ENVIRONMENT, files=files), lambda _name, data: output.append(data))
    sandbox.close()
    assert b"".join(output) == b"2nd"
    for clash in ({"a": b"", "a/b": b""}, {"a/b": b"", "a": b""}):
        with pytest.raises(CommandRefused) as caught:
            await box.run("/bin/true", files={**clash})
        assert caught.value.step == "files"
    assert (await refused(box, "x" * 256)).step == "files"
    assert (await refused(box, "/".join(["y" * 200] * 30))).step == "files"


async def test_attack_44_nul_is_refused_in_names_arguments_and_environment_and_kept_in_stdin(box: Box) -> None:
    assert (await refused(box, "a\0b")).step == "files"
    with pytest.raises(CommandRefused) as caught:
        await box.run("/bin/echo", "a\0b")
    assert caught.value.step == "start"
    for env in ({"A": "b\0c"}, {"A\0": "b"}, {"A=B": "c"}, {"": "c"}):
        with pytest.raises(CommandRefused) as caught:
            await box.run("/bin/true", env=env)
        assert caught.value.step == "start"
    outcome = await box.run("/bin/cat", stdin=b"a\0b\0")
    assert outcome.stdout == b"a\0b\0"


async def test_attack_45_lone_surrogates_are_refused_and_bytes_of_any_kind_pass(box: Box) -> None:
    assert (await refused(box, "a\ud800b")).step == "files"
    with pytest.raises(CommandRefused):
        await box.run("/bin/echo", "\ud800")
    with pytest.raises(CommandRefused):
        await box.run("/bin/echo", env={"A": "\udfff\ud800"})
    content = "\ufeffa\r\nb".encode() + bytes(range(256))
    outcome = await box.run("/bin/cat", "a", files={"a": content})
    assert outcome.stdout == content


async def test_attack_46_47_links_are_never_followed(box: Box) -> None:
    """Neither as the file itself nor as a parent folder."""
    outcome = await box.shell(
        """
        echo mine > real
        ln -s /etc/passwd passwd; ln -s /proc/self/environ environ; ln -s real inner; ln -s /proc/1/environ one
        ln -s nowhere dangling; ln -s loop loop
        mkdir folder; echo deep > folder/file; ln -s /etc etc; ln -s folder linked; ln -s / root; ln -s . here
        """,
        collect=["*"],
    )
    assert outcome.error_text == ""
    assert outcome.artifacts == {"real": b"mine\n", "folder/file": b"deep\n"}
    links = {"passwd", "environ", "inner", "one", "dangling", "loop", "etc", "linked", "root", "here"}
    assert outcome.skipped == dict.fromkeys(links, "not a regular file")


async def test_attack_48_hard_links_to_protected_files_are_refused(box: Box) -> None:
    """All files worth linking are on other file systems; a hard link to an own file is that file."""
    outcome = await box.shell(
        "echo mine > own; ln own again; for file in /etc/passwd /usr/bin/env /proc/self/environ /dev/null /etc/shadow; do"
        " ln $file stolen || echo refused; done 2>/dev/null",
        collect=["*"],
    )
    assert outcome.text == "refused\n" * 5
    assert outcome.artifacts == {"own": b"mine\n", "again": b"mine\n"}


async def test_attack_49_pipes_sockets_and_devices_do_not_block_and_do_not_come_out(box: Box) -> None:
    code = """
import os, socket, stat
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
for name, mode, device in (("null", stat.S_IFCHR, os.makedev(1, 3)), ("disk", stat.S_IFBLK, os.makedev(8, 0))):
    try:
        os.mknod(name, mode | 0o666, device)
    except PermissionError:
        print("refused", name)
try:
    os.mknod("whiteout", stat.S_IFCHR | 0o666, 0)  # allowed to everybody: it marks a deleted file in an overlay
except PermissionError:
    pass
open("plain", "w").write("x")
"""
    outcome = await box.python(code, collect=["*"])
    assert outcome.text == "refused null\nrefused disk\n"
    assert outcome.artifacts.keys() == {"main.py", "plain"}
    assert {"fifo", "socket"} <= outcome.skipped.keys() <= {"fifo", "socket", "whiteout"}


async def test_attack_50_51_nothing_changes_while_files_are_taken(box: Box) -> None:
    """Processes that outlive the program swap a file for a symlink and make it grow: all are dead by then."""
    code = """
import os, signal, time
open("target", "w").write("mine" * 1000)
open("growing", "w").write("x")
open("ready", "w").close()
for number in range(8):
    if os.fork() == 0:
        os.setsid()
        for each in range(1, 65):
            try: signal.signal(each, signal.SIG_IGN)
            except (OSError, ValueError): pass
        other = f"other{number}"
        if number % 2:
            while True:
                with open("growing", "a") as file: file.write("x" * 100)
                os.truncate("growing", 1)
        while True:
            try:
                os.symlink("/etc/passwd", other); os.rename(other, "target")
                with open(other, "w") as file: file.write("mine" * 1000)
                os.rename(other, "target")
            except OSError: pass
while not os.path.islink("target"): pass
"""
    outcome = await box.python(code, collect=["target", "growing"])
    assert outcome.exit.status == 0, outcome.error_text
    assert outcome.artifacts.get("target", b"") in (b"mine" * 1000, b"")
    assert ("target" in outcome.artifacts) != ("target" in outcome.skipped)
    assert set(outcome.artifacts["growing"]) == {ord("x")}


async def test_attack_52_no_set_uid_bit_and_no_capability_comes_out(box: Box) -> None:
    code = """
import os
for name, mode in (("suid", 0o4755), ("sgid", 0o2755), ("sticky", 0o1777), ("tool", 0o755), ("plain", 0o644), ("open", 0o666)):
    with open(name, "w") as file: file.write("x")
    os.chmod(name, mode)
try:
    os.setxattr("tool", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
except OSError as error:
    print(error.errno)
"""
    sandbox = await box.make()
    output: list[bytes] = []
    ran = Command((PYTHON, "main.py"), ENVIRONMENT, files=(InputFile("main.py", code.encode()),))
    await follow(sandbox, ran, lambda _name, data: output.append(data))
    pack, _skipped, _cpu_ms = await sandbox.collect(["s*", "tool", "plain", "open"], 1000, 10)
    sandbox.close()
    os.close(pack.descriptor)
    modes = {file.name: file.mode for file in pack.files}
    assert modes == {"suid": 0o755, "sgid": 0o755, "sticky": 0o755, "tool": 0o755, "plain": 0o644, "open": 0o644}
    assert b"".join(output).strip() == b"1"  # EPERM


async def test_attack_53_folders_and_files_that_may_not_be_read_are_left_out(box: Box) -> None:
    script = """
        mkdir locked blind; echo x > locked/file; echo x > blind/file; echo x > secret; echo x > open
        chmod 000 locked secret; chmod 444 blind
    """
    outcome = await box.shell(script, collect=["*"])
    assert outcome.artifacts == {"open": b"x\n"}
    assert outcome.skipped == dict.fromkeys(("locked", "blind/file", "secret"), "Permission denied")


async def test_attack_53_an_unreadable_working_directory_yields_nothing_and_breaks_nothing(box: Box) -> None:
    outcome = await box.shell("echo x > file; chmod 000 .", collect=["*"])
    assert outcome.artifacts == {}
    assert outcome.skipped == {"": "Permission denied"}


async def test_attack_15_ten_thousand_folders_deep(box: Box) -> None:
    code = """
import os
for number in range(10_000):
    os.mkdir("d"); os.chdir("d")
    if number < 100: open("file", "w").close()
"""
    outcome = await box.python(code, collect=["*"], specification=SandboxSpec(writable_inodes=20_000))
    assert outcome.exit.status == 0, outcome.error_text
    assert 60 < len(outcome.artifacts) < 80  # as deep as anybody looks
    await until(lambda: box.launcher.alive == 0)


async def test_attack_16_odd_file_names_come_out_as_they_are(box: Box) -> None:
    code = """
names = [b"new\\nline", b"-rf", b"\\xff\\xfe", b"x" * 255, b"\\x1b[31m", "ü".encode(), b"a\\\\b", b" ", b"..."]
for name in names: open(name, "w").close()
"""
    outcome = await box.python(code, collect=["*"])
    expected = [b"new\nline", b"-rf", b"\xff\xfe", b"x" * 255, b"\x1b[31m", "ü".encode(), b"a\\b", b" ", b"...", b"main.py"]
    assert {os.fsencode(name) for name in outcome.artifacts} == set(expected)


async def test_a_sparse_file_is_counted_by_its_length(box: Box) -> None:
    outcome = await box.shell("truncate -s 60M sparse; truncate -s 1000 small", collect=["*"])
    assert outcome.artifacts == {"small": bytes(1000)}
    assert outcome.skipped == {"sparse": "too large"}


async def test_only_requested_files_are_collected_or_reported(box: Box) -> None:
    outcome = await box.shell("echo a > a.txt; echo b > b.bin; mkfifo pipe; mkdir d; echo c > d/c.txt", collect=["*.txt"])
    assert outcome.artifacts == {"a.txt": b"a\n", "d/c.txt": b"c\n"}
    assert outcome.skipped == {}


async def test_more_files_than_allowed_are_left_out_with_the_reason(box: Box) -> None:
    outcome = await box.shell("for number in $(seq 1 120); do echo $number > f$number; done", collect=["f*"], open_files=12)
    assert len(outcome.artifacts) == 100
    assert set(outcome.skipped.values()) == {"too many"}
    assert outcome.artifacts["f1"] == b"1\n"


async def test_a_program_with_few_descriptors_still_starts(box: Box) -> None:
    """Our own descriptors stay below every possible limit. Shells need ten, so this is not a shell."""
    outcome = await box.run("/bin/cp", "-v", "a", "b", files={"a": "hello"}, collect=["b"], open_files=8)
    assert (outcome.text, outcome.artifacts) == ("'a' -> 'b'\n", {"b": b"hello"})


@pytest.mark.parametrize("shape", ["long names", "folders below a long path", "pipes"])
async def test_collecting_from_a_hostile_tree_is_bounded(box: Box, shape: str) -> None:
    """All inodes, with the longest names: PID 1 must neither run out of memory nor send a huge index."""
    code = """
import os, sys
def fill(make):
    number = 0
    try:
        while True:
            make(f"{number:0>250}"); number += 1
    except OSError:
        print(number > 25_000)
match sys.argv[1]:
    case "long names":
        fill(lambda name: os.mknod("\\udcff" * 5 + name))
    case "pipes":
        fill(lambda name: os.mkfifo(name))
    case _:
        for _ in range(14):
            os.mkdir("p" * 250); os.chdir("p" * 250)
        fill(os.mkdir)
"""
    specification = SandboxSpec(writable_inodes=30_000)
    outcome = await box.python(code, shape, collect=["*"], specification=specification, memory_bytes=96 << 20, wall_ms=60_000)
    assert outcome.text == "True\n", (outcome.error_text, outcome.exit)
    assert outcome.exit.killed_by == ""
    assert len(outcome.skipped) <= 100
    if shape == "long names":
        assert len(outcome.artifacts) == 100


async def test_files_are_taken_although_the_program_used_up_its_memory(box: Box) -> None:
    """Written files are memory too, and remain after the end: PID 1 needs room to work, or must report that it has none."""
    code = """
open("result", "w").write("here")
with open("/dev/shm/fill", "wb") as file:
    for _ in range(1600): file.write(b"x" * 65536)
input()
"""
    ran = Command(
        (PYTHON, "main.py"),
        ENVIRONMENT,
        files=(InputFile("main.py", code.encode()),),
        interactive=True,
        memory_bytes=64 << 20,
        file_size_bytes=1 << 30,
        wall_ms=60_000,
    )
    sandbox = await box.make()
    ended = await follow(sandbox, ran, lambda _name, _data: None)
    assert ended.killed_by == "memory"
    try:
        pack, _skipped, _cpu_ms = await sandbox.collect(["result"], 1000, 10)
    except SandboxFailure:
        pass  # the kernel took PID 1 as well: nothing else was left to take
    else:
        assert [file.name for file in pack.files] == ["result"]
        os.close(pack.descriptor)
    sandbox.close()


async def test_a_pack_of_another_stage_is_written_as_it_is(box: Box) -> None:
    content = os.memfd_create("pack")
    os.write(content, b"#!/bin/sh\necho from the pack\n" + b"x" * 100)
    pack = Pack(content, (PackedFile("bin/tool", 0, 29, 0o755), PackedFile("rest", 29, 100, 0o600)))
    outcome = await box.run("bin/tool", packed=pack, collect=["*"])
    assert outcome.text == "from the pack\n"
    assert outcome.artifacts["rest"] == b"x" * 100
    short = Pack(content, (PackedFile("beyond", 29, 1000, 0o644),))
    with pytest.raises(CommandRefused):
        await box.run("/bin/true", packed=short)
    os.close(content)


async def test_nothing_of_the_host_changes(box: Box) -> None:
    """Write to and delete everything writable inside: the same file on the host is unchanged."""
    watched = [Path("/usr/bin/env"), Path("/etc/passwd"), Path("/etc/hostname"), HERE]
    before = [(path, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest()) for path in watched if path.exists()]
    temporary = set(os.listdir("/tmp"))
    outcome = await box.shell(
        """
        for path in /usr/bin/env /etc/passwd /etc/hostname /bin /usr/local /etc /dev/null /proc/sys/kernel/hostname; do
            echo x >> $path; rm -rf $path; mv -T $path $path.moved; chmod 777 $path; touch $path; ln -sf /tmp $path
        done 2>/dev/null
        echo x > /tmp/firebox-was-here; echo x > /dev/shm/firebox-was-here; echo x > /run/lock/firebox-was-here
        echo x > /var/tmp/firebox-was-here2; echo x > $HOME/firebox-was-here; echo x > /firebox-was-here; mkdir /new
        head -c 4 /usr/bin/env; ls / /tmp
        """
    )
    assert outcome.stdout.startswith(b"\x7fELF")
    assert "firebox-was-here" in outcome.text.split("/tmp:")[1]
    assert "firebox-was-here" not in outcome.text.split("/tmp:")[0]
    assert before == [
        (path, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest()) for path, _time, _hash in before
    ]
    assert not {name for name in set(os.listdir("/tmp")) - temporary if "was-here" in name}
    for place in ("/dev/shm", "/run/lock", "/var/tmp", "/"):
        assert not [name for name in os.listdir(place) if "was-here" in name]


async def test_input_files_belong_to_the_program_only(box: Box) -> None:
    outcome = await box.python(
        "import os\nstatus = os.stat('main.py')\nprint(status.st_uid == os.getuid(), status.st_gid == os.getgid(), oct(status.st_mode))"
    )
    assert outcome.text.split() == ["True", "True", oct(stat.S_IFREG | 0o644)]


async def test_two_collections_at_once_in_two_sandboxes_do_not_mix(box: Box) -> None:
    first, second = await asyncio.gather(*(box.shell(f"echo {word} > file", collect=["file"]) for word in ("first", "second")))
    assert (first.artifacts, second.artifacts) == ({"file": b"first\n"}, {"file": b"second\n"})
