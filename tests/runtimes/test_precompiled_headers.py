"""Precompiled C++ headers: used by GCC where they fit, and noticeable by nothing but the time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firebox.domain.model import File, Job
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.runtimes.toolchain_cache import Preparation
from firebox.settings.settings import load_settings
from tests.conftest import require_tool
from tests.engine.conftest import Engine

pytestmark = pytest.mark.slow

HEADERS = ("iostream", "bits/stdc++.h")
BODY = 'int main() { std::cout << "hello " << __COUNTER__ << __FILE__ << "\\n"; }\n'
HELLO = "#include <iostream>\n" + BODY
FILES = (File("main.cpp", HELLO.encode()), File("more.cpp", b"#include <bits/stdc++.h>\nint more = 1;\n"))


@pytest.fixture(scope="module")
def planned() -> Iterator[tuple[Runtime, Preparation]]:
    """g++ with everything prepared, in a folder that sandboxes can show: not one in /tmp."""
    require_tool("g++")
    cache = Path.home() / ".cache"
    cache.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=cache, prefix="firebox-test-prepared-"))
    try:
        folder.chmod(0o755)
        scan = scan_host(
            os.environ["PATH"], data_folder=folder, only=lambda each: each.package == "gcc" and each.language == "c++"
        )
        yield scan.runtimes[0], scan.preparations[0]
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def prepared(planned: tuple[Runtime, Preparation]) -> Runtime:
    runtime, preparation = planned
    assert preparation.execute() == ""
    return runtime


def compile_in(folder: Path, runtime: Runtime, code: str, *more: str, absent: bool = False) -> tuple[bool, int, str]:
    """Compile main.cpp. Return whether a precompiled header was used, the exit code, and the compiler's messages without those of
    -H. absent: the prepared folder is missing.
    """
    folder.mkdir(exist_ok=True)
    (folder / "main.cpp").write_text(code)
    (command,) = runtime.compile_commands(["main.cpp"], 512 << 20)
    if absent:
        command = ["-isystem/nonexistent/prepared" if word.startswith("-isystem") else word for word in command]
    done = subprocess.run(
        [*command, "-H", *more],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
    )
    words = re.sub(
        r"^(?:[!x.]+ .*| main\.cpp|Multiple include guards may be useful for:\n(?:/.*\n)+)\n?",
        "",
        done.stderr,
        flags=re.MULTILINE,
    )
    return re.search(r"^! .*\.gch$", done.stderr, re.MULTILINE) is not None, done.returncode, words.lstrip()


@pytest.mark.parametrize("header", HEADERS)
def test_the_first_header_of_a_program_is_taken_precompiled(prepared: Runtime, tmp_path: Path, header: str) -> None:
    assert compile_in(tmp_path, prepared, f"#include <{header}>\n{BODY}") == (True, 0, "")
    assert subprocess.check_output([tmp_path / "a.out"], text=True) == "hello 0main.cpp\n"


@pytest.mark.parametrize(
    ("begins", "used"),
    [
        ("// words\n#define OWN 1\n#include <iostream>\n", True),
        ("#include <vector>\n#include <iostream>\n", False),
        ("int before;\n#include <iostream>\n", False),
        ("#define NDEBUG\n#include <bits/stdc++.h>\n", False),
        ("#define _GLIBCXX_DEBUG\n#include <iostream>\n", False),
        ('#pragma GCC optimize("O3")\n#include <bits/stdc++.h>\n', False),
        ('#pragma GCC target("avx2")\n#include <iostream>\n#include <immintrin.h>\n', False),
        ("#include <bits/stdc++.h>\n#include <iostream>\n#include <bits/stdc++.h>\n", True),
        ("#include <iostream>\n#include <bits/stdc++.h>\n#include <iostream>\n", True),
        ("#define NDEBUG\n#include <bits/stdc++.h>\n#include <bits/stdc++.h>\n", False),
    ],
)
def test_the_same_code_comes_of_it(prepared: Runtime, tmp_path: Path, begins: str, used: bool) -> None:
    answers = []
    for absent in (False, True):
        folder = tmp_path / str(absent)
        answers.append((*compile_in(folder, prepared, begins + BODY, absent=absent), (folder / "a.out").read_bytes()))
    binaries = [answer[3] for answer in answers]
    assert [answer[:3] for answer in answers] == [(used, 0, ""), (False, 0, "")]
    assert binaries[0] == binaries[1]


@pytest.mark.parametrize(
    "first", ["#include <iostream>\n", "#include <bits/stdc++.h>\n", "#define NDEBUG\n#include <bits/stdc++.h>\n"]
)
def test_errors_read_the_same_but_for_the_line_that_includes(prepared: Runtime, tmp_path: Path, first: str) -> None:
    code = first + 'struct A {};\nint main() { std::cout << A(); std::string s(1, 2, 3, 4); int i = "i"; missing(); }\n'
    with_it, without = (compile_in(tmp_path, prepared, code, absent=absent) for absent in (False, True))
    assert with_it[1] == without[1] == 1
    # GCC keeps no such line with a precompiled header.
    assert with_it[2] == (re.sub(r",\n +from main\.cpp:1:", ":", without[2]) if with_it[0] else without[2])
    assert "missing" in with_it[2]


def test_what_is_not_prepared_yet_is_no_warning(planned: tuple[Runtime, Preparation], tmp_path: Path) -> None:
    assert compile_in(tmp_path, planned[0], HELLO, "-Wall", "-Wextra", absent=True) == (False, 0, "")


def test_nothing_is_put_into_packages(planned: tuple[Runtime, Preparation], tmp_path: Path) -> None:
    """They are the same whenever they are built, unlike such headers."""
    _runtime, preparation = planned
    (tmp_path / "precompile.sh").write_text(preparation.files["precompile.sh"])
    (tmp_path / "prepared").mkdir()
    command = [word.replace(str(preparation.folder), str(tmp_path / "prepared")) for word in preparation.commands[0]]
    subprocess.run(command, cwd=tmp_path, env={"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1"}, check=True)
    assert os.listdir(tmp_path / "prepared") == []


async def test_sandboxes_use_it_and_cannot_write_it(
    prepared: Runtime, planned: tuple[Runtime, Preparation], tmp_path: Path
) -> None:
    folder = planned[1].folder
    telling = Runtime(  # the same with -H, and a look at what is shown
        language="telling",
        version="1.0.0",
        main_name="main.cpp",
        extensions=(".cpp",),
        compile=((*prepared.compile[0], "-H"), ("sh", "-c", f"touch {folder}/taken || echo cannot write")),
        run=prepared.run,
        mounts=prepared.mounts,
    )
    assert f"-isystem{folder}" in prepared.compile[0]
    settings = load_settings({"ready_sandboxes": 1, "launchers": 1, "data_dir": str(tmp_path / "data")}, environ={})
    async with LocalExecutor(settings, Registry((prepared, telling))) as executor:
        plain, told = [await Engine(executor).result(Job(language=name, files=FILES)) for name in ("c++", "telling")]
    for result in (plain, told):
        assert result.run is not None
        assert result.run.stdout == b"hello 0main.cpp\n"
    assert told.compile is not None
    for header in HEADERS:
        assert f"! {folder}/{header}.gch".encode() in told.compile.stderr
    assert told.compile.stdout == b"cannot write\n"
    assert not (folder / "taken").exists()
