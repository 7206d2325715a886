"""Installation is atomic: killed at any moment, on a full disk, concurrently, and with invalid files."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firebox.domain.errors import Conflict, DependencyConflict, NotFound, PackageError, UnusablePackage, WrongChecksum
from firebox.packages.entry import Progress
from firebox.packages.installed.store import PackageStore
from firebox.sandbox.launcher.squashfs_support import cannot_mount
from tests.conftest import ROOT, missing, require_tool
from tests.packages.making import Bench, announce, file, image, info_of, link, piston, runtime, squash
from tests.support.command import Command

IS_ROOT = os.geteuid() == 0
ORDINARY_USER = 65533
MODULE = "tests.packages.installing"


def child(
    folder: Path, package: str, moment: int = 0, *before: str, deed: str = "install", index: Path | None = None
) -> subprocess.Popen[str]:
    """Start a process that installs from the repository of `folder`, or from another one. before: a command prefix."""
    words = [MODULE, deed, str(folder), package, str(moment), str(index or folder / "index.yaml")]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    if before:
        command = [*before, sys.executable, "-m", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd="/")
    return Command[str](words, stdout=subprocess.PIPE, text=True, env=environment, cwd="/")


def said(process: subprocess.Popen[str]) -> list[str]:
    """Return the decoded output of a child."""
    output, _ = process.communicate(timeout=120)
    return str(output).split()


def repository(folder: Path) -> Bench:
    """A bench with a repository: `top` needs `middle` needs `base`; `other` needs `base`; `toy` is Piston's and needs `help`."""
    packages = [
        (image(folder, "base", "1.0.0"), "base", "1.0.0", {}),
        (image(folder, "base", "2.0.0"), "base", "2.0.0", {}),
        *(
            (image(folder, name, "1.0.0", [runtime(name, "1.0.0")], dependencies=needs), name, "1.0.0", {"dependencies": needs})
            for name, needs in (("middle", {"base": "^1"}), ("top", {"middle": "*", "base": "1.x"}), ("other", {"base": "*"}))
        ),
        (piston(folder, "help", "1.0.0", file("environment", "export HELP=$PWD\n")), "help", "1.0.0", {}),
        (
            piston(folder, "toy", "1.0.0", file("environment", "export TOY=1\n"), dependencies={"help": "*"}),
            "toy",
            "1.0.0",
            {"dependencies": {"help": "*"}},
        ),
    ]
    index = announce(folder, *packages)
    return Bench(folder, repositories=f"local={index}")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return repository(tmp_path)


def everything_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(each): (each.lstat().st_mode, each.lstat().st_size) for each in sorted(folder.rglob("*"))}


async def test_dependencies_are_installed(bench: Bench) -> None:
    told: list[Progress] = []
    entry = await bench.repositories.find("top")
    installed = await bench.installer.install(entry, told.append)
    assert [each.id for each in installed] == ["base-1.0.0", "middle-1.0.0", "top-1.0.0"]
    assert installed[-1].requires == ("middle-1.0.0", "base-1.0.0")
    assert bench.ids == ["base-1.0.0", "middle-1.0.0", "top-1.0.0"]
    assert [each.language for each in bench.store.runtimes()[0]] == ["middle", "top"]
    assert {each.package for each in told} == set(bench.ids)
    assert {"unpack", "install"} <= {each.step for each in told}
    assert bench.leftovers == []
    assert list((bench.store.folder / "downloads").glob("*.package")) == []


async def test_an_installed_package_is_not_installed_again(bench: Bench) -> None:
    assert await bench.install("middle") == ["base-1.0.0", "middle-1.0.0"]
    assert await bench.install("top") == ["top-1.0.0"]
    before = bench.store.stamp()
    for name in ("top", "base"):
        with pytest.raises(Conflict, match=r"^Already installed$"):
            await bench.install(name, "1.x")
    assert bench.store.stamp() == before


async def test_versions_coexist(bench: Bench) -> None:
    await bench.install("middle")
    assert await bench.install("base") == ["base-2.0.0"]
    assert bench.ids == ["base-1.0.0", "base-2.0.0", "middle-1.0.0"]
    assert bench.store.layers("middle-1.0.0")[1] == str(bench.store.package_folder("base-1.0.0") / "image.squashfs")


async def test_required_packages_cannot_be_uninstalled(bench: Bench) -> None:
    await bench.install("top")
    with pytest.raises(Conflict, match=r"base-1\.0\.0 is required by middle-1\.0\.0, top-1\.0\.0") as caught:
        await bench.installer.uninstall("base-1.0.0")
    assert "uninstall middle-1.0.0 and top-1.0.0 first" in caught.value.hint
    for name in ("top-1.0.0", "middle-1.0.0", "base-1.0.0"):
        await bench.installer.uninstall(name)
    assert bench.ids == bench.leftovers == []
    with pytest.raises(NotFound):
        await bench.installer.uninstall("base-1.0.0")


async def test_concurrent_tasks_install_the_same_package(bench: Bench) -> None:
    results = await asyncio.gather(bench.install("top"), bench.install("top"), return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["Conflict", "list"]
    assert bench.ids == ["base-1.0.0", "middle-1.0.0", "top-1.0.0"]
    assert bench.leftovers == []


async def test_concurrent_tasks_install_packages_with_a_common_dependency(bench: Bench) -> None:
    await bench.install("base", "1.0.0")
    await bench.installer.uninstall("base-1.0.0")
    results = await asyncio.gather(bench.install("top"), bench.install("middle"), return_exceptions=True)
    assert bench.ids == ["base-1.0.0", "middle-1.0.0", "top-1.0.0"]
    assert any(isinstance(each, list) for each in results)
    assert all(isinstance(each, list | Conflict) for each in results)
    assert bench.leftovers == []


async def test_concurrent_processes_install_the_same_package(bench: Bench, tmp_path: Path) -> None:
    children = [child(tmp_path, package) for package in ("top", "other", "top", "toy", "middle")]
    outcomes = [await asyncio.to_thread(said, each) for each in children]
    for words in outcomes:
        assert words[0] == "moments" or words[:2] == ["error", "Conflict"], words
    assert [words[0] for words in (outcomes[0], outcomes[2])].count("moments") <= 1
    assert {"base-1.0.0", "help-1.0.0", "middle-1.0.0", "top-1.0.0", "toy-1.0.0"} <= set(bench.ids)
    assert any(each.startswith("other") for each in bench.ids)
    assert bench.store.runtimes()[1] == []
    assert bench.leftovers == []


@pytest.mark.slow
async def test_kill_at_any_moment_leaves_the_previous_state(tmp_path: Path) -> None:
    """The child is killed before each of its file operations, which are counted first."""
    index = tmp_path / "index.yaml"
    repository(tmp_path)
    words = said(child(tmp_path, "toy"))
    assert words[0] == "moments"
    moments = int(words[1])
    assert moments > 40
    for moment in range(2, moments + 1, max(1, moments // 12)):
        folder = tmp_path / str(moment)
        folder.mkdir()
        bench = Bench(folder, repositories=f"local={index}")
        await bench.install("base", "1.0.0")
        before = everything_below(bench.store.installed_folder)
        process = child(folder, "toy", moment, index=index)
        words = said(process)
        if not words:
            assert process.returncode == -signal.SIGKILL
        else:  # lock attempts are counted too, so the last operations may not be reached
            assert words[0] == "moments"
            assert moment > moments // 2
        after = everything_below(bench.store.installed_folder)
        assert {name: after.get(name) for name in before} == before
        assert bench.ids in (["base-1.0.0"], ["base-1.0.0", "help-1.0.0"], ["base-1.0.0", "help-1.0.0", "toy-1.0.0"])
        assert PackageStore(bench.store.folder).runtimes()[1] == []
        if "toy-1.0.0" not in bench.ids:
            await bench.install("toy")
        await bench.installer.uninstall("base-1.0.0")  # any change sweeps leftovers
        assert bench.leftovers == []
        assert bench.ids == ["help-1.0.0", "toy-1.0.0"]
        shutil.rmtree(folder)


async def test_kill_during_uninstallation_leaves_the_package_complete_or_absent(tmp_path: Path) -> None:
    bench = repository(tmp_path)
    await bench.install("toy")
    moments = int(said(child(tmp_path, "toy", deed="uninstall"))[1])
    assert moments > 10
    for moment in range(1, moments + 1, max(1, moments // 8)):
        if "toy-1.0.0" not in bench.ids:
            await bench.install("toy")
        process = child(tmp_path, "toy", moment, deed="uninstall")
        assert said(process) == [] or moment > moments // 2
        assert process.returncode in {-signal.SIGKILL, 0}
        assert PackageStore(bench.store.folder).runtimes()[1] == []
        assert bench.ids in (["help-1.0.0", "toy-1.0.0"], ["help-1.0.0"])
    if "toy-1.0.0" in bench.ids:
        await bench.installer.uninstall("toy-1.0.0")
    await bench.install("base", "1.0.0")
    assert bench.ids == ["base-1.0.0", "help-1.0.0"]
    assert bench.leftovers == []


@pytest.mark.parametrize("package", ["large", "packed"])
async def test_a_full_disk_leaves_the_previous_state(package: str, tmp_path: Path) -> None:
    """A file system of 6 MB in a separate mount namespace."""
    noise = os.urandom(4 << 20)
    large = squash(tmp_path / "large-1.0.0.squashfs", {"pkg-info.json": info_of("large", "1.0.0"), "root/noise": noise})
    packed = piston(tmp_path, "packed", "1.0.0", *(file(f"f{number}", bytes(1 << 20)) for number in range(9)))
    small = piston(tmp_path, "small", "1.0.0")
    announce(
        tmp_path,
        (large, "large", "1.0.0", {}),
        (packed, "packed", "1.0.0", {}),
        (small, "small", "1.0.0", {}),
    )
    (tmp_path / "data").mkdir()
    script = """
        mount -t tmpfs -o size=6m,mode=755 firebox "$DATA"
        try() { "$@" 0 "$INDEX"; }
        try "$@" small
        dd if=/dev/zero of="$DATA/filler" bs=64k count=40 2>/dev/null
        try "$@" "$PACKAGE"
        rm "$DATA/filler"
        try "$@" "$PACKAGE"
        echo
        cd "$DATA/packages"
        ls installed installing
        test -s installed/small-1.0.0/package.json
    """
    before = ["unshare", "--mount"] if IS_ROOT else ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*before, "true"], check=False, capture_output=True).returncode != 0:
        missing("no mount namespace can be made here")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "DATA": str(tmp_path / "data"),
        "INDEX": str(tmp_path / "index.yaml"),
        "PACKAGE": package,
    }
    command = [*before, "sh", "-euc", script, "sh", sys.executable, "-m", MODULE, "install", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0].startswith("moments")
    assert lines[1].startswith(("error PackageError", "error DownloadFailed")), lines
    assert "full" in lines[1] or "No space left" in lines[1] or "are free" in lines[1]
    listing = done.stdout.split("\n\n", 1)[1]
    if package == "large":  # it fits after the filler is deleted
        assert lines[2].startswith("moments")
        assert "large-1.0.0" in listing
    else:  # nine times the available space
        assert lines[2].startswith("error PackageError")
        assert "packed" not in listing
    assert listing.rstrip().endswith("installing:")


async def test_package_larger_than_the_disk_is_rejected_before_unpacking(tmp_path: Path) -> None:
    path = image(tmp_path, "toy", "1.0.0")
    index = announce(tmp_path, (path, "toy", "1.0.0", {"size": 1 << 60}))
    bench = Bench(tmp_path, repositories=f"local={index}", max_package_bytes=1 << 62)
    with pytest.raises(PackageError, match="are free"):
        await bench.install("toy")
    assert bench.ids == bench.leftovers == []


async def test_an_invalid_file_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    await bench.install("base", "1.0.0")
    path = tmp_path / "top-1.0.0.squashfs"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(WrongChecksum):
        await bench.install("top")
    assert bench.ids == ["base-1.0.0"]  # `middle` was right, and is not there all the same
    assert bench.leftovers == []


async def test_one_package_is_not_passed_off_as_another(tmp_path: Path) -> None:
    for number, path in enumerate((image(tmp_path, "evil", "1.0.0"), piston(tmp_path, "evil", "1.0.0"))):
        for language, version in (("good", "1.0.0"), ("evil", "1.0.1")):
            index = announce(tmp_path, (path, language, version, {}))
            bench = Bench(tmp_path / f"{number}{language}", repositories=f"local={index}")
            with pytest.raises(UnusablePackage, match=r"the file contains a different package, evil-1\.0\.0"):
                await bench.install(language)
            assert bench.ids == bench.leftovers == []
            assert list((bench.store.folder / "downloads").glob("*.package")) == []


async def test_dependencies_missing_from_the_index_are_installed(tmp_path: Path) -> None:
    """Piston's line format lacks dependencies; the package has them."""
    base, toy = piston(tmp_path, "base", "1.2.0"), piston(tmp_path, "toy", "1.0.0", dependencies={"base": "^1"})
    top = piston(tmp_path, "top", "1.0.0", dependencies={"toy": "1"})
    index = announce(tmp_path, (base, "base", "1.2.0", {}), (toy, "toy", "1.0.0", {}), (top, "top", "1.0.0", {}))
    bench = Bench(tmp_path, repositories=f"local={index}")
    assert await bench.install("top") == ["base-1.2.0", "toy-1.0.0", "top-1.0.0"]
    assert [each.id for each in bench.store.closure("toy-1.0.0")] == ["toy-1.0.0", "base-1.2.0"]


async def test_dependencies_that_differ_from_the_index_are_rejected(tmp_path: Path) -> None:
    base, toy = image(tmp_path, "base", "1.0.0"), image(tmp_path, "toy", "1.0.0", dependencies={"base": "1.0.0"})
    index = announce(tmp_path, (base, "base", "1.0.0", {}), (toy, "toy", "1.0.0", {"dependencies": {"base": "*"}}))
    bench = Bench(tmp_path, repositories=f"local={index}")
    with pytest.raises(UnusablePackage, match=r"announces the dependencies base \*, but the package declares base 1\.0\.0"):
        await bench.install("toy")
    assert bench.ids == bench.leftovers == []


async def test_a_dependency_that_is_nowhere_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(DependencyConflict, match="base"):
        await bench.install_file(image(tmp_path, "toy", "1.0.0", dependencies={"base": "^3"}))
    assert bench.ids == bench.leftovers == []


async def test_package_for_another_architecture_is_rejected_before_the_download(tmp_path: Path) -> None:
    path = image(tmp_path, "toy", "1.0.0")
    index = announce(tmp_path, (path, "toy", "1.0.0", {"architecture": "sparc"}))
    bench = Bench(tmp_path, repositories=f"local={index}")
    (entry,) = await bench.repositories.entries()
    path.unlink()
    with pytest.raises(UnusablePackage, match="is built for 'sparc'"):
        await bench.installer.install(entry)


RUNTIMES: dict[str, dict[str, object]] = {
    "mounts": {"mounts": ["/"]},
    "layers": {"layers": ["/"]},
    "on_host": {"on_host": True},
    "installed": {"installed": "other-1.0.0"},
    "an unknown key": {"privileged": True},
    "no command": {"run": []},
    "a command of a number": {"run": [1]},
    "a main file elsewhere": {"main_name": "../main"},
    "an absolute main file": {"main_name": "/etc/passwd"},
    "a version that is none": {"version": "new"},
    "a pattern that takes for ever": {"name_pattern": "((a+)+)b"},
    "a pattern without a group": {"name_pattern": "a"},
    "a pattern that is none": {"name_pattern": "("},
    "a limit below 0": {"run_limits": {"wall_ms": -1}},
    "a variable that is none": {"env": {"A=B": "c"}},
    "an empty language": {"language": ""},
}


@pytest.mark.parametrize("what", RUNTIMES)
async def test_rejects_runtimes_with(what: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = image(tmp_path, "toy", "1.0.0", [runtime("toy", "1.0.0"), {**runtime("t", "1.0.0"), **RUNTIMES[what]}])
    with pytest.raises(UnusablePackage):
        await bench.install_file(path)
    assert bench.ids == bench.leftovers == []


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "[1]", "null", "[" * 100_000])
async def test_rejects_an_invalid_list_of_runtimes(content: str, tmp_path: Path) -> None:
    path = squash(tmp_path / "i.squashfs", {"pkg-info.json": info_of("toy", "1.0.0"), "root/": "", "runtimes.json": content})
    with pytest.raises(UnusablePackage):
        await Bench(tmp_path).install_file(path)


async def test_an_image_must_have_a_root_folder_or_be_a_piston_package(tmp_path: Path) -> None:
    with pytest.raises(UnusablePackage, match="root"):
        await Bench(tmp_path).install_file(squash(tmp_path / "a.squashfs", {"pkg-info.json": info_of("toy", "1.0.0")}))
    both = {"pkg-info.json": info_of("toy", "1.0.0"), "root/": "", "run": "exit\n"}
    with pytest.raises(UnusablePackage, match="both"):
        await Bench(tmp_path).install_file(squash(tmp_path / "b.squashfs", both))


async def test_an_image_is_padded_to_whole_blocks(tmp_path: Path) -> None:
    """A loop device hides an incomplete last sector."""
    path = squash(tmp_path / "i.squashfs", {"pkg-info.json": info_of("toy", "1.0.0"), "root/file": "x"}, options=("-nopad",))
    assert path.stat().st_size % 512
    before = path.read_bytes()
    bench = Bench(tmp_path)
    await bench.install_file(path)
    installed = bench.store.package_folder("toy-1.0.0") / "image.squashfs"
    assert installed.stat().st_size % 4096 == 0
    assert installed.read_bytes()[: len(before)] == before == path.read_bytes()


async def test_modes_do_not_depend_on_the_umask(bench: Bench) -> None:
    before = os.umask(0o077)
    try:
        await bench.install("toy")
        await bench.install("other")
    finally:
        os.umask(before)
    for each in [bench.store.installed_folder, *bench.store.installed_folder.rglob("*")]:
        assert stat.S_IMODE(each.stat().st_mode) & 0o044 == 0o044, each
        assert stat.S_IMODE(each.stat().st_mode) & 0o022 == 0, each


async def test_a_cancelled_installation_is_rolled_back(bench: Bench) -> None:
    for step in ("verify", "environment", "install"):
        entry = await bench.repositories.find("toy")

        tasks: list[asyncio.Task[object]] = []

        def cancel(progress: Progress, step: str = step, tasks: list[asyncio.Task[object]] = tasks) -> None:
            if progress.package == "toy-1.0.0" and progress.step == step and not progress.words:
                tasks[0].get_loop().call_soon_threadsafe(tasks[0].cancel)

        tasks.append(asyncio.create_task(bench.installer.install(entry, cancel)))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert bench.ids == []
        assert bench.leftovers == []
    assert await bench.install("toy") == ["help-1.0.0", "toy-1.0.0"]


async def test_unpacking_a_large_archive_can_be_cancelled(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = piston(tmp_path, "toy", "1.0.0", *(file(f"f{number}", bytes(1 << 20)) for number in range(64)))
    loop = asyncio.get_running_loop()

    def cancel(progress: Progress) -> None:
        if progress.step == "unpack":
            loop.call_soon_threadsafe(installing.cancel)

    installing = asyncio.create_task(bench.installer.install_file(path, cancel))
    with pytest.raises(asyncio.CancelledError):
        await installing
    assert bench.ids == bench.leftovers == []


async def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await Bench(tmp_path).install_file(tmp_path / "nothing")


async def test_thousands_of_files_and_links_are_installed(tmp_path: Path) -> None:
    """As in real toolchains."""
    members = [file(f"d{number % 100}/f{number}", b"x") for number in range(1_000)]
    members += [link(f"d{number % 100}/l{number}", f"f{number}") for number in range(1_000)]
    bench = Bench(tmp_path)
    await bench.install_file(piston(tmp_path, "toy", "1.0.0", *members))
    tree = bench.store.package_folder("toy-1.0.0") / "root/piston/packages/toy/1.0.0"
    assert sum(1 for _ in tree.rglob("[fl]*")) == 2_000
    assert (tree / "d7/l7").read_bytes() == b"x"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder accessible to all users. Those of pytest are made private by the next pytest process."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.parametrize("who", ["an ordinary user", "root without the right to mount"])
async def test_an_image_is_unpacked_where_it_cannot_be_mounted(who: str, open_folder: Path) -> None:
    if not IS_ROOT:
        missing("only root can become another user")
    tree = {
        "pkg-info.json": info_of("toy", "1.0.0"),
        "runtimes.json": json.dumps([runtime("toy", "1.0.0")]),
        "root/usr/a": "words",
    }
    path = squash(
        open_folder / "toy.squashfs", tree, "root/closed d 000 0 0", "root/closed/file f 000 0 0 echo x", "root/l s 777 0 0 /x"
    )
    announce(open_folder, (path, "toy", "1.0.0", {}))
    if who == "an ordinary user":
        os.chown(open_folder, ORDINARY_USER, ORDINARY_USER)
        before = [require_tool("setpriv"), f"--reuid={ORDINARY_USER}", f"--regid={ORDINARY_USER}", "--clear-groups"]
        importing = [*before, sys.executable, "-c", "import firebox"]
        if subprocess.run(importing, env={"PYTHONPATH": f"{ROOT}/src"}, check=False).returncode != 0:
            missing("the checkout is not readable for other users")
    else:
        before = [require_tool("setpriv"), "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    words = said(child(open_folder, "toy", 0, *before))
    assert words[0] == "moments", words
    bench = Bench(open_folder)
    (package,) = bench.store.all()
    assert package.kind == "folder"
    root = bench.store.package_folder("toy-1.0.0") / "root"
    assert (root / "usr/a").read_text() == "words"
    assert os.readlink(root / "l") == "/x"
    owner = ORDINARY_USER if who == "an ordinary user" else 0
    assert {each.lstat().st_uid for each in root.rglob("*")} == {owner}
    (made,), _ = bench.store.runtimes()
    assert made.layers == (str(root),)
    assert not made.on_host
    await bench.installer.uninstall("toy-1.0.0")
    assert bench.ids == bench.leftovers == []


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"entry": 5}', b"x" * (5 << 20)])
async def test_a_corrupt_package_is_uninstalled_by_its_id(bench: Bench, content: bytes | None) -> None:
    await bench.install("base")
    description = bench.store.package_folder("base-2.0.0") / "package.json"
    if content is None:
        description.unlink()
    else:
        description.write_bytes(content)
    again = Bench(bench.data.parent)
    assert (again.ids, again.store.damaged()) == ([], ["base-2.0.0"])
    for wrong in ("base-2.0.1", "../installed/base-2.0.0", ".", ""):
        with pytest.raises(NotFound):
            await again.installer.uninstall(wrong)
    await again.installer.uninstall("base-2.0.0")
    assert not description.parent.exists()
    assert again.store.damaged() == again.leftovers == []


async def test_an_image_is_not_unpacked_where_it_can_be_mounted(bench: Bench) -> None:
    if words := cannot_mount():
        missing(words)
    await bench.install("base")
    assert [each.kind for each in bench.store.all()] == ["image"]
    names = sorted(each.name for each in bench.store.package_folder("base-2.0.0").iterdir())
    assert names == ["image.squashfs", "package.json", "pkg-info.json", "runtimes.json"]


async def test_leftovers_are_swept_by_the_next_change(bench: Bench) -> None:
    await bench.install("base", "1.0.0")
    left = bench.store.folder / "installing" / "toy-1.0.0.abc"
    (left / "root" / "deep").mkdir(parents=True)
    (left / "root" / "deep" / "file").write_text("x")
    (left / "root" / "deep").chmod(0)
    (left / "root" / "link").symlink_to(bench.store.installed_folder)
    (bench.store.folder / "installing" / "toy-1.0.0.lock").touch()
    await bench.install("other")
    assert bench.leftovers == []
    assert "base-1.0.0" in bench.ids


def test_an_archive_with_an_old_header_is_read(tmp_path: Path) -> None:
    """As written by other tar programs: without folder members, with names starting with ./."""
    require_tool("tar")
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    (source / "pkg-info.json").write_text(info_of("toy", "1.0.0"))
    (source / "run").write_text("cat $1\n")
    (source / "bin/tool").write_text("x")
    os.link(source / "bin/tool", source / "bin/same")
    (source / "bin/link").symlink_to("tool")
    (source / ("n" * 200)).write_text("long")
    for kind in ("gnu", "pax", "ustar"):
        path = tmp_path / f"{kind}.tar.gz"
        names = [] if kind != "ustar" else [f"--exclude={'n' * 200}"]
        subprocess.run(["tar", "--create", "--gzip", f"--format={kind}", *names, "-C", source, f"--file={path}", "."], check=True)
        bench = Bench(tmp_path / kind)
        asyncio.run(bench.install_file(path))
        tree = bench.store.package_folder("toy-1.0.0") / "root/piston/packages/toy/1.0.0"
        assert (tree / "bin/link").read_text() == (tree / "bin/same").read_text() == "x"
        assert tarfile.is_tarfile(path)
