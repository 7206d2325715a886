"""The 44 languages: each runs here, or reports what to install."""

from __future__ import annotations

import re
import shutil

import pytest

from firebox.cli.packages.recipes_command import recipe_names
from firebox.runtimes.definition import shipped_definitions
from firebox.runtimes.install_hints import named
from tests.conftest import missing
from tests.runtimes.test_real_tools import HELLO, of
from tests.stdio.conftest import ask, request
from tests.support.server import data_folder
from tests.support.toolchains import prepare_go

LANGUAGES = (
    "assembly", "ats", "bash", "c", "clisp", "clojure", "cobol", "coffeescript", "cpp", "crystal", "csharp", "d",
    "dart", "elixir", "elm", "erlang", "fsharp", "go", "groovy", "guile", "hare", "haskell", "idris", "java",
    "javascript", "julia", "kotlin", "lua", "mercury", "nim", "nix", "ocaml", "pascal", "perl", "php", "python",
    "raku", "ruby", "rust", "sac", "scala", "swift", "typescript", "zig",
)  # fmt: skip

INSTALLED = {
    "bash": "bash",
    "c": "gcc",
    "cpp": "g++",
    "go": "go",
    "java": "javac",
    "javascript": "node",
    "lua": "lua",
    "perl": "perl",
    "php": "php",
    "python": "python3",
    "ruby": "ruby",
    "rust": "rustc",
    "typescript": "tsc",
}
"""Languages that are optional on a developer's machine and required in CI, with a program to detect each."""

NOWHERE = {"fsharp", "idris", "mercury", "sac"}
"""No package registry provides these, and their hints say so."""

MORE_HELLOS = {
    "clojure": '(println "hello")',
    "crystal": 'puts "hello"',
    "dart": "void main() { print('hello'); }",
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println("hello") }\n',
    "groovy": "println 'hello'",
    "nix": '"hello"',
    "scala": 'object Main extends App { println("hello") }',
    "swift": 'print("hello")',
    "zig": 'const std = @import("std");\npub fn main() void { std.debug.print("hello\\n", .{}); }\n',
}

TWO_FILES: dict[str, list[tuple[str, str]]] = {
    "assembly": [("main.asm", '%include "exit.inc"\nglobal _start\n_start: leave_well\n'),
                 ("exit.inc", "%macro leave_well 0\nmov rax, 60\nxor rdi, rdi\nsyscall\n%endmacro\n")],
    "bash": [("main.sh", ". ./two.sh\nsay"), ("two.sh", "say() { echo both; }")],
    "c": [("main.c", "#include \"two.h\"\nint main(void) { return say(); }\n"),
          ("two.c", "#include <stdio.h>\nint say(void) { return puts(\"both\") < 0; }\n"), ("two.h", "int say(void);\n")],
    "cpp": [("main.cpp", "void say();\nint main() { say(); }\n"),
            ("two.cpp", '#include <iostream>\nvoid say() { std::cout << "both\\n"; }\n')],
    "go": [("main.go", "package main\nfunc main() { say() }\n"),
           ("two.go", 'package main\nimport "fmt"\nfunc say() { fmt.Println("both") }\n')],
    "java": [("Main.java", "class Main { public static void main(String[] a) { Two.say(); } }"),
             ("Two.java", 'class Two { static void say() { System.out.println("both"); } }')],
    "javascript": [("main.js", "require('./two').say()"), ("two.js", "exports.say = () => console.log('both')")],
    "lua": [("main.lua", 'require("two").say()'), ("two.lua", 'return { say = function() print("both") end }')],
    "perl": [("main.pl", "use lib '.'; use Two; Two::say();"), ("Two.pm", 'package Two; sub say { print "both\\n" } 1;')],
    "php": [("main.php", "<?php require 'two.php'; say();"), ("two.php", "<?php function say() { echo \"both\\n\"; }")],
    "python": [("main.py", "from package.two import say\nsay()"), ("package/two.py", "def say(): print('both')")],
    "ruby": [("main.rb", "require_relative 'two'\nsay"), ("two.rb", "def say = puts('both')")],
    "rust": [("main.rs", "mod two;\nfn main() { two::say(); }\n"), ("two.rs", 'pub fn say() { println!("both"); }\n')],
    "typescript": [("main.ts", "say();"), ("two.ts", "function say(): void { console.log('both'); }")],
}  # fmt: skip

EXIT_THREE = {
    "assembly": "global _start\n_start: mov rax, 60\nmov rdi, 3\nsyscall\n",
    "bash": "exit 3",
    "c": "int main(void) { return 3; }",
    "cpp": "int main() { return 3; }",
    "go": 'package main\nimport "os"\nfunc main() { os.Exit(3) }',
    "java": "public class Main { public static void main(String[] a) { System.exit(3); } }",
    "javascript": "process.exit(3)",
    "lua": "os.exit(3)",
    "perl": "exit 3",
    "php": "<?php exit(3);",
    "python": "raise SystemExit(3)",
    "ruby": "exit 3",
    "rust": "fn main() { std::process::exit(3) }",
    "typescript": "declare const process: { exit(status: number): void };\nprocess.exit(3);",
}

COMPILED = ("assembly", "c", "cpp", "go", "java", "rust", "typescript")


def main_name(language: str) -> str:
    return named(shipped_definitions(language), language)[0].main_name


def hello(language: str) -> str:
    known = {**HELLO, **MORE_HELLOS}
    return next(known[each.language] for each in named(shipped_definitions(language), language) if each.language in known)


def need(language: str) -> None:
    program = "nasm" if language == "assembly" else INSTALLED[language]
    if shutil.which(program) is None:
        if language == "assembly":
            pytest.skip("nasm is not installed")
        missing(f"{program} is not installed")
    if language == "go":
        prepare_go(data_folder())


def test_there_are_forty_four() -> None:
    assert len(set(LANGUAGES)) == 44


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_a_definition_that_names_its_packages(language: str) -> None:
    definition = named(shipped_definitions(language), language)[0]
    assert definition.packages.words()
    assert bool(definition.packages.debian or definition.packages.pypi or definition.packages.npm) == (language not in NOWHERE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_runs_or_reports_how_to_install_it(language: str) -> None:
    try:
        of(language)
    except (pytest.skip.Exception, pytest.fail.Exception):
        if language in INSTALLED:
            raise
        answer = ask(request(language, (main_name(language), "x"))).answer
        words = rf"{language} is not installed here: `firebox packages install --build (\S+)` builds it; .+"
        told = re.fullmatch(words, answer["error"])
        assert told is not None
        assert told[1] in recipe_names()
        assert answer["stdout"] == answer["stderr"] == ""
    else:
        if language == "go":
            prepare_go(data_folder())
        output, error = ask(request(language, (main_name(language), hello(language)))).outcome
        assert (output.strip().strip('"'), error) == ("hello", "")


@pytest.mark.parametrize("language", TWO_FILES)
def test_two_files(language: str) -> None:
    need(language)
    output, error = ask(request(language, *TWO_FILES[language])).outcome
    assert (output, error) == ("" if language == "assembly" else "both\n", "")


@pytest.mark.parametrize("language", EXIT_THREE)
def test_exit_code_is_in_the_answer_and_the_command_succeeds(language: str) -> None:
    need(language)
    assert ask(request(language, (main_name(language), EXIT_THREE[language]))).answer["error"] == "Exit code: 3"


@pytest.mark.parametrize("language", COMPILED)
def test_compile_error(language: str) -> None:
    need(language)
    answer = ask(request(language, (main_name(language), "this is no program {"))).answer
    assert re.fullmatch(r"Exit code: [1-9]\d*", answer["error"])
    assert answer["stdout"] + answer["stderr"]


def test_command_needs_no_tools_of_the_language() -> None:
    answer = ask(request("sac", ("main.sac", "x"), command="cat main.sac; exit 4")).answer
    assert answer == {"stdout": "x", "stderr": "", "error": "Exit code: 4"}
