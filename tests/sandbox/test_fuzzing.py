"""A short run of the fuzzers of native/ without clang: their seeds and some thousand deterministic mutations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fuzzing import FUZZERS, Fuzzer
from tests.support.native_harness import HARNESSES, compile_harness, run_harness


@pytest.mark.parametrize("fuzzer", FUZZERS, ids=lambda fuzzer: fuzzer.name)
def test_attack_no_input_makes_a_sanitizer_object(fuzzer: Fuzzer, tmp_path: Path) -> None:
    program = compile_harness((HARNESSES / "replay.c", *fuzzer.sources), tmp_path / "replay", flags=fuzzer.flags)
    seeds = map(str, fuzzer.write_seeds(tmp_path / "seeds"))
    done = run_harness(program, str(fuzzer.mutations), "1", *seeds)
    assert (done.returncode, done.stderr) == (0, b"")
