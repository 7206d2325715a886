"""The measured programs: the smallest one of each language that proves that it ran."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from firebox.domain.errors import InvalidRequest, UnknownRuntime
from firebox.domain.limits import StageName
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import BASE_ENVIRONMENT, Runtime

EXPECTED = b"hello"
"""The output of every program."""

SOURCES = {
    "python": 'print("hello")',
    "bash": "echo hello",
    "javascript": 'console.log("hello")',
    "ruby": 'puts "hello"',
    "php": "<?php echo 'hello', PHP_EOL;",
    "c": '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n',
    "c++": '#include <iostream>\nint main() { std::cout << "hello" << std::endl; }\n',
    "java": 'public class Main { public static void main(String[] args) { System.out.println("hello"); } }\n',
}
"""By language, in the order of the report."""

NATIVE = "native"
"""A compiled program that does nothing, so that only the sandbox is measured."""

ROOM_BYTES = 512 << 20
"""The memory limit passed to toolchains, the same for every contender."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the runtime that all contenders run it with. source: "" if the runtime contains the program."""

    runtime: Runtime
    source: str
    expected: bytes = EXPECTED

    @property
    def language(self) -> str:
        return self.runtime.language

    def steps(self) -> list[list[str]]:
        """Return the command lines, those of the compiler first."""
        sources = [self.runtime.main_name]
        return [*self.runtime.compile_commands(sources, ROOM_BYTES), self.runtime.run_command(sources, (), ROOM_BYTES)]

    def environment(self, folder: str) -> dict[str, str]:
        """Return the variables that the engine would set; folder: used as home and for temporary files."""
        stage: StageName = "compile" if self.runtime.compiled else "run"
        return {**BASE_ENVIRONMENT, **self.runtime.environment(stage), "HOME": folder, "TMPDIR": folder}


def choose_programs(registry: Registry, languages: Iterable[str]) -> tuple[list[Program], list[str]]:
    """Select a runtime for each language. Return the programs, and the languages without a runtime.

    languages: names or aliases of those in `SOURCES`. Raises: InvalidRequest for a language without a program.
    """
    programs: list[Program] = []
    missing: list[str] = []
    for name in languages:
        try:
            runtime = registry.resolve(name)
        except UnknownRuntime:
            if name not in SOURCES:
                known = ", ".join(SOURCES)
                raise InvalidRequest(f"no program for {name!r}; known: {known}", where="--languages") from None
            missing.append(name)
            continue
        programs.append(Program(runtime, SOURCES[runtime.language]))
    return programs, missing


def native_program() -> Program | None:
    """Return true(1), which writes nothing and exits with 0, with a runtime of its own; None if it is not installed."""
    path = shutil.which("true", path="/usr/bin:/bin")
    if path is None:
        return None
    runtime = Runtime(language=NATIVE, version="1.0.0", main_name="unused", run=(os.path.realpath(path),))
    return Program(runtime, "", expected=b"")
