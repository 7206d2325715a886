"""The programs of `test_table`."""

from __future__ import annotations

from tests.doors.outcome import Outcome, Program

SENTENCE = "Grüße, 世界 – ¿qué? 🦊\u200d\n"
FLOOD_BYTES = 50_000_000
OUTPUT_LIMIT_BYTES = 60_000

PROGRAMS = (
    Program("hello", "python3", (("main.py", "print('hello')"),), Outcome("ok", "hello\n", "", 0)),
    Program(
        "standard input",
        "python3",
        (("main.py", "import sys\nfor _ in range(2):\n    print(sys.stdin.readline().upper(), end='')"),),
        Outcome("ok", "ÄPFEL\nTWO\n", "", 0),
        stdin="äpfel\ntwo\n",
        needs=frozenset({"stdin"}),
    ),
    Program(
        "standard error",
        "python3",
        (("main.py", "import sys\nprint('out', flush=True)\nsys.stderr.write('oops\\n')"),),
        Outcome("ok", "out\n", "oops\n", 0),
    ),
    Program(
        "exit code",
        "python3",
        (("main.py", "import sys\nprint('before')\nsys.exit(3)"),),
        Outcome("failed", "before\n", "", 3),
    ),
    Program("largest exit code", "python3", (("main.py", "import sys\nsys.exit(255)"),), Outcome("failed", "", "", 255)),
    Program(
        "exception",
        "python3",
        (("main.py", "import sys\nsys.excepthook = lambda *_: sys.stderr.write('uncaught\\n')\nraise ValueError"),),
        Outcome("failed", "", "uncaught\n", 1),
    ),
    Program(
        "compile error", "c", (("main.c", "int main(void) { return nothing; }\n"),), Outcome("compile error", ""), tool="gcc"
    ),
    Program(
        "compiled",
        "c",
        (("main.c", '#include <stdio.h>\nint main(void) { puts("built"); return 7; }\n'),),
        Outcome("failed", "built\n", "", 7),
        tool="gcc",
    ),
    Program("endless loop", "python3", (("main.py", "while True: pass"),), Outcome("too slow")),
    Program("endless wait", "python3", (("main.py", "import time\ntime.sleep(10**6)"),), Outcome("too slow")),
    Program(
        "endless output",
        "python3",
        (("main.py", f"import sys\nfor _ in range({FLOOD_BYTES // 1000}): sys.stdout.write('x' * 999 + chr(10))"),),
        Outcome("too much output"),
    ),
    Program(
        "two files",
        "python3",
        (("main.py", "from other import word\nprint(word)"), ("other.py", "word = 'from the other'\n")),
        Outcome("ok", "from the other\n", "", 0),
        needs=frozenset({"files"}),
    ),
    Program("unicode", "python3", (("main.py", f"print({SENTENCE!r}, end='')"),), Outcome("ok", SENTENCE, "", 0)),
    Program(
        "backslashes",
        "python3",
        (("main.py", "print('a\\tb\\\\n\\r\\n\"$(id)', end='')"),),
        Outcome("ok", 'a\tb\\n\r\n"$(id)', "", 0),
    ),
    Program("nothing", "python3", (("main.py", "\n"),), Outcome("ok", "", "", 0)),
    Program("unknown language", "no-such-language", (("main.x", "x"),), Outcome("refused")),
)
