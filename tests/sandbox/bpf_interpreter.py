"""Classic BPF as the kernel checks and runs it. Source: linux/filter.h, linux/bpf_common.h, net/core/filter.c."""

from __future__ import annotations

import struct

LOAD, RETURN, GO, JUMPS = 0x20, 0x06, 0x05, (0x15, 0x25, 0x35, 0x45)
MOST_INSTRUCTIONS = 4096
DATA_BYTES = 64


def check(program: bytes) -> None:
    """Check that every jump leads to an instruction, the last one returns, and loads are words of the data."""
    instructions = instructions_of(program)
    assert len(instructions) <= MOST_INSTRUCTIONS
    assert instructions[-1][0] == RETURN
    for at, (code, if_true, if_false, operand) in enumerate(instructions):
        left = len(instructions) - at - 1
        if code in JUMPS:
            assert max(if_true, if_false) < left
        elif code == GO:
            assert operand < left
        elif code == LOAD:
            assert operand % 4 == 0
            assert operand < DATA_BYTES


def instructions_of(program: bytes) -> list[tuple[int, int, int, int]]:
    """Return code, jump if true, jump if false and operand of each instruction. Source: `struct sock_filter`."""
    return list(struct.iter_unpack("<HBBI", program))


def run_bpf(program: bytes, data: bytes) -> tuple[int, list[int]]:
    """Interpret a seccomp program as the kernel would. Source: linux/filter.h, linux/bpf_common.h.

    Returns: its answer and the codes of the instructions on the way there.
    """
    instructions = instructions_of(program)
    accumulator, at = 0, 0
    codes: list[int] = []
    while True:
        code, if_true, if_false, operand = instructions[at]
        at += 1
        codes.append(code)
        match code:
            case 0x20:  # load a word of the data
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x05:
                at += operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x25:
                at += if_true if accumulator > operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case 0x45:
                at += if_true if accumulator & operand else if_false
            case 0x06:
                return operand, codes
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")
