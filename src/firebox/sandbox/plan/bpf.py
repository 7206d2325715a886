"""A compiler for seccomp filters: from rules for each system call to one program of classic BPF.

A program reads `struct seccomp_data`. Instructions have eight bytes, and every jump leads forward. The program checks the
architecture first, then searches for the number of the call in a binary tree, weighted so that frequent calls take few steps, and
then evaluates the rules of that call. If the action depends only on the number, no argument is loaded on the way: the kernel
detects this when it loads the program, and does not run it for such a call.

Code is emitted backwards, from the actions to the start. Jump targets exist before the jump, so distances are known, and equal
code is emitted once. Source: linux/filter.h, linux/bpf_common.h, linux/seccomp.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

KILL_PROCESS = 0x80000000
NOTIFY = 0x7FC00000
ALLOW = 0x7FFF0000

MOST_INSTRUCTIONS = 4096
"""The kernel's limit for one program (BPF_MAXINSNS)."""

_LOAD, _AND, _RETURN, _GO = 0x20, 0x54, 0x06, 0x05
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_FARTHEST = 254
"""One less than fits into eight bits: a long jump to the other target may come in between."""
_ALL = 0xFFFFFFFF


def errno_action(number: int) -> int:
    """Return the action that fails a call with this error; 0 is success."""
    return 0x00050000 | number


class Condition(NamedTuple):
    """True when the bits of `mask` in a 32-bit word of the data equal `value`; for None, when any of them is set."""

    word: int
    mask: int
    value: int | None


class Rule(NamedTuple):
    """action: returned when all conditions are true."""

    action: int
    conditions: tuple[Condition, ...] = ()


Rules = tuple[Rule, ...]
"""The first rule that matches decides. The last has no conditions."""


class _Span(NamedTuple):
    """A range of numbers with the same rules, from `first` to the next span."""

    first: int
    rules: Rules
    weight: int


def low(argument: int, value: int, mask: int = _ALL) -> Condition:
    """Return the condition that the masked lower half of an argument is `value`; by default all 32 bits of an int."""
    return Condition(_ARGUMENTS + 8 * argument, mask, value)


def any_bit(argument: int, bits: int) -> Condition:
    """Return the condition that one of these bits of an argument's lower half is set."""
    return Condition(_ARGUMENTS + 8 * argument, bits, None)


def null(argument: int) -> tuple[Condition, Condition]:
    """Return the conditions that all 64 bits of an argument are zero."""
    return low(argument, 0), Condition(_ARGUMENTS + 8 * argument + 4, _ALL, 0)


def compiled(
    architecture: int, calls: Mapping[int, Rules], default: Rules, beyond: Mapping[int, Rules], weights: Mapping[int, int]
) -> bytes:
    """Compile a program. Calls of a foreign architecture kill the process.

    architecture: AUDIT_ARCH_... . calls: rules by number. default: rules of other numbers. beyond: rules of all numbers from a
    given one on. weights: how frequent a call is, 1 by default.
    """
    code = _Code()
    found = code.search(_spans(calls, default, beyond, weights))
    native = code.load(_NUMBER, found)
    code.load(_ARCHITECTURE, code.branch(_IF_EQUAL, architecture, native, code.answer(KILL_PROCESS)))
    return code.program()


def _spans(calls: Mapping[int, Rules], default: Rules, beyond: Mapping[int, Rules], weights: Mapping[int, int]) -> list[_Span]:
    """Return the fewest spans that cover all numbers, in order."""
    starts: dict[int, Rules] = {0: default}
    for number in sorted(calls):
        starts[number] = calls[number]
        starts[number + 1] = default
    starts.update(beyond)
    spans: list[_Span] = []
    for first, rules in sorted(starts.items()):
        weight = weights.get(first, 1)
        if spans and spans[-1].rules == rules:
            last = spans.pop()
            first, weight = last.first, last.weight + weight
        spans.append(_Span(first, rules, weight))
    return spans


class _Code:
    """Instructions in reverse. Positions count from the end of the program, so they stay valid when code is prepended."""

    def __init__(self) -> None:
        self._reversed: list[bytes] = []
        self._written: dict[tuple[int, int, int, int], int] = {}
        """The position of an instruction that was emitted before."""
        self._returns: dict[int, int] = {}
        """The position of the latest return of each action."""
        self._actions: dict[int, int] = {}
        """The action of each return, by its position."""

    def program(self) -> bytes:
        if len(self._reversed) > MOST_INSTRUCTIONS:
            raise ValueError(f"{len(self._reversed)} instructions are more than the kernel accepts")
        return b"".join(reversed(self._reversed))

    def search(self, spans: Sequence[_Span]) -> int:
        """Emit a tree that finds the span of the number in the accumulator; each cut balances the weights."""
        if len(spans) == 1:
            return self._follow(spans[0].rules, {}, (_NUMBER, _ALL))
        total, left, cut = sum(span.weight for span in spans), spans[0].weight, 1
        while cut < len(spans) - 1 and 2 * left + spans[cut].weight <= total:
            left += spans[cut].weight
            cut += 1
        above = self.search(spans[cut:])
        return self.branch(_IF_AT_LEAST, spans[cut].first, above, self.search(spans[:cut]))

    def _follow(self, rules: Rules, facts: Mapping[Condition, bool], held: tuple[int, int]) -> int:
        """Emit code that evaluates rules. facts: conditions tested on the way here. held: word and mask in the accumulator."""
        for index, (action, conditions) in enumerate(rules):
            for condition in conditions:
                known = _known(condition, facts)
                if known is None:
                    return self._test(condition, rules[index:], facts, held)
                if not known:
                    break
            else:
                return self.answer(action)
        raise ValueError("the last rule has conditions")

    def _test(self, condition: Condition, rules: Rules, facts: Mapping[Condition, bool], held: tuple[int, int]) -> int:
        """Emit a test of a condition, followed by the rules for both outcomes."""
        word, mask, value = condition
        # A bit test leaves the accumulator unchanged; a comparison needs it masked.
        wanted = (word, _ALL if value is None else mask)
        otherwise = self._follow(rules, {**facts, condition: False}, wanted)
        matching = self._follow(rules, {**facts, condition: True}, wanted)
        if value is None:
            at = self.branch(_IF_ANY_BIT, mask, matching, otherwise)
        else:
            at = self.branch(_IF_EQUAL, value, matching, otherwise)
        if held == wanted:
            return at
        if wanted != (word, _ALL):
            at = self._straight(_AND, mask, at)
        return at if held == (word, _ALL) else self.load(word, at)

    def answer(self, action: int) -> int:
        """Emit a return with this action, or reuse an earlier one."""
        if action not in self._returns:
            self._return(action)
        return self._returns[action]

    def load(self, word: int, following: int) -> int:
        return self._straight(_LOAD, word, following)

    def branch(self, code: int, operand: int, if_true: int, if_false: int) -> int:
        """Emit a comparison of the accumulator that jumps to one of two positions."""
        key = (code, operand, if_true, if_false)
        if key not in self._written:
            near_true, near_false = self._near(if_true), self._near(if_false)
            self._written[key] = self._write(code, operand, self._distance(near_true), self._distance(near_false))
        return self._written[key]

    def _straight(self, code: int, operand: int, following: int) -> int:
        """Emit an instruction that continues at `following`."""
        key = (code, operand, following, following)
        if key not in self._written:
            if self._distance(following) != 0:
                self._go(following)
            self._written[key] = self._write(code, operand)
        return self._written[key]

    def _near(self, target: int) -> int:
        """Return a position that is in reach of a jump and equivalent to `target`."""
        if target in self._actions:
            target = self.answer(self._actions[target])  # a later copy is nearer
        if self._distance(target) <= _FARTHEST:
            return target
        return self._return(self._actions[target]) if target in self._actions else self._go(target)

    def _return(self, action: int) -> int:
        at = self._write(_RETURN, action)
        self._returns[action], self._actions[at] = at, action
        return at

    def _go(self, target: int) -> int:
        """Emit an unconditional jump of any distance."""
        return self._write(_GO, self._distance(target))

    def _distance(self, target: int) -> int:
        """Return the number of instructions between the next one and `target`."""
        return len(self._reversed) - 1 - target

    def _write(self, code: int, operand: int, if_true: int = 0, if_false: int = 0) -> int:
        """Prepend an instruction and return its position. if_true, if_false: how many to skip."""
        self._reversed.append(struct.pack("<HBBI", code, if_true, if_false, operand))
        return len(self._reversed) - 1


def _known(condition: Condition, facts: Mapping[Condition, bool]) -> bool | None:
    """Return whether earlier tests make a condition true or false; None when they do not decide it."""
    if condition in facts:
        return facts[condition]
    word, mask, value = condition
    for other, holds in facts.items():
        if holds and other.word == word and other.mask == mask and value is not None and other.value is not None:
            return False  # the same bits have another value
    return None
