"""Python's hook in copies of one memory image: what must differ between them does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from firebox.runtimes.prestart import hook_texts
from tests.conftest import require_tool

PYTHON = "/usr/bin/python3"
COPIES = 12
COPYING = """
import ctypes, os, sys
hook, program, preloaded, number = sys.argv[1:]

# A fork of C, of which Python and its modules do not hear.
fork, wait = ctypes.CDLL(None).fork, ctypes.CDLL(None).wait

def read(_descriptor, _size):
    for _ in range(int(number)):
        if fork() == 0:
            return b""
        wait(0)
    os._exit(0)

os.dup2(os.open("/dev/null", os.O_RDONLY), 200)
os.environ.update(PYTHONPATH="/nowhere", FIREBOX_PRELOAD=preloaded)
sys.path.append("/nowhere")
os.read, real = read, os.read
try:
    exec(compile(hook, "sitecustomize.py", "exec"), {"__file__": "/nowhere/sitecustomize.py"})
except ImportError:
    pass
os.read = real
exec(compile(program, "main.py", "exec"), {})
sys.stdout.flush()
os._exit(0)
"""
"""Stands in for what restores an interpreter from a copy of its memory, at the read of the hook."""

WITHOUT = """
import os, sys
for name in os.environ["FIREBOX_PRELOAD"].split():
    __import__(name)
if "_ssl" in sys.modules:
    sys.modules["_ssl"].RAND_bytes(1)
os.read(200, 1)
"""
"""A hook that does nothing about it: what it shows to be the same in all copies is what a test can fail with."""


@pytest.fixture(scope="module")
def one_pid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with the same pid in every process, like the first process of every namespace: OpenSSL depends on it."""
    folder = tmp_path_factory.mktemp("one_pid")
    (folder / "one_pid.c").write_text("int getpid(void) { return 77; }\n")
    command = [require_tool("cc"), "-shared", "-fPIC", "-o", "one_pid.so", "one_pid.c"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return folder / "one_pid.so"


def run_copies(one_pid: Path, hook: str, program: str, preloaded: str) -> list[str]:
    """Return the output of each copy, without its last newline."""
    command = [PYTHON, "-S", "-c", COPYING, hook, program, preloaded, str(COPIES)]
    env = {"LD_PRELOAD": str(one_pid), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == COPIES
    return lines


GENERATORS = {
    "random": ("random", "import random; print(random.random())"),
    "gauss": ("random", "import random; print(random.gauss(0, 1))"),
    "openssl": ("ssl", "import ssl; print(ssl.RAND_bytes(16))"),
    "key_of_processes": ("multiprocessing", "import multiprocessing as m; print(bytes(m.current_process().authkey))"),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_start_anew_in_each_copy(one_pid: Path, name: str) -> None:
    preloaded, program = GENERATORS[name]
    assert len(set(run_copies(one_pid, WITHOUT, program, preloaded))) == 1
    assert len(set(run_copies(one_pid, hook_texts()["sitecustomize.py"], program, preloaded))) == COPIES


def test_numpy_gets_a_new_generator(one_pid: Path) -> None:
    """A substitute, because tests do not depend on numpy: it is called like the real one."""
    preloaded = "numpy.random.mtrand"
    program = "import sys; print(sys.modules['numpy.random.mtrand'].heard)"
    numpy = """
import sys, types
sys.modules["numpy.random._mt19937"] = types.SimpleNamespace(MT19937=lambda: "new")
mtrand = sys.modules["numpy.random.mtrand"] = types.SimpleNamespace(heard=[])
mtrand.set_bit_generator = mtrand.heard.append
del sys, types, mtrand
"""
    assert run_copies(one_pid, numpy + hook_texts()["sitecustomize.py"], program, preloaded) == ["['new']"] * COPIES


def test_addresses_of_new_objects_are_others_in_each_copy(one_pid: Path) -> None:
    program = """
class Plain: pass
class Full:
    def __init__(self): self.a = 1
some = [[0], {0: 0}, object(), Plain(), Full(), len(Plain.__name__) * 1.5, str(Plain), 2000 * len(str(Plain)), Full]
some += [object() for _ in range(2000)][-1:] + [Plain() for _ in range(2000)][-1:] + [bytes(200_000)]
print(*map(id, some))
"""
    same, others = (run_copies(one_pid, hook, program, "") for hook in (WITHOUT, hook_texts()["sitecustomize.py"]))
    assert len(set(same)) == 1
    for addresses in zip(*map(str.split, others), strict=True):
        assert len(set(addresses)) > 1, others


SEEN = "import os; type(os.environ).__del__ = lambda self, write=os.write: write(1, b'taken apart')\n"
"""The one visible difference: the class of an earlier object gets a `__del__`, which the hook does not look for."""


@pytest.mark.parametrize(
    ("program", "is_taken_apart"),
    [
        ("print('x')", False),
        ("class C: pass\nx = [C() for _ in range(500)]\ndef f(): return lambda: 0\ng = f()", False),
        ("import math, collections, heapq, bisect, re, random, string, functools, datetime", False),
        ("import sys; sys.exit(0)", True),
        ("f = open('/dev/null')", True),
        ("import threading", True),
    ],
)
def test_only_what_nothing_is_seen_of_is_not_taken_apart(tmp_path: Path, program: str, is_taken_apart: bool) -> None:
    (tmp_path / "sitecustomize.py").write_text(hook_texts()["sitecustomize.py"])
    (tmp_path / "main.py").write_text(SEEN + program)
    command = [require_tool("bash"), "-c", f'exec 200</dev/null; exec {PYTHON} "$0"', str(tmp_path / "main.py")]
    env = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("taken apart") == is_taken_apart


@pytest.mark.parametrize("is_captured", [False, True])
def test_another_process_compiles_the_hook_where_memory_is_captured(tmp_path: Path, is_captured: bool) -> None:
    """What a compiler leaves in memory would be copied with each restore."""
    (tmp_path / "hook.py").write_text(hook_texts()["sitecustomize.py"])
    program = """
import builtins, io, os, sys
with open("hook.py") as file:
    hook = compile(file.read(), "/nowhere/sitecustomize.py", "exec")
def open_status(*about, real=open):
    return io.BytesIO(real(*about).read().replace(b"TracerPid:\t0", b"TracerPid:\t3")) if "status" in str(about) else real(*about)
if len(sys.argv) > 1:
    builtins.open = open_status
events = []
sys.addaudithook(lambda name, _about: events.append(name))
sys.path.append("/nowhere")
try:
    exec(hook, {"__file__": "/nowhere/sitecustomize.py"})
except ImportError:
    pass
print([name for name in ("compile", "os.fork") if name in events], sys.modules["os"] is os)
try:
    os.wait()
except ChildProcessError:
    print("alone")
"""
    command = [
        require_tool("bash"),
        "-c",
        f'exec 200</dev/null; exec {PYTHON} -S -c "$0" "$@"',
        program,
        *(["captured"] if is_captured else []),
    ]
    env = {"PYTHONPATH": "/nowhere"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{['os.fork'] if is_captured else ['compile']} True\nalone\n"


@pytest.mark.parametrize(
    "text",
    [
        "import sys; print(__name__, __file__, __cached__, __spec__.origin, __loader__.path, *vars()); x = 1",
        "import nothing_of_this_name",
        "print('seen'); 1 / 0",
        "x = (",
    ],
)
def test_the_interpreters_own_module_of_this_name_is_run_with_the_program(tmp_path: Path, text: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(text)
    program = """
import os, sys
sys.path[:] = [os.getcwd(), *sys.path[1:], "/nowhere"]
hook, read = sys.argv[1], os.read
def say_when(*about):
    print("the program comes")
    return read(*about)
os.read = say_when
try:
    if hook:
        exec(compile(hook, "/nowhere/sitecustomize.py", "exec"), {"__file__": "/nowhere/sitecustomize.py"})
    else:
        print("the program comes")
        import sitecustomize
except Exception as error:
    print(repr(error))
print(getattr(sys.modules.get("sitecustomize"), "x", "no x"))
"""
    command = [require_tool("bash"), "-c", f'exec 200</dev/null; exec {PYTHON} -S -c "$0" "$1"', program]
    env = {"PYTHONPATH": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"}
    with_hook, without = (
        subprocess.run([*command, hook], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
        for hook in (hook_texts()["sitecustomize.py"], "")
    )
    assert (with_hook.returncode, with_hook.stderr) == (0, "")
    assert with_hook.stdout == without.stdout
    assert with_hook.stdout.startswith("the program comes\n")
