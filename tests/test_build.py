"""The native launcher as it is compiled and shipped: static, hardened, and with no compiler a message that helps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts import build_native
from scripts.build_native import BuildError, build, find_compiler, is_built, read_elf, sources
from tests.conftest import ROOT, missing
from tests.support.native_harness import compile_harness, run_harness

PT_LOAD, PT_GNU_STACK, PT_GNU_RELRO = 1, 0x6474E551, 0x6474E552
PF_X, PF_W = 1, 2
NAME = "firebox/sandbox/firebox-launcher"


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    """Every test here compiles."""
    try:
        find_compiler()
    except BuildError as problem:
        missing(str(problem))


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources, which is compiled instead of them."""
    folder = tmp_path / "native"
    shutil.copytree(build_native.NATIVE, folder)
    monkeypatch.setattr(build_native, "NATIVE", folder)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run_python("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    (made,) = folder.glob("*.whl")
    return made


def run_python(*arguments: str, given: Mapping[str, str] | None = None) -> str:
    """Run Python in the checkout and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "FIREBOX_TARGET"} | dict(given or {})
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_an_executable_launcher_once(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = [entry for entry in archive.infolist() if "firebox-launcher" in entry.filename]
        assert entry.filename == NAME
        assert entry.external_attr >> 16 & 0o7777 == 0o755


def test_wheel_is_for_this_processor_and_any_c_library(wheel: Path) -> None:
    machine = os.uname().machine
    assert wheel.name.endswith(f"-py3-none-manylinux2014_{machine}.musllinux_1_1_{machine}.whl")
    with zipfile.ZipFile(wheel) as archive:
        (description,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
    assert "Root-Is-Purelib: false" in description
    assert f"Tag: py3-none-manylinux2014_{machine}" in description
    assert f"Tag: py3-none-musllinux_1_1_{machine}" in description


def test_launcher_is_static_and_hardened(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        elf = read_elf(Path(archive.extract(NAME, tmp_path)))
    assert not elf.has(build_native.PT_INTERP)
    assert elf.has(PT_GNU_RELRO)
    assert [flags & PF_X for kind, flags in elf.segments if kind == PT_GNU_STACK] == [0]
    assert not [flags for kind, flags in elf.segments if kind == PT_LOAD and flags & PF_W and flags & PF_X]


def test_source_distribution_can_compile_it(tmp_path: Path) -> None:
    run_python("-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path))
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [*build_native.NATIVE.glob("*.[ch]"), Path(build_native.__file__), ROOT / "hatch_build.py"]
    assert {str(path.relative_to(ROOT)) for path in wanted} <= names
    assert f"src/{NAME}" not in names


@pytest.mark.parametrize("name", ["cc", "musl-gcc", "clang"])
def test_sources_compile_without_a_warning(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "cc" and shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")  # in CI as well: they are not needed to build
    if shutil.which("cc"):
        monkeypatch.setenv("CC", name)
    build(tmp_path / "launcher", strict=True)


def test_a_source_is_compiled_once(copied: Path, tmp_path: Path) -> None:
    output = build(tmp_path / "made/launcher")
    first = output.stat()
    assert first.st_mode & 0o777 == 0o755
    assert build(output).stat().st_ino == first.st_ino
    assert {path.name for path in output.parent.iterdir()} == {"launcher", ".launcher.stamp"}
    with sources()[0].open("a") as file:
        file.write("/* changed */\n")
    assert not is_built(output)
    # One that runs keeps its file.
    with output.open("rb") as running:
        build(output)
        assert os.fstat(running.fileno()).st_ino == first.st_ino
    assert is_built(output)


def test_a_launcher_that_was_replaced_is_compiled_again(copied: Path, tmp_path: Path) -> None:
    output = build(tmp_path / "launcher")
    output.write_bytes(b"something else")
    assert not is_built(output)
    assert is_built(build(output))


def test_the_same_source_makes_the_same_launcher_anywhere(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = build(tmp_path / "launcher").read_bytes()
    moved = tmp_path / "elsewhere/native"
    moved.parent.mkdir()
    copied.rename(moved)
    monkeypatch.setattr(build_native, "NATIVE", moved)
    assert build(moved.parent / "launcher").read_bytes() == here


def test_an_error_in_a_source_is_shown_and_leaves_the_old_launcher(copied: Path, tmp_path: Path) -> None:
    output = build(tmp_path / "launcher")
    before = output.read_bytes()
    (copied / "wrong.c").write_text("int wrong(void) { return nothing; }\n")
    with pytest.raises(BuildError, match=r"wrong\.c:1:.*nothing"):
        build(output)
    assert output.read_bytes() == before


def test_without_a_compiler_the_message_says_what_to_install(tmp_path: Path) -> None:
    # Isolated from the packages of this environment, where ziglang may be.
    done = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "scripts/build_native.py", "--strict"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no C compiler here can make a static program" in done.stderr
    assert "apt-get install gcc libc6-dev" in done.stderr
    assert "pip install ziglang" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_chosen_compiler_that_does_not_work_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho cannot find -lc >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(BuildError, match="cannot find -lc"):
        find_compiler()


def test_builds_ask_for_ziglang_only_where_there_is_no_compiler(tmp_path: Path) -> None:
    ask = "from hatchling.build import get_requires_for_build_wheel as ask; print(ask())"
    if shutil.which("cc"):
        assert "ziglang" not in run_python("-c", ask)
    assert "ziglang" in run_python("-c", ask, given={"PATH": str(tmp_path), "CC": ""})
    assert "ziglang" in run_python("-c", ask, given={"FIREBOX_TARGET": "aarch64-linux-musl"})


def test_a_harness_ends_at_the_first_mistake(tmp_path: Path) -> None:
    source = tmp_path / "harness.c"
    source.write_text(
        '#include "kernel.h"\n'
        "int main(int count, char **arguments)\n"
        "{\n"
        "    const char *text = arguments[count - 1];\n"
        "    char digits[21];\n"
        "    decimal(parse_decimal(&text), digits);\n"
        "    return digits[count == 2 ? 0 : 21 + count] == 'x';\n"
        "}\n"
    )
    program = compile_harness(["kernel.c", source], tmp_path / "harness")
    assert run_harness(program, "42").returncode == 0
    overrun = run_harness(program, "42", "43")
    assert overrun.returncode != 0
    assert b"harness.c:7" in overrun.stderr
