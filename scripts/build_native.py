"""Compile native/*.c into one static executable, the launcher of sandboxes: `make native`.

It contains another one, native/restorer/, as bytes: the beginning of the templates that it makes.

The build hook (hatch_build.py), scripts/setup and tests use this. It needs nothing but the standard library, as scripts/setup
runs it before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"
EXECUTABLE = ROOT / "src/firebox/sandbox/firebox-launcher"
"""Where the product looks for it; git ignores it, and wheels carry it."""
BUILD = ROOT / "build/native"
"""For what is not finished yet and for executables of other processors."""

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Wvla")
COMPILE = (
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-O2",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
    "-ffunction-sections",
    "-fdata-sections",
)
LINK = ("-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,--gc-sections", "-Wl,--build-id=none", "-s")
COMPILE_RESTORER = (
    *("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIE", "-ffreestanding", "-fno-stack-protector", "-fcf-protection=none"),
    *("-fno-asynchronous-unwind-tables", "-fno-sanitize=all", "-c"),
)
LINK_RESTORER = (
    *("-static", "-nostdlib", "-Wl,--no-dynamic-linker", "-Wl,-z,noexecstack", "-Wl,-z,norelro", "-Wl,-z,max-page-size=4096"),
    *("-Wl,--build-id=none", "-s"),
)
"""It copies itself to another place while it runs: no C library, no relocations, nothing but code."""
FORTIFY = ("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2")
"""Checks of glibc's headers; musl has none. Some compilers define it themselves, and warn about a second definition."""

ZIG_TARGETS = {"x86_64": "x86_64-linux-musl", "aarch64": "aarch64-linux-musl"}
_MACHINES = {62: "x86_64", 183: "aarch64"}
PT_INTERP = 3
"""The program header of what is not static."""
_TIMEOUT_S = 600
"""Zig compiles its C library before its first program, which takes a minute."""
_PROBE = """
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) { return syscall(SYS_getpid) > 0 && SECCOMP_RET_ALLOW != SECCOMP_RET_ERRNO && BPF_LD == 0 ? 0 : 1; }
"""
_HINT = """Please install a compiler, one of these, and try again:
    apt-get install gcc libc6-dev musl-tools    Debian, Ubuntu
    dnf install gcc glibc-static                Fedora
    apk add gcc musl-dev linux-headers          Alpine
    python3 -m pip install ziglang              anywhere, without root
or name one that can link a static program: CC=/path/to/cc"""


class BuildError(Exception):
    """The launcher cannot be compiled; the message says why, and what to do."""


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]
    flags: tuple[str, ...]
    """Those that make its programs static."""
    headers: tuple[str, ...] = ()
    """Those with which it finds Linux' headers."""


@dataclass(frozen=True)
class Elf:
    machine: str
    segments: tuple[tuple[int, int], ...]
    """Type and flags of each program header."""

    def has(self, kind: int) -> bool:
        return any(kind == each for each, _ in self.segments)


def build(output: Path = EXECUTABLE, *, target: str = "", strict: bool = False) -> Path:
    """Compile the launcher unless that has been done, and return where it is.

    target: of another processor, as "aarch64-linux-musl"; "" for this machine.
    strict: warnings are errors, and it is compiled in any case.

    The executable is replaced in one step: a launcher that runs keeps its file, and two builds at once do not meet.
    """
    if strict or not is_built(output, target=target):
        compiler = find_compiler(target=target)
        # On the same file system, but not inside of the package, of which tests and builds copy all that is there.
        with _workplace(BUILD if output == EXECUTABLE else output.parent) as folder:
            made = folder / output.name
            flags = (*WARNINGS, "-Werror") if strict else WARNINGS
            write_restorer(compiler, folder, flags, target=target)
            names = [path.name for path in sources()]
            options = [*compiler.flags, *COMPILE, *flags, f"-I{folder}"]
            _compile(compiler, [*options, *names, *LINK], made, folder=NATIVE)
            made.chmod(0o755)
            stamp = folder / "stamp"
            stamp.write_text(json.dumps({"ingredients": _ingredients(target), "executable": _digest(made)}))
            made.replace(output)
            stamp.replace(_stamp(output))
    return output


def is_built(output: Path = EXECUTABLE, *, target: str = "") -> bool:
    """Check whether the executable is there and was made of what is there now."""
    try:
        stamp = json.loads(_stamp(output).read_text())
        return stamp == {"ingredients": _ingredients(target), "executable": _digest(output)} and os.access(output, os.X_OK)
    except (OSError, ValueError):
        return False


def sources() -> list[Path]:
    """Return the files that are compiled, in a fixed order."""
    return sorted(NATIVE.glob("*.c"))


def write_restorer(compiler: Compiler, folder: Path, flags: Sequence[str] = (), *, target: str = "") -> None:
    """Compile native/restorer/ and write it into a folder as restorer.inc, an array of C, for processors with templates."""
    if not (target or platform.machine()).startswith("x86_64"):
        return
    compiled, linked = folder / "restorer.o", folder / "restorer"
    _compile(compiler, [*COMPILE_RESTORER, *flags, "restorer/restorer.c"], compiled, folder=NATIVE)
    _compile(compiler, [*LINK_RESTORER, str(compiled)], linked, folder=NATIVE)
    content = ",".join(map(str, linked.read_bytes()))
    (folder / "restorer.inc").write_text(f"static const unsigned char restorer[] = {{{content}}};\n")


def find_compiler(*, target: str = "", with_zig: bool = True) -> Compiler:
    """Return a compiler that makes static programs here: $CC, musl-gcc, cc or that of the `ziglang` package.

    With musl a program starts in a tenth of a millisecond. glibc asks the processor about itself first, which takes most of
    another one in a virtual machine, where each such question goes to the hypervisor.

    target: of another processor; only ziglang compiles for those.
    with_zig: false to find out whether a compiler has to be installed.

    Raises BuildError, which says for each why it was not taken.
    """
    refused: list[str] = []
    with _workplace(BUILD) as folder:
        for compiler in _candidates(target, with_zig=with_zig):
            reason = _reason_against(compiler, folder, target)
            if reason is None:
                return compiler
            refused.append(f"    {shlex.join([*compiler.command, *compiler.flags])}: {reason}")
    tried = "\n".join(refused) or "    there is none"
    hint = "Only the package ziglang compiles for other processors: python3 -m pip install ziglang" if target else _HINT
    raise BuildError(f"no C compiler here can make a static program.\n{tried}\n{hint}")


def read_elf(path: Path) -> Elf:
    """Read which processor a 64-bit executable is for, and its program headers. Raises ValueError for other files."""
    content = path.read_bytes()
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is not a 64-bit little-endian ELF file")
    (machine,) = struct.unpack_from("<H", content, 18)
    (offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    headers = (struct.unpack_from("<II", content, offset + size * number) for number in range(count))
    return Elf(_MACHINES.get(machine, str(machine)), tuple(headers))


def wheel_tag(executable: Path) -> str:
    """Return the tag of a wheel with this executable, which needs no C library: glibc's and musl's systems both run it."""
    machine = read_elf(executable).machine
    if machine not in ZIG_TARGETS:
        raise BuildError(f"Firebox is for x86-64 and AArch64, and {executable} is for another processor ({machine})")
    return f"py3-none-manylinux2014_{machine}.musllinux_1_1_{machine}"


def _candidates(target: str, *, with_zig: bool) -> Iterator[Compiler]:
    zig = _zig(target or ZIG_TARGETS.get(platform.machine(), "")) if with_zig else None
    if target:
        # FIREBOX_TARGET asks for another processor: a compiler for this one is no substitute.
        yield from [zig] if zig else []
        return
    if chosen := shlex.split(os.environ.get("CC", "")):
        # As chosen or not at all: it may be there for its own reasons, such as another version of Linux' headers.
        yield from _static(chosen)
        return
    if found := shutil.which("musl-gcc"):
        yield from _static([found])
    if found := shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"):
        yield from _static([found])
    if zig:
        yield zig


def _static(command: Sequence[str]) -> Iterator[Compiler]:
    """Yield how a compiler may make a static program, the best way first.

    That is a position-independent one, whose addresses differ from run to run; not every C library comes with that.
    """
    if "musl" in Path(command[0]).name:
        # Debian's looks into musl's own folder alone, where Linux' headers are not.
        machine = platform.machine()
        headers = ("-idirafter", "/usr/include", "-idirafter", f"/usr/include/{machine}-linux-gnu")
        # It does not know -static-pie, but musl has what that takes. The linker finds these in the folder of the library.
        start = ("-nostartfiles", "-l:rcrt1.o", "-l:crti.o", "-l:crtn.o", "-Wl,-pie,--no-dynamic-linker,-z,text")
        yield Compiler(tuple(command), ("-static", "-fPIE", *start), headers)
        yield Compiler(tuple(command), ("-static",), headers)
    else:
        yield Compiler(tuple(command), ("-static-pie", "-fPIE", *FORTIFY))
        yield Compiler(tuple(command), ("-static", *FORTIFY))


def _zig(target: str) -> Compiler | None:
    if not target or importlib.util.find_spec("ziglang") is None:
        return None
    return Compiler((sys.executable, "-m", "ziglang", "cc", "-target", target), ("-static", "-fPIE", "-pie"))


def _reason_against(compiler: Compiler, folder: Path, target: str) -> str | None:
    """Return why a compiler cannot be used, None when it can: it makes a static program that runs."""
    (folder / "probe.c").write_text(_PROBE)
    probe = folder / "probe"
    try:
        _compile(compiler, [*compiler.flags, *COMPILE, "probe.c", *LINK], probe, folder=folder)
        if read_elf(probe).has(PT_INTERP):
            return "its program is not static"
        if not target and read_elf(probe).machine == platform.machine():
            subprocess.run([probe], check=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except BuildError as problem:
        return str(problem).strip().partition("\n")[0]
    except (OSError, ValueError, subprocess.SubprocessError) as problem:
        return f"its program does not run ({problem})"
    return None


def _compile(compiler: Compiler, words: Sequence[str], output: Path, *, folder: Path) -> None:
    """Compile files of a folder, which become the same program wherever that folder is. words: options, and their names."""
    command = [*compiler.command, *compiler.headers, *words, "-o", str(output)]
    # Zig keeps what it compiled of its C library: here rather than in a home, which may not be there.
    cache = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(BUILD / "zig"))
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=cache | os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=_TIMEOUT_S,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError) as problem:
        raise BuildError(str(problem)) from problem
    if done.returncode:
        raise BuildError(f"{done.stdout.strip() or 'no message'}\n{shlex.join(command)}: exit status {done.returncode}")
    sys.stderr.write(done.stdout)


def _ingredients(target: str) -> str:
    """Return a digest of all that the executable is made from: the files, and which compilers there are to choose from."""
    digest = hashlib.sha256()
    files = (*sources(), *sorted(NATIVE.glob("*.h")), NATIVE / "restorer/restorer.c", Path(__file__))
    for path in (*files, ROOT / "requirements-compiler.lock"):
        content = path.read_bytes() if path.exists() else b""
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    chosen = shlex.split(os.environ.get("CC", ""))
    for name in (*chosen[:1], "musl-gcc", "cc", "gcc", "clang"):
        found = shutil.which(name)
        status = Path(found).stat() if found else None
        digest.update(f"{found} {status and (status.st_size, status.st_mtime_ns)}\n".encode())
    digest.update(repr((target, chosen)).encode())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stamp(output: Path) -> Path:
    """Return the file that tells what an executable was made of."""
    return output.with_name(f".{output.name}.stamp")


@contextmanager
def _workplace(place: Path) -> Generator[Path]:
    """Make a folder in a place, which is removed afterwards."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the launcher of sandboxes.")
    parser.add_argument("--strict", action="store_true", help="compile in any case, and let warnings be errors")
    parser.add_argument("--possible", action="store_true", help="only check that it is compiled or that a compiler is there")
    arguments = parser.parse_args()
    target = os.environ.get("FIREBOX_TARGET", "")
    output = BUILD / target / EXECUTABLE.name if target else EXECUTABLE
    try:
        if not arguments.possible:
            build(output, target=target, strict=arguments.strict)
        elif not is_built(output, target=target):
            find_compiler(target=target)
    except BuildError as problem:
        sys.exit(f"firebox: {problem}")


if __name__ == "__main__":
    main()
