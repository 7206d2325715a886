"""The environment of a program: what a terminal is, and what sanitizers find."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Job, Terminal
from firebox.engine.plan import variables
from firebox.runtimes.runtime import Runtime
from tests.conftest import require_tool
from tests.engine.conftest import Engine, job

RUNTIME = Runtime(language="x", version="1.0.0", main_name="x", extensions=(), run=("x",))

PROGRAMS = {
    "right": """
#include <stdio.h>
#include <stdlib.h>
int main(void) { void *kept = malloc(3); puts("right"); free(kept); return 0; }
""",
    "gone": """
#include <stdlib.h>
int main(void) { volatile int *gone = malloc(4); free((void *)gone); return *gone; }
""",
    "over": "int main(int count, char **words) { volatile int few[3]; few[count + 2] = 1; return 0; }",
    "most": "int main(int count, char **words) { volatile int most = 2147483647; most += count; return 0; }",
    "race": """
#include <pthread.h>
int shared;
void *add(void *none) { for (int each = 0; each < 1000; each++) shared++; return none; }
int main(void) { pthread_t other; pthread_create(&other, 0, add, 0); add(0); pthread_join(other, 0); return 0; }
""",
}
BUILD_AND_RUN = """
for name in "$@"; do gcc -w -pthread -fsanitize=$SANITIZER -o $name $name.c & done
wait
for name in "$@"; do ./$name; echo $name $?; done 2>&1
ASAN_OPTIONS=detect_leaks=1 ./right; echo $?
"""


def test_a_terminal_has_a_kind_and_the_job_can_name_another() -> None:
    assert "TERM" not in variables("run", Job(language="x"), RUNTIME)
    with_terminal = Job(language="x", terminal=Terminal())
    assert variables("run", with_terminal, RUNTIME)["TERM"] == "xterm-256color"
    assert "TERM" not in variables("compile", with_terminal, RUNTIME)
    assert variables("run", Job(language="x", terminal=Terminal(), env={"TERM": "vt100"}), RUNTIME)["TERM"] == "vt100"


async def test_programs_for_terminals_know_what_theirs_is(engine: Engine) -> None:
    require_tool("tput")
    columns = "import curses; curses.setupterm(); print(curses.tigetnum('cols'))"
    code = f'tput colors; tput cup 3 4 | od -An -c; python3 -c "{columns}"'
    result = await engine.result(job("bash", code, terminal=Terminal()))
    assert result.run is not None
    words = result.run.stdout.split()
    assert (words[0], words[1], words[-1]) == (b"256", b"033", b"80")


@pytest.mark.parametrize("own", ["", "verbosity=1", "detect_leaks=1"])
def test_no_sanitizer_looks_for_leaks_whatever_the_job_says(own: str) -> None:
    env = {"LSAN_OPTIONS": own} if own else {}
    words = variables("run", Job(language="x", env=env), RUNTIME)["LSAN_OPTIONS"].split(":")
    assert words == [*([own] if own else []), "detect_leaks=0"]  # the last one counts


@pytest.mark.parametrize(
    ("sanitizer", "faults"),
    [
        ("address,undefined", {"gone": "use-after-free", "over": "out of bounds", "most": "signed integer overflow"}),
        ("thread", {"race": "data race"}),
    ],
)
async def test_a_correct_program_passes_a_sanitizer_and_a_faulty_one_is_reported(
    engine: Engine, sanitizer: str, faults: dict[str, str]
) -> None:
    """The leak check of the address sanitizer traces the program, and calls a correct one faulty where it may not."""
    require_tool("gcc")
    names = ("right", *faults)
    sources = tuple(File(f"{name}.c", PROGRAMS[name].encode()) for name in names)
    limits = LimitRequest(wall_ms=30_000, cpu_ms=30_000)
    wanted = job("bash", BUILD_AND_RUN, args=names, env={"SANITIZER": sanitizer}, run_limits=limits)
    result = await engine.result(replace(wanted, files=(*wanted.files, *sources)))
    assert result.run is not None
    text = (result.run.stdout + result.run.stderr).decode()
    assert "right\nright 0\n" in text
    assert text.endswith("right\n0\n"), text
    for words in faults.values():
        assert words in text
