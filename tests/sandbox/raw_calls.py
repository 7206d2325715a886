"""System calls by number, for programs in a sandbox: `raw.py` beside a program, and the numbers of this machine."""

from __future__ import annotations

import json
import platform

from firebox.sandbox.plan.system_call_numbers import system_call_numbers

IS_X86_64 = platform.machine() == "x86_64"

RAW = """\
import ctypes, errno, json, os

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
numbers = json.load(open("numbers.json")) if os.path.exists("numbers.json") else {}


def call(name, *arguments):
    '''Make a system call. name: its name or its number. Returns its result, or the name of its error.'''
    number = numbers[name] if isinstance(name, str) else name
    words = [each if isinstance(each, (bytes, ctypes.Array)) else ctypes.c_ulong(each & (1 << 64) - 1) for each in arguments]
    ctypes.set_errno(0)
    returned = libc.syscall(ctypes.c_ulong(number & (1 << 64) - 1), *words)
    return errno.errorcode[ctypes.get_errno()] if returned == -1 else returned


def attempt(action):
    '''Do something. Returns what it returned, or the name of its error.'''
    try:
        return action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def read(path):
    '''Return what a file holds, or the name of the error.'''
    def whole():
        with open(path, 'rb') as file:
            return file.read().decode(errors='replace')
    return attempt(whole)


def write(path, text):
    '''Write at once. Returns the number of characters, or the name of the error.'''
    def whole():
        descriptor = os.open(path, os.O_WRONLY)
        try:
            return os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    return attempt(whole)


def tell(**values):
    '''Report to the test.'''
    print(json.dumps(values))
"""


def number_of(name: str) -> int | None:
    """Return the number of a system call on this machine, or None where there is no such call."""
    return system_call_numbers(platform.machine()).get(name)


def raw_files(*names: str) -> dict[str, bytes | str]:
    """Return `raw.py` and the numbers of these calls, as files for a sandbox."""
    found = {name: number_of(name) for name in names}
    return {"raw.py": RAW, "numbers.json": json.dumps({name: number for name, number in found.items() if number is not None})}
