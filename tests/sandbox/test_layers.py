"""Roots stacked from packages: the host is invisible, nothing can be changed, and nothing outlives its use."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.launcher import squashfs_support
from firebox.sandbox.spec import Command, SandboxFailure, SandboxSpec
from tests.conftest import require_tool
from tests.sandbox.conftest import ENVIRONMENT, Box, follow
from tests.support.waiting import until


@pytest.fixture
def box(own_box: Box) -> Box:
    """A launcher keeps its layers mounted, so each test has its own."""
    return own_box


PROGRAMS = ("sh", "cat", "ls", "flock", "mknod", "sleep", "touch")


def copy_program(name: str, tree: Path) -> None:
    """Copy a host program with its libraries into a tree."""
    found = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    assert found is not None
    lines = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout.split()
    for path in [found, *(word for word in lines if word.startswith("/"))]:
        target = tree / ("usr/bin/" + name if path == found else path.lstrip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), target)


@pytest.fixture(scope="module")
def trees() -> Iterator[Path]:
    """A base with a few programs, and a layer that changes one file; world-readable."""
    folder = Path(tempfile.mkdtemp(prefix="firebox-layers-"))
    base, top = folder / "base" / "root", folder / "top" / "root"
    for name in PROGRAMS:
        copy_program(name, base)
    for link in ("bin", "lib", "lib64"):
        below = base / link
        if below.is_dir():
            shutil.copytree(below, base / "usr" / link, dirs_exist_ok=True)
            shutil.rmtree(below)
        (base / "usr" / link).mkdir(exist_ok=True)
        below.symlink_to(f"usr/{link}")
    for tree, words in ((base, "of the base"), (top, "of the layer")):
        (tree / "opt").mkdir(parents=True)
        (tree / "opt/words").write_text(words + "\n")
        (tree / "etc").mkdir()
        (tree / "etc/passwd").write_text("root::0:0:hostile:/:/bin/sh\n")
    (base / "opt/below").write_text("only in the base\n")
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def make_image(tree: Path, image: Path) -> None:
    """Create the image of a package."""
    command = [
        require_tool("mksquashfs"),
        str(tree),
        str(image),
        "-quiet",
        "-no-progress",
        "-no-xattrs",
        "-all-root",
        "-noappend",
    ]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def layers(box: Box, trees: Path, tmp_path: Path) -> tuple[str, ...]:
    """The two layers, in the form that this launcher supports: images or folders."""
    if box.kind == "rootless":
        return str(trees / "top/root"), str(trees / "base/root")
    assert squashfs_support.cannot_mount() == ""
    for name in ("top", "base"):
        make_image(trees / name, tmp_path / f"{name}.squashfs")
    return str(tmp_path / "top.squashfs"), str(tmp_path / "base.squashfs")


@pytest.fixture
def packaged(layers: tuple[str, ...]) -> SandboxSpec:
    return SandboxSpec(layers=layers, host=False)


async def test_upper_layer_covers_the_lower_one(box: Box, packaged: SandboxSpec) -> None:
    outcome = await box.shell("cat /opt/words /opt/below", specification=packaged)
    assert outcome.text == "of the layer\nonly in the base\n"


async def test_forgotten_layers_leave_nothing(box: Box, packaged: SandboxSpec, nothing_left: None) -> None:
    await box.shell("true", specification=packaged)
    for layer in packaged.layers:
        box.launcher.forget(layer)


async def test_nothing_of_the_host_is_shown(box: Box, packaged: SandboxSpec) -> None:
    outcome = await box.shell("ls /usr/bin /usr/share /opt /", specification=packaged)
    assert set(outcome.text.split("\n\n")[0].split()[1:]) == set(PROGRAMS) or not {"python3", "perl"} & set(outcome.text.split())
    assert "/usr/share" in outcome.error_text


async def test_accounts_and_names_are_ours_and_not_the_packages(box: Box, packaged: SandboxSpec) -> None:
    outcome = await box.shell("cat /etc/passwd /etc/hostname", specification=packaged)
    assert "hostile" not in outcome.text
    assert outcome.text.endswith("firebox\n")


async def test_layers_above_the_host_add_to_it(box: Box, layers: tuple[str, ...]) -> None:
    outcome = await box.shell("cat /opt/words; ls -d /usr/share", specification=SandboxSpec(layers=layers))
    assert outcome.text == "of the layer\n/usr/share\n"


async def test_layers_cannot_be_written(box: Box, packaged: SandboxSpec) -> None:
    outcome = await box.shell("echo x > /opt/words; touch /opt/new /new; cat /opt/words", specification=packaged)
    assert outcome.text == "of the layer\n"
    assert outcome.error_text.lower().count("read-only file system") == 3


async def test_files_of_a_run_do_not_exist_in_the_next(box: Box, packaged: SandboxSpec) -> None:
    assert (await box.shell("touch /tmp/mine /box/mine; ls /tmp", specification=packaged)).text == "mine\n"
    assert (await box.shell("ls /tmp /box", specification=packaged)).text == "/box:\n\n/tmp:\n"


async def test_lock_on_a_file_of_a_layer_is_not_seen_by_another_run(box: Box, packaged: SandboxSpec) -> None:
    first = await box.launcher.make(packaged)
    locked = asyncio.Event()
    command = Command(
        argv=("/bin/sh", "-c", "flock -n /opt/words sh -c 'echo locked; sleep 60'"), env=ENVIRONMENT, wall_ms=60_000
    )
    running = asyncio.create_task(follow(first, command, lambda _stream, _data: locked.set()))
    try:
        await asyncio.wait_for(locked.wait(), 30)
        assert (await box.shell("flock -n /opt/words sh -c 'echo free'", specification=packaged)).text == "free\n"
    finally:
        first.kill("cancelled")
        await running
        first.close()


async def test_devices_are_those_that_every_sandbox_has(box: Box, packaged: SandboxSpec) -> None:
    outcome = await box.shell("echo x > /dev/null && cat /dev/zero | head -c 0; ls /dev", specification=packaged)
    assert {"null", "zero", "full", "random", "urandom", "tty"} <= set(outcome.text.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
@pytest.mark.parametrize("sandbox_kind", ["root"], indirect=True)
async def test_device_in_an_image_does_not_work(box: Box, trees: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    shutil.copytree(trees / "base", hostile, symlinks=True)
    for place in ("opt/zero", "dev/zero"):
        (hostile / "root" / place).parent.mkdir(exist_ok=True)
        os.mknod(hostile / "root" / place, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        os.chmod(hostile / "root" / place, 0o666)
    make_image(hostile, tmp_path / "hostile.squashfs")
    specification = SandboxSpec(layers=(str(tmp_path / "hostile.squashfs"),), host=False)
    outcome = await box.shell("cat < /opt/zero", specification=specification)
    assert "denied" in outcome.error_text.lower()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts images")
@pytest.mark.parametrize("sandbox_kind", ["root"], indirect=True)
class TestImages:
    async def test_run_keeps_an_image_that_is_forgotten_and_removed(
        self, box: Box, packaged: SandboxSpec, layers: tuple[str, ...]
    ) -> None:
        sandbox: Sandbox = await box.launcher.make(packaged)
        heard: list[bytes] = []
        began = asyncio.Event()

        def hear(_stream: str, data: bytes) -> None:
            heard.append(data)
            began.set()

        command = Command(
            argv=("/bin/sh", "-c", "echo began; read line; cat /opt/words"), env=ENVIRONMENT, wall_ms=60_000, interactive=True
        )
        running = asyncio.create_task(follow(sandbox, command, hear))
        await asyncio.wait_for(began.wait(), 30)
        for layer in layers:
            box.launcher.forget(layer)
            Path(layer).unlink()
        with pytest.raises(SandboxFailure):
            await box.launcher.make(packaged)
        await sandbox.write_stdin(b"go\n")
        await running
        sandbox.close()
        assert b"".join(heard) == b"began\nof the layer\n"

    async def test_loop_devices_are_free_again_when_the_launcher_ends(self, box: Box, packaged: SandboxSpec) -> None:
        await box.shell("true", specification=packaged)
        assert loops_of(packaged.layers) == 2
        await box.launcher.close()
        await until(lambda: loops_of(packaged.layers) == 0)

    async def test_host_does_not_see_the_mounts(self, box: Box, packaged: SandboxSpec) -> None:
        await box.shell("true", specification=packaged)
        assert "squashfs /images" not in Path("/proc/self/mountinfo").read_text()

    @pytest.mark.parametrize("content", [b"", b"hsqs" + bytes(4092), os.urandom(4096)], ids=["empty", "zeros", "noise"])
    async def test_damaged_image_is_refused_and_leaves_nothing(
        self, box: Box, tmp_path: Path, content: bytes, nothing_left: None
    ) -> None:
        (tmp_path / "damaged").write_bytes(content)
        with pytest.raises(SandboxFailure):
            await box.launcher.make(SandboxSpec(layers=(str(tmp_path / "damaged"),), host=False))
        assert loops_of((str(tmp_path / "damaged"),)) == 0
        assert (await box.shell("echo on")).text == "on\n"

    async def test_image_without_a_tree_is_refused(self, box: Box, tmp_path: Path, nothing_left: None) -> None:
        (tmp_path / "empty").mkdir()
        make_image(tmp_path / "empty", tmp_path / "image")
        with pytest.raises(SandboxFailure, match="no folder root"):
            await box.launcher.make(SandboxSpec(layers=(str(tmp_path / "image"),), host=False))


async def test_layer_that_is_not_there_is_refused(box: Box, tmp_path: Path) -> None:
    with pytest.raises(SandboxFailure):
        await box.launcher.make(SandboxSpec(layers=(str(tmp_path / "nothing"),), host=False))


def loops_of(layers: tuple[str, ...]) -> int:
    """Count the loop devices of these files, without those of other tests with the same names."""
    shown = [file.read_text().strip() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
    return sum(path.endswith(layer) for path in shown for layer in layers)


async def test_a_tree_below_tmp_is_shown_beside_it(box: Box) -> None:
    """At its original path the sandbox's own folder would cover it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        Path(folder, "file").write_text("seen")
        Path(folder, "file").chmod(0o644)
        script = f"cat /.host{folder}/file; echo .; ls -A /tmp; echo x > /.host{folder}/file || echo read-only"
        outcome = await box.shell(script, specification=SandboxSpec(trees=(folder,)))
        assert outcome.text == "seen.\nread-only\n", outcome.error_text


async def test_an_unusable_package_fails_only_its_own_runs(box: Box, tmp_path: Path) -> None:
    broken = SandboxSpec(layers=(str(tmp_path / "nothing"),), host=False)
    failed, made = await asyncio.gather(box.launcher.make(broken), box.make(), return_exceptions=True)
    assert isinstance(failed, SandboxFailure)
    assert isinstance(made, Sandbox), made
    made.close()
