"""Real tools of this machine: a program of each language, compiled and run as its definition says, without a sandbox."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from firebox.domain.model import File
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from tests.conftest import missing, require_tool

MEMORY_BYTES = 512 << 20


@cache
def registry() -> Registry:
    return Registry(scan_host(os.environ["PATH"]).runtimes)


def execute(runtime: Runtime, folder: Path, files: dict[str, str], args: Sequence[str] = (), stdin: str = "") -> tuple[int, str]:
    """Compile and run in `folder`. Return the exit code and stdout of the last command."""
    placed = runtime.place([File(name, text.encode()) for name, text in files.items()])
    for file in placed:
        (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(file.content)
    names = [file.name for file in placed]
    home = folder / "home"
    home.mkdir()
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
    for command in runtime.compile_commands(names, 2 * MEMORY_BYTES):
        env = {**base, **runtime.environment("compile")}
        if "GOCACHE" in env:
            env["GOCACHE"] = str(folder / "go-cache")
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return done.returncode, done.stdout + done.stderr
    done = subprocess.run(
        runtime.run_command(names, args, MEMORY_BYTES),
        cwd=folder,
        env={**base, **runtime.environment("run")},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def of(language: str, version: str = "*") -> Runtime:
    found = [runtime for runtime in registry().all() if language in runtime.names]
    if not found:
        missing(f"{language} is not installed")
    return registry().resolve(language, version)


HELLO = {
    "ada": 'with Ada.Text_IO;\nprocedure Main is\nbegin\n  Ada.Text_IO.Put_Line ("hello");\nend Main;\n',
    "awk": 'BEGIN { print "hello" }',
    "bash": "echo hello",
    "bc": 'print "hello\\n"\n',
    "c": '#include <stdio.h>\n#include <math.h>\nint main(int n, char **a) { puts(sqrt(n) > 0 ? "hello" : "?"); }\n',
    "c++": '#include <iostream>\nint main() { std::cout << "hello\\n"; }\n',
    "coffeescript": 'console.log "hello"',
    "csharp": 'class P { static void Main() { System.Console.WriteLine("hello"); } }',
    "d": 'import std.stdio;\nvoid main() { writeln("hello"); }\n',
    "dash": "echo hello",
    "elixir": 'IO.puts "hello"',
    "emacs": '(princ "hello\\n")',
    "erlang": '#!/usr/bin/env escript\nmain(_) -> io:format("hello~n").\n',
    "fish": "echo hello",
    "forth": '." hello" cr\n',
    "fortran": "program main\n  print '(A)', 'hello'\nend program\n",
    "guile": '(display "hello")(newline)',
    "haskell": 'main = putStrLn "hello"\n',
    "java": 'public class Main { public static void main(String[] a) { System.out.println("hello"); } }\n',
    "javascript": "console.log('hello')",
    "jq": '"hello"',
    "julia": 'println("hello")',
    "kotlin": 'fun main() { println("hello") }\n',
    "lisp": '(write-line "hello")',
    "lua": "print('hello')",
    "nasm64": "section .data\nm: db 'hello', 10\nsection .text\nglobal _start\n_start:\nmov rax, 1\nmov rdi, 1\nmov rsi, m\n"
    "mov rdx, 6\nsyscall\nmov rax, 60\nxor rdi, rdi\nsyscall\n",
    "nim": 'echo "hello"',
    "ocaml": 'print_endline "hello"',
    "octave": 'printf("hello\\n");',
    "pascal": "begin writeln('hello') end.\n",
    "perl": 'print "hello\\n"',
    "php": '<?php echo "hello\\n";',
    "prolog": ":- write(hello), nl.\n",
    "python": "print('hello')",
    "racket": '#lang racket/base\n(displayln "hello")\n',
    "raku": "say 'hello'",
    "rscript": 'cat("hello\\n")',
    "ruby": "puts 'hello'",
    "rust": 'fn main() { println!("hello"); }\n',
    "sed": "s/in/hello/",
    "sqlite3": "select 'hello';",
    "tcl": "puts hello",
    "typescript": "const word: string = 'hello';\nconsole.log(word);\n",
    "zsh": "echo hello",
}


ALWAYS = [
    *("awk", "bash", "c", "c++", "java", "javascript", "lua", "perl"),
    *("php", "python", "ruby", "rust", "sed", "tcl", "typescript"),
]
"""What every developer's machine can have, and continuous integration must. Go has a test of its own."""


def check_hello(runtime: Runtime, folder: Path) -> None:
    folder.mkdir()
    # jq wants a value to begin with, sed a line.
    stdin = '"in"' if runtime.language == "jq" else "in"
    code, output = execute(runtime, folder, {runtime.main_name: HELLO[runtime.language]}, stdin=stdin)
    assert (code, output.strip().strip('"')) == (0, "hello"), runtime


@pytest.mark.parametrize("language", ALWAYS)
def test_hello(language: str, tmp_path: Path) -> None:
    of(language)
    for number, runtime in enumerate(runtime for runtime in registry().all() if runtime.language == language):
        check_hello(runtime, tmp_path / str(number))


def test_hello_in_whatever_else_is_here(tmp_path: Path) -> None:
    others = HELLO.keys() - set(ALWAYS)
    for number, runtime in enumerate(runtime for runtime in registry().all() if runtime.language in others):
        check_hello(runtime, tmp_path / str(number))


@pytest.mark.slow
def test_hello_in_go_with_its_library_compiled_from_source(tmp_path: Path) -> None:
    require_tool("go")
    source = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println(word()) }\n'
    files = {"main.go": source, "word.go": 'package main\n\nfunc word() string { return "hello" }\n'}
    assert execute(of("go"), tmp_path, files) == (0, "hello\n")


ECHO = {
    "bash": 'read -r line; echo "$line:$1:$2"',
    "python": "import sys\nprint(input() + ':' + ':'.join(sys.argv[1:]))",
    "javascript": "console.log(require('fs').readFileSync(0, 'utf8').trim() + ':' + process.argv.slice(2).join(':'))",
    "perl": 'chomp($l = <STDIN>); print join(":", $l, @ARGV), "\\n";',
    "c": '#include <stdio.h>\nint main(int n, char **a) { char l[9]; scanf("%8s", l); printf("%s:%s:%s\\n", l, a[1], a[2]); }\n',
    "java": "class Echo { public static void main(String[] a) {\n"
    'System.out.println(new java.util.Scanner(System.in).next() + ":" + String.join(":", a)); } }\n',
    "ruby": "puts [STDIN.gets.chomp, *ARGV].join(':')",
    "php": "<?php echo implode(':', [trim(fgets(STDIN)), ...array_slice($argv, 1)]), \"\\n\";",
    "lua": "print(io.read() .. ':' .. arg[1] .. ':' .. arg[2])",
    "tcl": 'puts "[gets stdin]:[join $argv :]"',
}


@pytest.mark.parametrize("language", sorted(ECHO))
def test_stdin_and_arguments(language: str, tmp_path: Path) -> None:
    runtime = of(language)
    done = execute(runtime, tmp_path, {runtime.main_name: ECHO[language]}, ["-v", "b c"], stdin="in\n")
    assert done == (0, "in:-v:b c\n")


@pytest.mark.parametrize(
    ("language", "source"),
    [("c", "int main() { return x; }"), ("rust", "fn main() { x }"), ("java", "class A { int x = y; }")],
)
def test_a_compiler_that_refuses(language: str, source: str, tmp_path: Path) -> None:
    code, output = execute(of(language), tmp_path, {of(language).main_name: source})
    assert code != 0
    assert "error" in output


@pytest.mark.parametrize(
    ("language", "files"),
    [
        ("python", {"main.py": "import lib.word\nprint(lib.word.WORD)", "lib/word.py": "WORD = 'hello'"}),
        ("bash", {"src/main.sh": ". ./lib.sh; word", "lib.sh": "word() { echo hello; }"}),
        (
            "c",
            {
                "src/main.code": '#include <stdio.h>\n#include "../inc/word.h"\nint main() { puts(word()); }\n',
                "inc/word.h": "const char *word(void);\n",
                "src/word.c": '#include "../inc/word.h"\nconst char *word(void) { return "hello"; }\n',
            },
        ),
        (
            "c++",
            {
                "main.cc": '#include <iostream>\nextern const char *word;\nint main() { std::cout << word << "\\n"; }\n',
                "word.cpp": 'extern const char *word;\nconst char *word = "hello";\n',
            },
        ),
        (
            "rust",
            {"main.rs": 'mod word;\nfn main() { println!("{}", word::W); }\n', "word.rs": 'pub const W: &str = "hello";\n'},
        ),
        (
            "java",
            {
                "app/Main.java": "package app;\npublic class Main { public static void main(String[] a) {\n"
                "System.out.println(words.Word.WORD); } }\n",
                "words/Word.java": 'package words;\npublic class Word { public static final String WORD = "hello"; }\n',
            },
        ),
        (
            "typescript",
            {
                "src/main.ts": "import { word } from './word';\nconsole.log(word);\n",
                "src/word.ts": "export const word = 'hello';\n",
            },
        ),
        ("javascript", {"main.js": "console.log(require('./word.js').word)", "word.js": "exports.word = 'hello'"}),
        (
            "javascript",
            {"main.mjs": "import { word } from './word.mjs'; console.log(word)", "word.mjs": "export const word = 'hello'"},
        ),
    ],
)
def test_several_files(language: str, files: dict[str, str], tmp_path: Path) -> None:
    assert execute(of(language), tmp_path, files) == (0, "hello\n")


@pytest.mark.parametrize("language", ["c", "c++", "rust", "java", "typescript", "python", "javascript"])
def test_a_file_without_a_name_as_pistons_clients_send_it(language: str, tmp_path: Path) -> None:
    assert execute(of(language), tmp_path, {"file0.code": HELLO[language]}) == (0, "hello\n")


MAIN = 'public static void main(String[] a) { System.out.println("hello"); }'


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("Main.java", "public class Hello { " + MAIN + " }"),
        ("main.java", "public class Main { " + MAIN + " }"),
        ("file0.code", "import java.util.*;\n\npublic final class Other {\n" + MAIN + " }"),
        ("Main.java", "class Helper {}\nclass Program { " + MAIN + " }"),
        ("Main.java", "class First { " + MAIN + " }\nclass Second { public static void main(String[] a) {} }"),
        ("Main.java", "class First { public static void main(String[] a) {} }\nclass Main { " + MAIN + " }"),
        ("Main.java", "package some.where;\nclass Thing { " + MAIN + " }"),
        ("Main.java", 'interface Face { static void main(String[] a) { System.out.println("hello"); } }'),
        ("Main.java", "public enum Colour { RED; " + MAIN + " }"),
        ("Main.java", "class Calls { void f() { Target.main(null); } }\nclass Target { " + MAIN + " }"),
        ("Main.java", "/** A class of its own. */\nclass Documented { " + MAIN + " }"),
        ("Main.java", "class Outer { static class Inner { int x; }\n  // The class of main:\n" + MAIN + " }"),
        (
            "Main.java",
            "record Point(int x) {}\nclass Uses { static void f() { Main2.main(null); } " + MAIN + " }\n"
            "class Main2 { public static void main(String[] a) {} }",
        ),
    ],
)
def test_java_finds_the_class_to_start(name: str, source: str, tmp_path: Path) -> None:
    assert execute(of("java"), tmp_path, {name: source}) == (0, "hello\n")


def test_java_keeps_to_its_memory_limit(tmp_path: Path) -> None:
    source = "class Main { public static void main(String[] a) { System.out.println(Runtime.getRuntime().maxMemory()); } }"
    code, output = execute(of("java"), tmp_path, {"Main.java": source})
    assert code == 0
    assert MEMORY_BYTES // 4 < int(output) < MEMORY_BYTES * 3 // 4


def test_rust_still_panics_when_a_sum_overflows(tmp_path: Path) -> None:
    source = 'fn main() { let n = std::env::args().count() as u8; println!("{}", n * 255 + n); }'
    assert execute(of("rust"), tmp_path, {"main.rs": source}) == (101, "")


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "import sys; print('%d.%d.%d' % sys.version_info[:3])"),
        ("bash", 'echo "${BASH_VERSINFO[0]}.${BASH_VERSINFO[1]}.${BASH_VERSINFO[2]}"'),
        ("javascript", "console.log(process.versions.node)"),
        ("perl", 'printf "%vd\\n", $^V'),
        ("ruby", "puts RUBY_VERSION"),
        ("php", '<?php echo PHP_VERSION, "\\n";'),
        ("tcl", "puts [info patchlevel]"),
        ("c", '#include <stdio.h>\nint main() { printf("%d.%d.%d\\n", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__); }'),
        (
            "java",
            'class Main { public static void main(String[] a) { System.out.println(System.getProperty("java.version")); } }',
        ),
    ],
)
def test_versions_are_what_the_program_itself_sees(language: str, code: str, tmp_path: Path) -> None:
    of(language)
    for number, runtime in enumerate(runtime for runtime in registry().all() if runtime.language == language):
        if runtime.package in {"clang", "pypy", "deno", "bun"}:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        assert execute(runtime, folder, {runtime.main_name: code}) == (0, runtime.version + "\n")
