"""src/firebox/sandbox/plan/system_call_numbers.py, from the kernel's public headers: run it when a table names a new call.

python -m scripts.write_system_call_numbers X86_64_FOLDERS ARM64_FOLDERS: include folders that have <asm/unistd.h>, a colon
between. On Debian: /usr/include/x86_64-linux-gnu:/usr/include of linux-libc-dev, /usr/aarch64-linux-gnu/include of
linux-libc-dev-arm64-cross. They must be those of the newest kernel that a table knows a call of.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from firebox.sandbox.plan.seccomp import every_call

MODULE = Path(__file__).resolve().parent.parent / "src/firebox/sandbox/plan/system_call_numbers.py"

HEAD = '''\
"""The numbers of the system calls that our tables name. Written by scripts/write_system_call_numbers.py from <asm/unistd.h>."""

from __future__ import annotations

from functools import cache

_TABLES = {
'''

TAIL = '''\
}


@cache
def system_call_numbers(machine: str) -> dict[str, int]:
    """Return the numbers by name; a name that this machine does not have is absent.

    machine: as uname(2) has it. Raises: KeyError for one without a table.
    """
    words = _TABLES[machine].split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))
'''


def header_numbers(folders: Iterable[str], *defined: str) -> dict[str, int]:
    """Return what the headers in these folders say of all calls of the tables. defined: macros of the processor."""
    source = "#include <asm/unistd.h>\n" + "".join(f"firebox {name} __NR_{name}\n" for name in sorted(every_call()))
    command = [
        "gcc",
        "-E",
        "-P",
        "-nostdinc",
        "-undef",
        *(f"-D{name}" for name in defined),
        *(f"-I{each}" for each in folders),
        "-",
    ]
    text = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    lines = (line.split() for line in text.splitlines() if line.startswith("firebox "))
    return {name: int(value) for _, name, value in lines if value.isdecimal()}


def module(x86_64: dict[str, int], arm64: dict[str, int]) -> str:
    """Return the text of the module."""
    return HEAD + _table("x86_64", x86_64) + _table("aarch64", arm64) + TAIL


def _table(machine: str, numbers: dict[str, int]) -> str:
    # A name and its number stay on one line.
    words = " ".join(f"{name}\0{number}" for name, number in sorted(numbers.items()))
    lines = textwrap.wrap(words, 122, break_long_words=False, break_on_hyphens=False)
    return f'    "{machine}": """\n' + "".join(f"        {line}\n" for line in lines).replace("\0", " ") + '        """,\n'


if __name__ == "__main__":
    found = header_numbers(sys.argv[1].split(":"), "__x86_64__"), header_numbers(sys.argv[2].split(":"), "__aarch64__")
    unknown = every_call() - found[0].keys() - found[1].keys()
    if unknown:
        sys.exit(f"these headers are too old, or no machine has: {' '.join(sorted(unknown))}")
    MODULE.write_text(module(*found), encoding="utf-8")
