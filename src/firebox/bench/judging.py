"""Online judging: CPU time for compiling a program once and running it on a hundred small inputs."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from msgspec import Struct

from firebox.bench.contender import SETTLE_S
from firebox.bench.go_judge import GoJudge
from firebox.bench.http_client import Exchange, execute_exchange, never_compiled, run_with_callers
from firebox.bench.processes import Processes, bare, bare_run, cpu_of_children_s
from firebox.bench.programs import Program
from firebox.bench.serving import Served

LANGUAGE = "c++"
TESTS = 100
_NUMBERS = 200

SOURCE = """#include <iostream>
#include <algorithm>
#include <vector>
int main() {
    int count;
    std::cin >> count;
    std::vector<int> numbers(count);
    for (int &number : numbers) std::cin >> number;
    std::sort(numbers.begin(), numbers.end());
    long sum = 0;
    for (int i = count / 2; i < count; i++) sum += numbers[i];
    std::cout << sum << std::endl;
}
"""
"""Reads the count and the numbers; writes the sum of the greater half."""


class Judging(Struct, frozen=True):
    """CPU seconds by contender. compile_cpu_s: of the first run, which compiles; tests_cpu_s: of all tests after it."""

    tests: int
    compile_cpu_s: dict[str, float]
    tests_cpu_s: dict[str, float]


class JudgedTest(NamedTuple):
    stdin: str
    expected: bytes


class Cost(NamedTuple):
    """CPU seconds of one judging."""

    compile_s: float
    tests_s: float


Judge = Callable[[Program, Sequence[JudgedTest]], Cost]
"""One way of judging a program that was never compiled before. Raises BenchmarkFailed for a wrong answer."""


def write_tests() -> list[JudgedTest]:
    """Generate the tests, the same ones each time."""
    dice = random.Random(TESTS)  # noqa: S311 - as above
    tests: list[JudgedTest] = []
    for _ in range(TESTS):
        numbers = [dice.randrange(1_000_000) for _ in range(_NUMBERS)]
        stdin = f"{_NUMBERS}\n{' '.join(map(str, numbers))}\n"
        tests.append(JudgedTest(stdin, str(sum(sorted(numbers)[_NUMBERS // 2 :])).encode()))
    return tests


def compare_judges(judges: Mapping[str, Judge], program: Program, seconds: float) -> Judging:
    """Let the judges alternate, as often as fits into the time, at least once. Raises: BenchmarkFailed."""
    program = replace(program, source=SOURCE)
    tests = write_tests()
    costs: dict[str, list[Cost]] = {name: [] for name in judges}
    turns = deque(judges.items())
    started = time.perf_counter()
    while not costs[turns[0][0]] or time.perf_counter() - started < seconds:
        for name, judge in turns:
            costs[name].append(judge(never_compiled(program, time.time_ns()), tests))
        turns.rotate(-1)
    return Judging(
        len(tests),
        {name: round(median(cost.compile_s for cost in several), 3) for name, several in costs.items()},
        {name: round(median(cost.tests_s for cost in several), 3) for name, several in costs.items()},
    )


def judge_bare(folder: Path, program: Program, tests: Sequence[JudgedTest]) -> Cost:
    """Compile and run without a sandbox, one test at a time. folder: an empty one."""
    (folder / program.runtime.main_name).write_text(program.source)
    inputs = [folder / f"input-{number}" for number in range(len(tests))]
    for path, test in zip(inputs, tests, strict=True):
        path.write_text(test.stdin)

    def cost_s(runs: Sequence[Processes]) -> float:
        before_s = cpu_of_children_s()
        for path, test, run in zip(inputs, tests, runs, strict=False):
            replace(run, stdin=str(path), expected=test.expected).run()
        return cpu_of_children_s() - before_s

    return Cost(cost_s([bare(program, folder)]), cost_s([bare_run(program, folder)] * len(tests)))


def judge_by_firebox(server: Served, door: str, workers: int, program: Program, tests: Sequence[JudgedTest]) -> Cost:
    """Send the same source with each test; the server compiles it once. workers: concurrent requests."""
    exchanges = [execute_exchange(replace(program, expected=test.expected), server.url, door, test.stdin) for test in tests]
    return Cost(_cost_s(server, exchanges[:1], 1), _cost_s(server, exchanges, workers))


def judge_by_go_judge(server: GoJudge, made: Sequence[str], workers: int, program: Program, tests: Sequence[JudgedTest]) -> Cost:
    """Compile the program, and send the binary's id with each test. made: as for `prepare`; workers: concurrent requests."""
    before_s = server.tree.used().all_s
    files = server.prepare(program, made)
    prepare_s = server.tree.used().all_s - before_s
    exchanges = [server.exchange(replace(program, expected=test.expected), files, test.stdin) for test in tests]
    cost = Cost(prepare_s + _cost_s(server, exchanges[:1], 1), _cost_s(server, exchanges, workers))
    server.forget(files)
    return cost


def _cost_s(server: Served, exchanges: Sequence[Exchange], workers: int) -> float:
    """Run programs. Return the CPU time of the server and its descendants."""
    before_s = server.tree.used().all_s
    run_with_callers(server.url, exchanges, workers)
    time.sleep(SETTLE_S)  # work after the response counts too
    return server.tree.used().all_s - before_s
