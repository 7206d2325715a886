"""Packages in Piston's format run as in Piston: compiled, with their environment, at their original path."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from firebox.domain.errors import Conflict, UnusablePackage
from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Finished, Job, Result, Verdict
from firebox.engine.executor import LocalExecutor
from firebox.packages.installed import piston_archive
from firebox.packages.installed.metadata import PackageInfo
from firebox.runtimes.registry import Registry
from tests.conftest import require_tool
from tests.packages.making import Bench, Member, file, image, info_of, link, piston, squash

GREET = """\
#!/bin/sh
echo "greetings from $GREETING_HOME"
"""
COMPILE = """\
#!/usr/bin/env bash
echo "compiling $*" >&2
for source in "$@"; do tr a-z A-Z < "$source"; done > program
"""
RUN = """\
#!/usr/bin/env bash
source=$1
shift
greet
cat program
printf '<%s>' "$@"
echo " $source $PISTON_LANGUAGE $LEVEL"
cat
"""


class Kitchen:
    """A bench that can run installed packages."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    async def run(self, language: str, *files: tuple[str, str], **job: Any) -> Result:
        runtimes, words = self.bench.store.runtimes()
        assert words == []
        async with LocalExecutor(self.bench.settings, Registry(runtimes), hold=self.bench.store.hold) as executor:
            sources = tuple(File(name, content.encode()) for name, content in files)
            async with executor.submit(Job(language=language, files=sources, **job)) as run:
                async for event in run.events():
                    if isinstance(event, Finished):
                        return event.result
        raise AssertionError("events end with Finished")


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    require_tool("bash")
    return Kitchen(Bench(tmp_path, ready_sandboxes=0))


def greeting(folder: Path) -> Path:
    """A dependency: a program on the PATH of its environment."""
    environment = "export PATH=$PWD/bin:$PATH\nexport GREETING_HOME=$PWD\nexport LEVEL=${LEVEL:-none}+greeting\n"
    members = (file("environment", environment), file("lib/greet", GREET, 0o755), link("bin/greet", "../lib/greet"))
    return piston(folder, "greeting", "1.3.0", *members)


def shout(folder: Path, **more: Any) -> Path:
    """A compiled language that depends on it."""
    members = (file("./compile", COMPILE, 0o755), file("./environment", "export LEVEL=shout\n"))
    more = {"dependencies": {"greeting": "1.x"}, "aliases": ["sh!"], **more}
    return piston(folder, "shout", "2.0.0", *members, run=RUN, **more)


async def test_a_piston_package_runs(kitchen: Kitchen, tmp_path: Path) -> None:
    await kitchen.bench.install_file(greeting(tmp_path))
    await kitchen.bench.install_file(shout(tmp_path))
    result = await kitchen.run("sh!", ("a.shout", "hello 🌍\n"), ("b.shout", "second\n"), args=("x y", "ü"), stdin=b"input\n")
    assert result.verdict == Verdict.OK, result
    assert result.compile is not None
    assert result.compile.stderr == b"compiling a.shout b.shout\n"
    assert result.run is not None
    assert result.run.stdout.decode().splitlines() == [
        "greetings from /piston/packages/greeting/1.3.0",
        "HELLO 🌍",
        "SECOND",
        "<x y><ü> a.shout shout shout+greeting",
        "input",
    ]
    assert (result.runtime.language, result.runtime.version) == ("shout", "2.0.0")


async def test_a_piston_package_as_an_image_runs(kitchen: Kitchen, tmp_path: Path) -> None:
    """The v3 image format of Piston: a squashfs with the contents of the archive."""
    tree = {
        "pkg-info.json": info_of("shout", "2.0.0"),
        "run": "#!/bin/bash\ncat program; tool\n",
        "compile": COMPILE,
        "environment": "export PATH=$PWD/bin:$PATH\n",
    }
    path = squash(tmp_path / "shout.squashfs", tree, "bin d 755 0 0", "bin/tool f 755 0 0 printf '#!/bin/sh\\necho tool\\n'")
    await kitchen.bench.install_file(path)
    (package,) = kitchen.bench.store.all()
    assert (package.kind, package.on_host) == ("folder", True)
    result = await kitchen.run("shout", ("a", "words\n"))
    assert result.run is not None
    assert result.run.stdout == b"WORDS\ntool\n"


async def test_a_package_cannot_be_written_by_a_run(kitchen: Kitchen, tmp_path: Path) -> None:
    await kitchen.bench.install_file(piston(tmp_path, "toy", "1.0.0", run='bash "$@"\n'))
    before = {each: each.lstat().st_mtime_ns for each in kitchen.bench.store.installed_folder.rglob("*")}
    code = "cd /piston/packages/toy/1.0.0; echo x > run; rm -f run; touch new; mkdir ../../other; chmod 777 run; id -u; ls"
    result = await kitchen.run("toy", ("main", code))
    assert result.run is not None
    assert result.run.stdout.decode().split()[1:] == ["pkg-info.json", "run"]
    assert result.run.stderr.count(b"Read-only file system") + result.run.stderr.count(b"Permission denied") >= 4
    assert {each: each.lstat().st_mtime_ns for each in kitchen.bench.store.installed_folder.rglob("*")} == before


async def test_uninstallation_waits_for_active_runs(tmp_path: Path) -> None:
    require_tool("bash")
    bench = Bench(tmp_path, ready_sandboxes=0, uninstall_wait_ms=0)
    await bench.install_file(piston(tmp_path, "toy", "1.0.0", run="echo started; cat\n"))
    executor = LocalExecutor(bench.settings, Registry(bench.store.runtimes()[0]), hold=bench.store.hold)
    async with executor:
        async with executor.submit(Job(language="toy", files=(File("main", b""),), interactive=True)):
            with pytest.raises(Conflict, match="in use by active runs"):
                await bench.installer.uninstall("toy-1.0.0")
            assert bench.ids == ["toy-1.0.0"]
        await bench.installer.uninstall("toy-1.0.0")
    assert bench.ids == bench.leftovers == []


async def test_a_package_may_provide_several_languages(kitchen: Kitchen, tmp_path: Path) -> None:
    provides = [
        {"language": "one", "aliases": ["1"]},
        {"language": "two", "aliases": ["2"], "limit_overrides": {"run_timeout": 7000}},
    ]
    overrides = {"run_timeout": 5000, "run_memory_limit": -1}
    path = piston(tmp_path, "both", "1.0.0", run="echo $PISTON_LANGUAGE\n", provides=provides, limit_overrides=overrides)
    await kitchen.bench.install_file(path)
    runtimes, _ = kitchen.bench.store.runtimes()
    assert [(each.language, each.aliases, each.package) for each in runtimes] == [
        ("one", ("1",), "both"),
        ("two", ("2",), "both"),
    ]
    assert runtimes[0].run_limits == LimitRequest(wall_ms=5000, memory_bytes=0)
    assert runtimes[1].run_limits == LimitRequest(wall_ms=7000)
    for alias, language in (("1", b"one\n"), ("two", b"two\n")):
        result = await kitchen.run(alias, ("main", ""))
        assert result.run is not None
        assert result.run.stdout == language


async def test_all_limit_overrides_are_applied(tmp_path: Path) -> None:
    overrides = {
        "compile_timeout": 1,
        "compile_cpu_time": 2,
        "compile_memory_limit": -1,
        "run_timeout": 4,
        "run_cpu_time": 5,
        "run_memory_limit": 600_000_000,
        "max_process_count": 7,
        "max_open_files": 80,
        "max_file_size": 9000,
        "output_max_size": 1000,
    }
    bench = Bench(tmp_path)
    await bench.install_file(piston(tmp_path, "toy", "1.0.0", limit_overrides=overrides))
    (made,), _ = bench.store.runtimes()
    shared = LimitRequest(processes=7, open_files=80, file_size_bytes=9000, output_bytes=1000)
    assert made.compile_limits == structs.replace(shared, wall_ms=1, cpu_ms=2, memory_bytes=0)
    assert made.run_limits == structs.replace(shared, wall_ms=4, cpu_ms=5, memory_bytes=600_000_000)


@pytest.mark.parametrize(
    ("run", "by_bash"),
    [
        ("#!/bin/bash\n", True),
        ("#!/bin/sh -e\n", True),
        ("#!/usr/bin/env bash\n", True),
        ("echo no first line\n", True),
        ("", True),
        ("#!/usr/bin/env python3\n", False),
        ("#!/usr/bin/python3 -I\n", False),
        ("\x7fELF...", False),
    ],
)
async def test_scripts_run_in_bash_and_programs_run_directly(run: str, by_bash: bool, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.install_file(piston(tmp_path, "toy", "1.0.0", run=run))
    (made,), _ = bench.store.runtimes()
    assert made.run == (("bash",) if by_bash else ()) + ("/piston/packages/toy/1.0.0/run", "{main}")


async def test_a_package_with_only_an_environment_has_no_runtime(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    tree = {"pkg-info.json": info_of("vars", "1.0.0"), "environment": "export X=1\n"}
    await bench.install_file(squash(tmp_path / "v.squashfs", tree))
    assert bench.store.runtimes() == ([], [])
    await bench.install_file(piston(tmp_path, "toy", "1.0.0", dependencies={"vars": "*"}))
    assert bench.store.runtimes()[0][0].env == {"X": "1", "PISTON_LANGUAGE": "toy"}


ENVIRONMENTS = {
    "export A=1\nB=2\nexport C='x y'\n": {"A": "1", "C": "x y"},
    "export A=$'two\\nlines'\n": {"A": "two\nlines"},
    "export HOME=/elsewhere\n": {"HOME": "/elsewhere"},
    "export A=$(cat /etc/shadow || echo refused) 2>/dev/null\n": {"A": "refused"},
    "echo noise; export A=1; echo more\n": {"A": "1"},
    "f() { :; }; export -f f\nexport A=1\n": {"A": "1"},
    "export A=$(id -u)\n": {"A": "1000"},
    "export A=$(ls /piston/packages/toy/1.0.0 | head -1)\n": {"A": "environment"},
    "export A=$(pwd)\ncd /\n": {"A": "/piston/packages/toy/1.0.0"},
    "unset PATH\nexport A=1\n": {"A": "1"},
    "": {},
}


@pytest.mark.parametrize("script", ENVIRONMENTS)
async def test_the_environment_consists_of_exported_variables(script: str, tmp_path: Path) -> None:
    require_tool("bash")
    bench = Bench(tmp_path)
    await bench.install_file(piston(tmp_path, "toy", "1.0.0", file("environment", script)))
    (made,), _ = bench.store.runtimes()
    assert made.env == {**ENVIRONMENTS[script], "PISTON_LANGUAGE": "toy"}


async def test_the_environment_is_never_evaluated_on_the_host(tmp_path: Path) -> None:
    """The script tries to write everywhere, and reports what it sees."""
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    mark = tmp_path / "mark"
    script = (
        f"touch {mark} /tmp/firebox-was-here 2>/dev/null\nexport SEEN=$(cat {secret} 2>/dev/null)\n"
        "export PROCESSES=$(ls -d /proc/[0-9]* | wc -l)\nexport NETWORK=$(ls /sys/class/net 2>/dev/null)\n"
        "export FIREBOX_TEST_SECRET=${FIREBOX_TEST_SECRET-unset}\n"
    )
    bench = Bench(tmp_path)
    os.environ["FIREBOX_TEST_SECRET"] = "hidden"
    try:
        await bench.install_file(piston(tmp_path, "toy", "1.0.0", file("environment", script)))
    finally:
        del os.environ["FIREBOX_TEST_SECRET"]
    (made,), _ = bench.store.runtimes()
    assert not mark.exists()
    assert not Path("/tmp/firebox-was-here").exists()
    assert made.env["SEEN"] == ""
    assert made.env["NETWORK"] == ""
    assert made.env["FIREBOX_TEST_SECRET"] == "unset"
    assert int(made.env["PROCESSES"]) < 10


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("exit 3\n", id="exit"),
        pytest.param("kill -9 $$\n", id="signal"),
        pytest.param("export A=$(head -c 3000000 /dev/zero | tr '\\0' x)\n", id="too long"),
        pytest.param("yes >&3\n", id="endless output"),
        pytest.param("for n in $(seq 2000); do export V$n=x; done\n", id="too many"),
        pytest.param("export A=$(head -c 100000 /dev/zero | tr '\\0' x)\n", id="too much"),
    ],
)
async def test_a_failing_environment_script_is_rejected(script: str, tmp_path: Path) -> None:
    require_tool("bash")
    bench = Bench(tmp_path)
    with pytest.raises(UnusablePackage, match=r"toy-1\.0\.0"):
        await bench.install_file(piston(tmp_path, "toy", "1.0.0", file("environment", script)))
    assert bench.ids == bench.leftovers == []


ATTACKS: dict[str, tuple[Member, ...]] = {
    "an environment that is a link": (link("environment", "other"), file("other", "export A=1\n")),
    "an environment that is a link to the host": (link("environment", "/etc/environment"),),
}


@pytest.mark.parametrize("what", ATTACKS)
async def test_links_stay_inside(what: str, tmp_path: Path) -> None:
    """A symlink inside the package is kept; a package with a symlink to the outside is rejected."""
    bench = Bench(tmp_path)
    path = piston(tmp_path, "toy", "1.0.0", *ATTACKS[what])
    if "host" in what:
        with pytest.raises(UnusablePackage, match="outside the folder"):
            await bench.install_file(path)
    else:
        await bench.install_file(path)
        assert bench.store.runtimes()[0][0].env["A"] == "1"


def shell_image(folder: Path) -> Path:
    """Pack a minimal root with bash, env, ls and their libraries from this machine."""
    programs = [os.path.realpath(require_tool(name)) for name in ("bash", "env", "ls")]
    words = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout.split()
    libraries = {word for word in words if word.startswith("/") and not word.endswith(":")}
    tree: dict[str, str | bytes] = {"pkg-info.json": info_of("base", "1.0.0")}
    tree |= {f"root/usr/bin/{os.path.basename(program)}": Path(program).read_bytes() for program in programs}
    tree |= {"root/usr/" + library.removeprefix("/usr").lstrip("/"): Path(library).read_bytes() for library in libraries}
    links = {name.split("/")[2] for name in tree if name.startswith("root/usr/")}
    pseudo = [f"root/{name} s 777 0 0 usr/{name}" for name in links]
    pseudo += [f"{name} m 755 0 0" for name in tree if name.startswith("root/usr/")]
    return squash(folder / "base-1.0.0.squashfs", tree, *pseudo)


async def test_a_package_stacked_on_an_image_does_not_see_the_host(kitchen: Kitchen, tmp_path: Path) -> None:
    """The dependency is a complete root, so the host's folders are not mounted."""
    await kitchen.bench.install_file(shell_image(tmp_path))
    toy = piston(
        tmp_path,
        "toy",
        "1.0.0",
        file("environment", "export A=$BASH\n"),
        run="ls /usr/bin\necho $A\n",
        dependencies={"base": "1"},
    )
    await kitchen.bench.install_file(toy)
    (made,), _ = kitchen.bench.store.runtimes()
    assert not made.on_host
    result = await kitchen.run("toy", ("main", ""))
    assert result.run is not None
    assert result.run.stdout.decode().split() == ["bash", "env", "ls", "/usr/bin/bash"], result.run.stderr


async def test_an_environment_script_requires_a_shell(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.install_file(image(tmp_path, "base", "1.0.0"))
    path = piston(tmp_path, "toy", "1.0.0", file("environment", "export A=1\n"), dependencies={"base": "*"})
    with pytest.raises(UnusablePackage, match="environment cannot be evaluated"):
        await bench.install_file(path)
    assert bench.ids == ["base-1.0.0"]
    assert bench.leftovers == []


def test_a_script_that_becomes_a_link_after_the_check_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(b"\x7fELF")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "run").symlink_to("secret")
    monkeypatch.setattr(piston_archive, "is_regular_file", lambda _path: True)
    with pytest.raises(OSError, match="symbolic links"):
        list(piston_archive.piston_runtimes(PackageInfo(language="toy", version="1.0.0"), tmp_path, {}))
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
