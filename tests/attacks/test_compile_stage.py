"""Attacks 32 to 38 on the compile stage: what compilers can be made to read, write, compute and print."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from firebox.domain.limits import LimitRequest
from firebox.domain.model import Cancel, File, Job, Result, Verdict
from tests.attacks.conftest import ENDED, PATIENT, SHORT, Open, Workshop, infested, printed, shown

NOT_READ = {Verdict.COMPILE_ERROR, Verdict.OK, Verdict.RUNTIME_ERROR}

C_INCBIN = r"""
#include <unistd.h>
__asm__(".section .rodata\n.globl stolen\nstolen: .incbin \"{path}\"\n.globl stolen_end\nstolen_end: .byte 0\n.text");
extern const char stolen[], stolen_end[];
int main(void) { return write(1, stolen, stolen_end - stolen) < 0; }
"""
RUST_BYTES = """
use std::io::Write;
fn main() { std::io::stdout().write_all(include_bytes!("{path}")).unwrap(); }
"""
RUST_ASSEMBLER = r"""
use std::io::Write;
core::arch::global_asm!(".globl stolen", "stolen: .incbin \"{path}\"", ".globl stolen_end", "stolen_end: .byte 0");
extern "C" { static stolen: u8; static stolen_end: u8; }
fn main() {
    let bytes = unsafe {
        let begin = std::ptr::addr_of!(stolen);
        std::slice::from_raw_parts(begin, std::ptr::addr_of!(stolen_end) as usize - begin as usize)
    };
    std::io::stdout().write_all(bytes).unwrap();
}
"""
NASM_INCBIN = """
global _start
section .text
_start: mov rax, 1
mov rdi, 1
mov rsi, stolen
mov rdx, end - stolen
syscall
mov rax, 60
xor rdi, rdi
syscall
section .data
stolen: incbin "{path}"
end: db 0
"""
GO_EMBED = 'package main\n\nimport _ "embed"\n\n//go:embed {path}\nvar stolen string\n\nfunc main() { println(stolen) }\n'

READERS: dict[str, tuple[str, str, str]] = {
    "C #include": ("c", "main.c", '#include "{path}"\n'),
    "C .incbin": ("c", "main.c", C_INCBIN),
    "C++ #include": ("c++", "main.cpp", '#include "{path}"\n'),
    "C++ #include_next": ("c++", "main.cpp", '#if __has_include("{path}")\n#include "{path}"\n#endif\nint main() {}\n'),
    "Rust include!": ("rust", "main.rs", 'include!("{path}");\n'),
    "Rust include_bytes!": ("rust", "main.rs", RUST_BYTES),
    "Rust path": ("rust", "main.rs", '#[path = "{path}"] mod stolen;\nfn main() {}\n'),
    "Rust assembler": ("rust", "main.rs", RUST_ASSEMBLER),
    "NASM %include": ("nasm64", "main.asm", '%include "{path}"\n'),
    "NASM incbin": ("nasm64", "main.asm", NASM_INCBIN),
    "TypeScript reference": ("typescript", "main.ts", '/// <reference path="{path}" />\n'),
    "Perl BEGIN": ("perl", "main.pl", 'BEGIN { open my $f, "<", "{path}" or die; print <$f>; }\n'),
    "Perl require": ("perl", "main.pl", 'BEGIN { require "{path}" }\n'),
}
"""Programs that make the compiler read a file: language, main file, code."""

TELLS_ONLY_AN_ERROR = {"NASM %include", "Perl require"}
"""These read the file and report the position of the error, but not its content."""


@pytest.mark.parametrize("name", READERS)
async def test_attack_38_compilers_read_nothing_of_the_host(workshop: Workshop, name: str) -> None:
    language, main, code = READERS[name]
    # The attack works on a permitted file: one from the client.
    own = "own.ts" if language == "typescript" else "own.txt"
    result = await workshop.run(
        language, {main: code.replace("{path}", f"/box/{own}"), own: "MineAlone" if language == "typescript" else "MineAlone x;"}
    )
    assert (b"own.txt" if name in TELLS_ONLY_AN_ERROR else b"MineAlone") in shown(result)
    secret = workshop.secret_file.with_suffix(".ts") if language == "typescript" else workshop.secret_file
    for path in (str(secret), "/proc/1/environ", f"/proc/{os.getpid()}/environ", f"/proc/self/root{secret}", f"/box/..{secret}"):
        result = await workshop.run(language, {main: code.replace("{path}", path)})
        assert result.verdict in NOT_READ
        assert b"FIREBOX_TEST_SECRET" not in shown(result)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could read it in the first place")
@pytest.mark.parametrize("name", ["C .incbin", "Rust include_bytes!", "NASM incbin", "Perl BEGIN"])
async def test_attack_38_compilers_read_no_passwords(workshop: Workshop, name: str) -> None:
    language, main, code = READERS[name]
    lines = [line for line in Path("/etc/shadow").read_bytes().splitlines() if line.strip()]
    assert lines
    for path in ("/etc/shadow", "/proc/1/root/etc/shadow", "/etc/../etc/shadow", "/etc/gshadow"):
        result = await workshop.run(language, {main: code.replace("{path}", path)})
        assert not [line for line in lines if line in shown(result)]


async def test_attack_38_go_embeds_only_files_of_its_folder(workshop: Workshop) -> None:
    for path in (str(workshop.secret_file), f"../../{workshop.secret_file}", "/proc/1/environ", "/dev/zero", ".."):
        result = await workshop.run("go", {"main.go": GO_EMBED.replace("{path}", path)})
        assert result.verdict is Verdict.COMPILE_ERROR
        assert b"pattern" in shown(result)


@pytest.mark.slow
async def test_attack_38_go_embeds_files_of_its_folder(workshop: Workshop) -> None:
    result = await workshop.run("go", {"main.go": GO_EMBED.replace("{path}", "own.txt"), "own.txt": "MineAlone"})
    assert result.verdict is Verdict.OK
    assert b"MineAlone" in shown(result)


async def test_attack_38_compilers_read_nothing_of_other_jobs(workshop: Workshop) -> None:
    """One job runs with the secret in its files, arguments and environment, and another one's compiled program is cached."""
    kept = await workshop.run(
        "c", {"main.c": "int main(void) { return 0; }", "note.h": workshop.token}, env={"NOTE": workshop.token}, cache="binary"
    )
    assert kept.verdict is Verdict.OK
    await workshop.executor.cache.written()
    entries = [path for path in (workshop.folder / "data").rglob("*") if path.is_file()]
    assert entries
    neighbour = Job(
        language="bash",
        files=(File("main.sh", b'echo ready; read -r line; echo "$line"'), File("note.txt", workshop.token.encode(), False)),
        args=(workshop.token,),
        env={"NOTE": workshop.token},
        interactive=True,
        run_limits=PATIENT,
    )
    async with workshop.executor.submit(neighbour) as run:
        events = run.events()
        async for event in events:
            if getattr(event, "data", b"") == b"ready\n":
                break
        main = C_INCBIN.replace("{path}", str(entries[0]))
        assert (await workshop.run("c", {"main.c": main})).verdict is Verdict.COMPILE_ERROR
        looks = "".join(
            f'#if __has_include("/proc/{pid}/environ")\n__asm__(".incbin \\"/proc/{pid}/environ\\"");\n#endif\n'
            for pid in range(1, 400)
        )
        await workshop.run("c", {"main.c": looks + '#if __has_include("/box/note.txt")\n#error here\n#endif\nint main(void) {}'})
        code = (
            'for my $f (glob("/proc/*/{environ,cmdline} /box/* /tmp/* /dev/shm/*")) { open my $h, "<", $f or next; print <$h>; }'
        )
        result = await workshop.run("perl", {"main.pl": f"BEGIN {{ {code} }}"})
        assert b"PATH=" in printed(result), "its own it does see"
        await run.send(Cancel())


async def test_attack_32_stdin_of_a_job_is_for_its_program_not_for_its_compiler(workshop: Workshop) -> None:
    code = '#include "/dev/stdin"\n#include "/proc/self/fd/0"\n#include <stdio.h>\nint main(void) { puts(gets_(stdin)); }\n'
    code = code.replace("gets_(stdin)", "fgets((char[99]){0}, 99, stdin)")
    assert printed(await workshop.run("c", {"main.c": code}, stdin=b"#error eaten")) == b"#error eaten\n"


ENDLESS: dict[str, tuple[str, str, str]] = {
    "C /dev/zero": ("c", "main.c", '#include "/dev/zero"\n'),
    "C /dev/random": ("c", "main.c", '#include "/dev/random"\n'),
    "C /dev/full": ("c", "main.c", '#include "/dev/full"\n'),
    "C /dev/tty": ("c", "main.c", '#include "/dev/tty"\n'),
    "C .incbin": ("c", "main.c", C_INCBIN.replace("{path}", "/dev/zero")),
    "C itself": ("c", "main.c", '#include "main.c"\n#include "main.c"\n'),
    "C++ /dev/zero": ("c++", "main.cpp", '#include "/dev/zero"\n'),
    "Rust include!": ("rust", "main.rs", 'include!("/dev/zero");\n'),
    "Rust include_bytes!": ("rust", "main.rs", RUST_BYTES.replace("{path}", "/dev/urandom")),
    "Rust itself": ("rust", "main.rs", '#![recursion_limit = "4294967295"]\ninclude!("main.rs");\ninclude!("main.rs");\n'),
    "NASM %include": ("nasm64", "main.asm", '%include "/dev/zero"\n'),
    "NASM incbin": ("nasm64", "main.asm", 'global _start\n_start: incbin "/dev/zero"\n'),
    "TypeScript": ("typescript", "main.ts", '/// <reference path="/dev/zero" />\nimport a = require("/dev/zero");\n'),
    "Perl require": ("perl", "main.pl", 'BEGIN { require "/dev/zero" }\n'),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_attack_32_endless_input_ends_at_a_limit(workshop: Workshop, name: str) -> None:
    language, main, code = ENDLESS[name]
    limits = PATIENT if language == "typescript" else SHORT
    result = await workshop.run(language, {main: code}, compile_limits=limits, run_limits=SHORT)
    # If a device reads as empty, the program is empty too.
    assert result.verdict in ENDED, shown(result)[-2000:]
    _check_bounds(result, limits)


async def test_attack_32_pipe_without_a_writer_ends_at_a_limit(workshop: Workshop, parasite: bytes) -> None:
    limits = LimitRequest(wall_ms=4000)
    env = infested("gcc", begin="mkfifo /box/pipe.h")
    files: dict[str, str | bytes] = {"main.c": '#include "pipe.h"\nint main(void) {}\n', "parasite.so": parasite}
    result = await workshop.run("c", files, env=env, compile_limits=limits)
    assert result.verdict is Verdict.WALL_TIME


def _large(language: str) -> tuple[str, str]:
    """A program that contains half a gigabyte."""
    return {
        "c": ("main.c", "char a[500 << 20] = {1};\nint main(void) { return a[1]; }\n"),
        "c++": ("main.cpp", "char a[500 << 20] = {1};\nint main() { return a[1]; }\n"),
        "rust": (
            "main.rs",
            'static A: [u8; 500 << 20] = [1; 500 << 20];\nfn main() { println!("{}", A[std::env::args().count()]); }\n',
        ),
        "nasm64": ("main.asm", "global _start\nsection .data\n_start: times 500 << 20 db 1\n"),
        "go": ("main.go", "package main\n\nvar a = [1 << 30]byte{5: 1}\n\nfunc main() { println(a[len(a)-1]) }\n"),
    }[language]


@pytest.mark.parametrize("language", ["c", "c++", "rust", "nasm64", pytest.param("go", marks=pytest.mark.slow)])
async def test_attack_34_enormous_array_does_not_become_an_enormous_file(workshop: Workshop, language: str) -> None:
    main, code = _large(language)
    limits = LimitRequest(wall_ms=10_000, cpu_ms=4000, memory_bytes=512 << 20, file_size_bytes=64 << 20, writable_bytes=128 << 20)
    result = await workshop.run(language, {main: code}, compile_limits=limits)
    assert result.run is None
    assert result.verdict in ENDED
    _check_bounds(result, limits)


async def test_attack_33_array_of_sixteen_gigabytes_does_not_become_one(workshop: Workshop) -> None:
    result = await workshop.run("c", {"main.c": "main[-1u]={1};"}, compile_limits=SHORT)
    assert result.verdict in ENDED
    assert result.run is None
    # A compiler that writes sparse files gets no further than others.
    code = 'int main(void) { return 0; } __asm__(".section .x,\\"aw\\",@progbits; .skip 1 << 40");'
    result = await workshop.run("c", {"main.c": code}, compile_limits=SHORT)
    assert result.verdict in ENDED
    assert result.run is None


async def test_attack_34_string_that_doubles_forty_times_is_out_of_memory(workshop: Workshop) -> None:
    doubled = "".join(f"static final String S{n} = S{n - 1} + S{n - 1};\n" for n in range(1, 40))
    code = f'public class Main {{ static final String S0 = "xxxxxxxx";\n{doubled}public static void main(String[] a) {{}} }}'
    limits = LimitRequest(wall_ms=60_000, cpu_ms=30_000, memory_bytes=384 << 20)
    result = await workshop.run("java", {"Main.java": code}, compile_limits=limits)
    assert result.verdict in ENDED
    assert result.run is None
    _check_bounds(result, limits)


CPP_TEMPLATES = """
template<int N, long M> struct A { static const long v = A<N - 1, M * 2>::v + A<N - 1, M * 2 + 1>::v; };
template<long M> struct A<0, M> { static const long v = 1; };
int main() { return A<40, 1>::v; }
"""
CPP_CONSTEXPR = """
constexpr long f(long n) { long s = 0; for (long i = 0; i < n; i++) for (long j = 0; j < n; j++) s += i ^ j; return s; }
template<long N> struct G { static constexpr long v = f(5000 + N) + G<N - 1>::v; };
template<> struct G<0> { static constexpr long v = 0; };
int main() { return G<850>::v; }
"""
RUST_CONST = """
#![allow(long_running_const_eval)]
const X: u64 = { let mut i = 0u64; loop { i = i.wrapping_add(1); if i == u64::MAX { break i } } };
fn main() { println!("{}", X); }
"""
RUST_GENERICS = """
#![recursion_limit = "100000000"]
trait T { fn f(); }
struct A<X>(X);
impl<X> T for A<X> { fn f() { <A<(X, X)> as T>::f(); <A<A<X>> as T>::f(); } }
fn main() { <A<u8> as T>::f(); }
"""
TYPESCRIPT_TYPES = """
type D = "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9";
type A = `${D}${D}${D}${D}`;
type L<T, N extends any[] = []> = T extends `${infer H}${infer R}` ? L<R, [...N, H]> : N;
type X = { [K in A]: { [M in A]: L<`${K}${M}`> } };
let z: X[A][A] = 1;
"""
C_MACROS = "#define A0 x x x x x x x x x x\n" + "".join(f"#define A{n} {f'A{n - 1} ' * 10}\n" for n in range(1, 12)) + "A11\n"
RUST_MACROS = """
#![recursion_limit = "4294967295"]
macro_rules! b { ($($t:tt)*) => { b!($($t)* $($t)*) } }
fn main() { b!(1 + 1); }
"""
NASM_MACROS = "%macro b 1\n%rep 100000\n%rep 100000\ndb %1\n%endrep\n%endrep\n%endmacro\nb 1\n"

BOMBS: dict[str, tuple[int, str, str, str]] = {
    "C++ templates": (35, "c++", "main.cpp", CPP_TEMPLATES),
    "C++ constexpr": (35, "c++", "main.cpp", CPP_CONSTEXPR),
    "Rust const": (35, "rust", "main.rs", RUST_CONST),
    "Rust generics": (35, "rust", "main.rs", RUST_GENERICS),
    "TypeScript types": (35, "typescript", "main.ts", TYPESCRIPT_TYPES),
    "Perl BEGIN": (35, "perl", "main.pl", "BEGIN { 1 while 1 }\n"),
    "Perl pattern": (35, "perl", "main.pl", 'BEGIN { ("a" x 40) =~ /^(?:(a+)+)+(??{""})b/ }\nBEGIN { 1 while 1 }\n'),
    "C macros": (36, "c", "main.c", C_MACROS),
    "C++ macros": (36, "c++", "main.cpp", C_MACROS),
    "Rust macros": (36, "rust", "main.rs", RUST_MACROS),
    "NASM macros": (36, "nasm64", "main.asm", NASM_MACROS),
    "assembler macros": (
        36,
        "c",
        "main.c",
        '__asm__(".rept 1000000\\n.rept 1000000\\n.byte 1\\n.endr\\n.endr");\nint main(void) {}\n',
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "TypeScript types" else name for name in BOMBS]
)
async def test_attacks_35_and_36_unbounded_growth_ends_at_a_limit(workshop: Workshop, name: str) -> None:
    _number, language, main, code = BOMBS[name]
    limits = LimitRequest(wall_ms=20_000, cpu_ms=5000, memory_bytes=384 << 20) if language == "typescript" else SHORT
    result = await workshop.run(language, {main: code}, compile_limits=limits, run_limits=SHORT)
    assert result.verdict in {Verdict.WALL_TIME, Verdict.CPU_TIME, Verdict.MEMORY, Verdict.COMPILE_ERROR}, shown(result)[-2000:]
    _check_bounds(result, limits)


_LONG = "x" * 50
FLOODS: dict[str, tuple[str, str, str, bool]] = {
    "C warnings": ("c", "main.c", "".join(f"#warning {_LONG} {n}\n" for n in range(3000)) + "int main(void) {}\n", True),
    "C errors": ("c", "main.c", "".join(f"int f{n}(void) {{ return u{n}; }}\n" for n in range(3000)), True),
    "C++ templates": (
        "c++",
        "main.cpp",
        "#include <algorithm>\n#include <map>\n#include <string>\n#include <vector>\nint main() {\n"
        "std::map<std::string, std::vector<std::map<std::string, std::string>>> m;\n"
        + "std::sort(m.begin(), m.end()); m < 1; m << m;\n" * 60
        + "}\n",
        True,
    ),
    "Rust errors": (
        "rust",
        "main.rs",
        "fn main() {\n" + "".join(f'let a{n}: i32 = "x".f{n}();\n' for n in range(600)) + "}\n",
        True,
    ),
    "NASM warnings": ("nasm64", "main.asm", f"%rep 10000\n%warning {_LONG}\n%endrep\nglobal _start\n_start: ret\n", True),
    "Java errors": ("java", "Main.java", "class Main {\n" + "".join(f"int a{n} = b{n};\n" for n in range(5000)) + "}\n", False),
    "Java one line": ("java", "Main.java", f"public class Main {{ int[] a = {{{'1,' * 400_000}}}; int b = c; }}\n", True),
    "TypeScript errors": ("typescript", "main.ts", "".join(f"let a{n}: number = '{_LONG}'; b{n};\n" for n in range(1500)), True),
    "Perl warnings": ("perl", "main.pl", f'use warnings; BEGIN {{ warn "{_LONG}\\n" for 1 .. 100_000 }}\n', True),
}
"""Language, main file, code, and whether it exceeds the limit."""


@pytest.mark.parametrize("name", FLOODS)
async def test_attack_37_flood_of_messages_is_cut_and_reported(workshop: Workshop, name: str) -> None:
    language, main, code, floods = FLOODS[name]
    limits = LimitRequest(wall_ms=100_000, cpu_ms=60_000, output_bytes=64 << 10)
    result = await workshop.run(language, {main: code}, compile_limits=limits, run_limits=limits)
    stage = result.compile or result.run
    assert stage is not None
    assert stage.stdout or stage.stderr
    assert (stage.stdout_truncated or stage.stderr_truncated) == floods
    assert len(stage.stdout) <= 64 << 10
    assert len(stage.stderr) <= 64 << 10


async def test_attacks_on_compilers_leave_room_for_honest_jobs(open_workshop: Open) -> None:
    workshop = await open_workshop(slots=3)
    bombs = [BOMBS["C++ templates"], BOMBS["C macros"]]
    running = [
        asyncio.ensure_future(workshop.run(language, {main: code}, compile_limits=SHORT, client=str(number)))
        for number, (_attack, language, main, code) in enumerate(bombs)
    ]
    honest = await workshop.run("c", {"main.c": '#include <stdio.h>\nint main(void) { puts("honest"); }\n'}, client="honest")
    assert printed(honest) == b"honest\n"
    assert {result.verdict for result in await asyncio.gather(*running)} <= ENDED


def _check_bounds(result: Result, limits: LimitRequest) -> None:
    for stage in (result.compile, result.run):
        if stage is not None and limits.memory_bytes:
            assert stage.memory_peak_bytes <= limits.memory_bytes
        if stage is not None and limits.output_bytes:
            assert max(len(stage.stdout), len(stage.stderr)) <= limits.output_bytes
