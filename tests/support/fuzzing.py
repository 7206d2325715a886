"""The fuzzers of native/, with clang's libFuzzer: `make fuzz`. Without, for a moment: tests/sandbox/test_fuzzing.py.

    python -m tests.support.fuzzing [SECONDS [NAME...]]

What makes one fail is kept in build/fuzz/NAME/, and so is what it has learned for the next time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT
from tests.support import fuzz_seeds
from tests.support.native_harness import HARNESSES, SANITIZER_OPTIONS, compile_harness

_FOLDER = ROOT / "build" / "fuzz"
_FAKES = ("-include", str(HARNESSES / "fakes.h"), "-Wl,--wrap=allocate")
_LONGEST_INPUT = 8192
_LONGEST_S = 10


class Fuzzer(NamedTuple):
    """A harness with LLVMFuzzerTestOneInput: its sources, as `compile_harness` takes them, flags and seeds."""

    name: str
    sources: tuple[str | Path, ...]
    flags: tuple[str, ...]
    seeds: Callable[[], list[bytes]]
    mutations: int = 10_000
    """How many the bounded test makes, for which it has about a second."""

    def write_seeds(self, folder: Path) -> list[Path]:
        """Write the seeds into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        paths: list[Path] = []
        for index, content in enumerate(self.seeds()):
            paths.append(folder / f"seed-{index}")
            paths[-1].write_bytes(content)
        return paths


_MESSAGES = (HARNESSES / "fuzz_messages.c", HARNESSES / "fakes.c", "message.c", "kernel.c")
FUZZERS = (
    Fuzzer(
        "launcher",
        (HARNESSES / "fuzz_launcher.c", *_MESSAGES, "sandbox.c", "steps.c", "files.c"),
        _FAKES,
        fuzz_seeds.launcher_seeds,
    ),
    Fuzzer(
        "init",
        (HARNESSES / "fuzz_init.c", *_MESSAGES, "files.c", "collect.c", "patterns.c"),
        _FAKES,
        fuzz_seeds.init_seeds,
    ),
    Fuzzer("patterns", (HARNESSES / "fuzz_patterns.c", "patterns.c", "kernel.c"), (), fuzz_seeds.pattern_seeds),
    Fuzzer("sampling", (HARNESSES / "fuzz_sampling.c",), (), fuzz_seeds.sampling_seeds, 1000),
)


def fuzz(fuzzer: Fuzzer, seconds: int) -> bool:
    """Run a fuzzer for a while. Returns whether nothing was found."""
    folder = _FOLDER / fuzzer.name
    corpus = folder / "corpus"
    fuzzer.write_seeds(folder / "seeds")
    corpus.mkdir(exist_ok=True)
    program = compile_harness(fuzzer.sources, folder / "fuzzer", flags=("-fsanitize=fuzzer", *fuzzer.flags), compiler="clang")
    options = (f"-max_total_time={seconds}", f"-max_len={_LONGEST_INPUT}", f"-timeout={_LONGEST_S}", "-print_final_stats=1")
    print(f"fuzzing {fuzzer.name} for {seconds} s", flush=True)
    environment = os.environ | SANITIZER_OPTIONS
    done = subprocess.run(
        [program, *options, f"-artifact_prefix={folder}/", corpus, folder / "seeds"], env=environment, check=False
    )
    return done.returncode == 0


def main(words: list[str]) -> None:
    seconds = int(words[0]) if words else 60
    chosen = [each for each in FUZZERS if not words[1:] or each.name in words[1:]]
    found = [each.name for each in chosen if not fuzz(each, seconds)]
    if found:
        sys.exit(f"failed: {', '.join(found)}; the inputs are in {_FOLDER}")


if __name__ == "__main__":
    main(sys.argv[1:])
