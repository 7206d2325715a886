"""Sources of native/ compiled together with a test's own C file, with sanitizers that end the program at its first mistake.

    python -m tests.support.native_harness OUTPUT

compiles the whole launcher so, for FIREBOX_TEST_LAUNCHER of tests/sandbox.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.build_native import NATIVE, WARNINGS, find_compiler, write_restorer
from scripts.build_native import sources as native_sources
from tests.conftest import ROOT, require_tool

HARNESSES = ROOT / "tests" / "sandbox" / "native"
"""The C files of tests."""

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
SANITIZER_OPTIONS = {
    # Nothing of native/ is ever given back, so nothing of it leaks.
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def compile_harness(
    sources: Sequence[str | Path],
    output: Path,
    *,
    flags: Sequence[str] = (),
    sanitize: bool = True,
    compiler: str = "cc",
) -> Path:
    """Compile C files into one program, not static, and return where it is. Warnings are errors.

    sources: names of files in native/ ("kernel.c") and paths of the test's own, which include headers of native/ by their names.
    flags: more for the compiler, such as `-DNAME=value` or `-Wl,--wrap=read`.
    compiler: "clang" with the flag `-fsanitize=fuzzer` makes a fuzzer of a harness that has LLVMFuzzerTestOneInput.

    A compiler that is missing skips the test, or fails it in CI.
    """
    command = [
        *(require_tool(compiler), "-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", *WARNINGS, "-Werror", f"-I{NATIVE}"),
        *(SANITIZE if sanitize else ()),
        *flags,
        # A path that is not relative stays as it is.
        *(str(NATIVE / source) for source in sources),
        *("-o", str(output)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return output


def compile_sanitized_launcher(output: Path) -> Path:
    """Compile the launcher, PID 1 included, so that its first mistake ends it with a report on its standard error.

    Its addresses are fixed: what is reported inside a sandbox, where no file can be opened, is found without.
    """
    folder = output.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    write_restorer(find_compiler(), folder)
    flags = ("-no-pie", "-Wl,--wrap=dup2", f"-I{folder}")
    return compile_harness((*native_sources(), HARNESSES / "sanitized.c"), output, flags=flags)


def run_harness(program: Path, *arguments: str, given: bytes = b"", timeout_s: float = 60) -> subprocess.CompletedProcess[bytes]:
    """Run a compiled harness; what a sanitizer finds makes it exit with a failure and is on its standard error."""
    return subprocess.run(
        [program, *arguments],
        input=given,
        capture_output=True,
        env=os.environ | SANITIZER_OPTIONS,
        check=False,
        timeout=timeout_s,
    )


if __name__ == "__main__":
    compile_sanitized_launcher(Path(sys.argv[1]))
