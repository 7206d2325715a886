"""The filter compiler: programs from random rules return what the rules require."""

from __future__ import annotations

import random
import struct

import pytest

from firebox.sandbox.plan.bpf import ALLOW, KILL_PROCESS, Condition, Rule, Rules, any_bit, compiled, errno_action, low, null
from tests.sandbox.bpf_interpreter import GO, MOST_INSTRUCTIONS, check, instructions_of, run_bpf

NATIVE = 0xC000003E
DEFAULT = (Rule(errno_action(38)),)
VALUES = (0, 1, 2, 3, 4, 16, 0x80, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MASKS = (0xFFFFFFFF, 0xF, 0xF0, 0x80000001)


def data(number: int, arguments: list[int], architecture: int = NATIVE) -> bytes:
    return struct.pack("<IIQ6Q", number, architecture, 0, *arguments)


def expected(rules: Rules, call: bytes) -> int:
    """Return the action of the first matching rule."""

    def holds(condition: Condition) -> bool:
        (word,) = struct.unpack_from("<I", call, condition.word)
        masked: int = word & condition.mask
        return masked == condition.value if condition.value is not None else masked != 0

    return next(rule.action for rule in rules if all(holds(condition) for condition in rule.conditions))


def some_rules(chosen: random.Random, most: int) -> Rules:
    def condition() -> tuple[Condition, ...]:
        argument, mask = chosen.randrange(6), chosen.choice(MASKS)
        match chosen.randrange(4):
            case 0:
                return (any_bit(argument, mask),)
            case 1:
                return null(argument)
            case _:
                return (low(argument, chosen.choice(VALUES) & mask, mask),)

    rules = [
        Rule(errno_action(chosen.randrange(40)), sum((condition() for _ in range(chosen.randint(1, 3))), ()))
        for _ in range(chosen.randint(0, most))
    ]
    return (*rules, Rule(ALLOW))


@pytest.mark.parametrize(("calls", "most"), [(1, 4), (40, 2), (400, 1), (150, 3)])
def test_programs_implement_their_rules(calls: int, most: int) -> None:
    chosen = random.Random(calls)
    rules = {chosen.randrange(700): some_rules(chosen, most) for _ in range(calls)}
    weights = {number: chosen.randrange(1000) for number in rules}
    program = compiled(NATIVE, rules, DEFAULT, {0x40000000: (Rule(KILL_PROCESS),), 0xFFFFFFFF: DEFAULT}, weights)
    check(program)
    for number in range(701):
        for _ in range(20):
            call = data(number, [chosen.choice(VALUES) | chosen.choice(VALUES) << 32 for _ in range(6)])
            assert run_bpf(program, call)[0] == expected(rules.get(number, DEFAULT), call), number
    arguments = [0] * 6
    for number, answer in ((0x3FFFFFFF, DEFAULT[0].action), (0x40000000, KILL_PROCESS), (0xFFFFFFFF, DEFAULT[0].action)):
        assert run_bpf(program, data(number, arguments))[0] == answer
    assert run_bpf(program, data(1, arguments, NATIVE ^ 1))[0] == KILL_PROCESS


def test_jumps_can_exceed_eight_bits() -> None:
    chosen = random.Random(1)
    rules = {number: some_rules(chosen, 3) for number in range(150)}
    instructions = instructions_of(compiled(NATIVE, rules, DEFAULT, {}, {}))
    assert 1000 < len(instructions) < MOST_INSTRUCTIONS
    assert GO in {code for code, *_ in instructions}


def test_conditions_are_tested_only_once() -> None:
    rules = tuple(Rule(errno_action(option), (low(1, 6), low(2, option))) for option in range(1, 9))
    program = compiled(NATIVE, {0: (*rules, Rule(ALLOW))}, DEFAULT, {}, {})
    answer, codes = run_bpf(program, data(0, [0, 7, 8, 0, 0, 0]))
    assert answer == ALLOW
    assert len(codes) == 7  # three pairs of load and jump: architecture, number, level; the answer


def test_more_than_the_kernel_accepts_is_rejected() -> None:
    chosen = random.Random(1)
    with pytest.raises(ValueError, match="instructions"):
        compiled(NATIVE, {number: some_rules(chosen, 4) for number in range(700)}, DEFAULT, {}, {})


def test_rules_without_an_end_are_refused() -> None:
    with pytest.raises(ValueError, match="last rule"):
        compiled(NATIVE, {0: (Rule(ALLOW, (low(0, 1),)),)}, DEFAULT, {}, {})
