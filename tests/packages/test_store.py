"""What is installed, as everybody sees it: the list, the runtimes, the stamp, and who keeps a package from going away."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from firebox.domain.errors import Conflict, NotFound
from firebox.packages.installed.store import PackageStore
from tests.conftest import ROOT
from tests.packages.making import Bench, file, image, piston, runtime
from tests.support.waiting import until

HOLDER = """
import sys
from pathlib import Path
from firebox.packages.installed.store import PackageStore
with PackageStore(Path(sys.argv[1])).hold(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""
UNINSTALLER = """
import asyncio, sys
from pathlib import Path
from firebox.settings.settings import load_settings
from firebox.packages.installed.install import Installer
from firebox.packages.repository.repositories import Repositories
from firebox.packages.installed.store import PackageStore
settings = load_settings({"data_dir": Path(sys.argv[1]).parent, "uninstall_wait_ms": 600_000}, environ={})
installer = Installer(settings, PackageStore(Path(sys.argv[1])), Repositories(settings))
asyncio.run(installer.uninstall(sys.argv[2]))
print("removed", flush=True)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(processes: ExitStack, script: str, bench: Bench, package: str) -> subprocess.Popen[str]:
    """Start another process that does something with the store; it is gone after the test."""
    command = [sys.executable, "-c", script, str(bench.store.folder), package]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    pipe = subprocess.PIPE
    process = processes.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment))
    processes.callback(process.kill)
    return process


async def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


async def until_refused(store: PackageStore, package: str) -> str:
    """Wait until new holds are refused. Returns the words."""
    words: list[str] = []

    def is_refused() -> bool:
        try:
            with store.hold(package):
                pass
        except Conflict as error:
            words.append(error.message)
        return bool(words)

    await until(is_refused)
    return words[0]


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    store = PackageStore(tmp_path / "nowhere")
    assert store.all() == []
    assert store.get("toy-1.0.0") is None
    assert store.runtimes() == ([], [])
    assert store.stamp() == store.stamp() == 0
    assert not (tmp_path / "nowhere").exists()


async def test_everybody_sees_what_was_installed(bench: Bench, tmp_path: Path) -> None:
    other = PackageStore(bench.store.folder)
    assert other.all() == []
    await bench.install_file(image(tmp_path, "toy", "1.0.0", [runtime("toy", "1.0.0")], author="Jo Doe <jo@example.org>"))
    (package,) = other.all()
    assert (package.id, package.kind, package.requires, package.on_host) == ("toy-1.0.0", "image", (), False)
    assert package.entry.author == "Jo Doe <jo@example.org>"
    assert package.size_bytes > 4096
    assert other.get("toy-1.0.0") == package == bench.store.get("toy-1.0.0")
    await bench.installer.uninstall("toy-1.0.0")
    assert other.all() == []


async def test_the_stamp_is_another_one_after_every_change(bench: Bench, tmp_path: Path) -> None:
    seen = [bench.store.stamp()]
    for number in range(4):
        await bench.install_file(image(tmp_path, f"toy{number}", "1.0.0"))
        seen.append(bench.store.stamp())
    for number in range(4):
        await bench.installer.uninstall(f"toy{number}-1.0.0")
        seen.append(bench.store.stamp())
    assert len(set(seen)) == len(seen)
    assert bench.store.stamp() == seen[-1]


async def test_layers_come_before_what_they_build_on(bench: Bench, tmp_path: Path) -> None:
    await bench.install_file(image(tmp_path, "base", "1.0.0"))
    await bench.install_file(image(tmp_path, "left", "1.0.0", dependencies={"base": "1.x"}))
    await bench.install_file(image(tmp_path, "right", "1.0.0", dependencies={"base": "*", "left": "^1"}))
    await bench.install_file(
        image(tmp_path, "top", "1.0.0", [runtime("top", "1.0.0")], dependencies={"base": "1.0.0", "left": "1.0.0", "right": "1"})
    )
    order = ["top-1.0.0", "right-1.0.0", "left-1.0.0", "base-1.0.0"]
    (made,), words = bench.store.runtimes()
    assert words == []
    assert made.layers == tuple(f"{bench.store.folder}/installed/{each}/image.squashfs" for each in order)
    assert (made.installed, made.on_host, made.package) == ("top-1.0.0", False, None)
    assert [each.id for each in bench.store.closure("top-1.0.0")] == order
    assert bench.store.users("base-1.0.0") == ["left-1.0.0", "right-1.0.0", "top-1.0.0"]


async def test_a_variant_stands_beside_the_plain_language(bench: Bench, tmp_path: Path) -> None:
    await bench.install_file(image(tmp_path, "toy", "1.0.0", [runtime("toy", "1.0.0", package="toolchain")]))
    await bench.install_file(image(tmp_path, "toy-more", "1.0.0", [runtime("toy", "1.0.0", rank=-1, aliases=["tm"])]))
    runtimes, _ = bench.store.runtimes()
    assert [(each.language, each.package, each.installed) for each in runtimes] == [
        ("toy", "toolchain", "toy-1.0.0"),
        ("toy", "toy-more", "toy-more-1.0.0"),
    ]


@pytest.mark.parametrize("damage", ["package.json", "runtimes.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[{}]", b'{"entry": {}}', b"\xff", b"x" * (5 << 20)])
async def test_a_damaged_package_does_not_take_the_others_along(
    damage: str, content: bytes, bench: Bench, tmp_path: Path
) -> None:
    await bench.install_file(image(tmp_path, "toy", "1.0.0", [runtime("toy", "1.0.0")]))
    await bench.install_file(image(tmp_path, "other", "1.0.0", [runtime("other", "1.0.0")]))
    (bench.store.place("toy-1.0.0") / damage).write_bytes(content)
    runtimes, words = PackageStore(bench.store.folder).runtimes()
    assert [each.language for each in runtimes] == ["other"]
    assert len(words) == 1
    assert words[0].startswith("toy-1.0.0 cannot be read")


async def test_a_damaged_package_can_be_installed_again(bench: Bench, tmp_path: Path) -> None:
    path = image(tmp_path, "toy", "1.0.0", [runtime("toy", "1.0.0")])
    await bench.install_file(path)
    (bench.store.place("toy-1.0.0") / "package.json").write_bytes(b"{")
    fresh = Bench(tmp_path)
    assert await fresh.install_file(path) == ["toy-1.0.0"]
    assert fresh.ids == ["toy-1.0.0"]


async def test_a_missing_dependency_is_named(bench: Bench, tmp_path: Path) -> None:
    await bench.install_file(image(tmp_path, "base", "1.0.0"))
    await bench.install_file(image(tmp_path, "toy", "1.0.0", [runtime("toy", "1.0.0")], dependencies={"base": "*"}))
    shutil.rmtree(bench.store.place("base-1.0.0"))
    store = PackageStore(bench.store.folder)
    assert store.runtimes() == ([], ["toy-1.0.0 needs base-1.0.0, which is not installed"])
    with pytest.raises(NotFound, match=r"base-1\.0\.0"), store.hold("toy-1.0.0"):
        pass


async def test_a_circle_ends(bench: Bench, tmp_path: Path) -> None:
    """No index may have one; a hand that changes the files may."""
    await bench.install_file(image(tmp_path, "base", "1.0.0", [runtime("base", "1.0.0")]))
    await bench.install_file(image(tmp_path, "toy", "1.0.0", dependencies={"base": "*"}))
    description = bench.store.place("base-1.0.0") / "package.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "requires": ["toy-1.0.0"]}))
    assert {each.id for each in PackageStore(bench.store.folder).closure("base-1.0.0")} == {"base-1.0.0", "toy-1.0.0"}


def test_what_is_not_installed_cannot_be_held(bench: Bench) -> None:
    for name in ("toy-1.0.0", "..", "../installed", ""):
        with pytest.raises(NotFound), bench.store.hold(name):
            pass


async def test_uninstalling_waits_for_every_holder_and_refuses_new_ones(bench: Bench, tmp_path: Path) -> None:
    await bench.install_file(image(tmp_path, "base", "1.0.0"))
    await bench.install_file(image(tmp_path, "toy", "1.0.0", dependencies={"base": "*"}))
    first, second = ExitStack(), ExitStack()
    first.enter_context(bench.store.hold("toy-1.0.0"))
    second.enter_context(bench.store.hold("toy-1.0.0"))
    going = asyncio.create_task(bench.installer.uninstall("toy-1.0.0"))
    assert "toy-1.0.0 is being uninstalled" in await until_refused(bench.store, "toy-1.0.0")
    first.close()
    assert bench.ids == ["base-1.0.0", "toy-1.0.0"]
    with pytest.raises(Conflict), PackageStore(bench.store.folder).hold("toy-1.0.0"):
        pass
    with bench.store.hold("base-1.0.0"):  # what it needs stays
        assert not going.done()
    second.close()
    await going
    assert bench.ids == ["base-1.0.0"]
    with pytest.raises(NotFound), bench.store.hold("toy-1.0.0"):
        pass
    assert bench.leftovers == []


async def test_uninstalling_gives_up_after_the_time_of_the_setting(tmp_path: Path) -> None:
    bench = Bench(tmp_path, uninstall_wait_ms=0)
    await bench.install_file(image(tmp_path, "toy", "1.0.0"))
    with bench.store.hold("toy-1.0.0"):
        with pytest.raises(Conflict, match="used by runs") as caught:
            await bench.installer.uninstall("toy-1.0.0")
        assert "uninstall_wait_ms" in caught.value.hint
        with bench.store.hold("toy-1.0.0"):
            assert bench.ids == ["toy-1.0.0"]
    await bench.installer.uninstall("toy-1.0.0")
    assert bench.ids == []


async def test_giving_up_an_uninstallation_leaves_the_package_usable(bench: Bench, tmp_path: Path) -> None:
    await bench.install_file(image(tmp_path, "toy", "1.0.0"))
    with bench.store.hold("toy-1.0.0"):
        going = asyncio.create_task(bench.installer.uninstall("toy-1.0.0"))
        await until_refused(bench.store, "toy-1.0.0")
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        with bench.store.hold("toy-1.0.0"):
            assert bench.ids == ["toy-1.0.0"]


async def test_only_one_uninstalls(bench: Bench, tmp_path: Path) -> None:
    await bench.install_file(image(tmp_path, "toy", "1.0.0"))
    with bench.store.hold("toy-1.0.0"):
        going = asyncio.create_task(bench.installer.uninstall("toy-1.0.0"))
        await until_refused(bench.store, "toy-1.0.0")
        with pytest.raises(Conflict, match="being uninstalled"):
            await bench.installer.uninstall("toy-1.0.0")
    await going
    with pytest.raises(NotFound):
        await bench.installer.uninstall("toy-1.0.0")


async def test_a_package_that_another_process_uses_stays(bench: Bench, tmp_path: Path, processes: ExitStack) -> None:
    await bench.install_file(image(tmp_path, "toy", "1.0.0"))
    holder = start(processes, HOLDER, bench, "toy-1.0.0")
    assert await line_of(holder) == "held"
    going = asyncio.create_task(bench.installer.uninstall("toy-1.0.0"))
    await until_refused(bench.store, "toy-1.0.0")
    assert bench.ids == ["toy-1.0.0"]
    holder.send_signal(signal.SIGKILL)  # whatever becomes of it, its hold ends with it
    await going
    assert bench.ids == bench.leftovers == []


async def test_an_uninstallation_that_is_killed_while_it_waits_has_not_happened(
    bench: Bench, tmp_path: Path, processes: ExitStack
) -> None:
    await bench.install_file(image(tmp_path, "toy", "1.0.0"))
    with bench.store.hold("toy-1.0.0"):
        going = start(processes, UNINSTALLER, bench, "toy-1.0.0")
        await until_refused(bench.store, "toy-1.0.0")
        going.kill()
        await asyncio.to_thread(going.wait)
        with bench.store.hold("toy-1.0.0"):
            assert bench.ids == ["toy-1.0.0"]


async def test_holding_leaves_no_descriptors(bench: Bench, tmp_path: Path) -> None:
    await bench.install_file(image(tmp_path, "base", "1.0.0"))
    await bench.install_file(image(tmp_path, "toy", "1.0.0", dependencies={"base": "*"}))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with bench.store.hold("toy-1.0.0"), bench.store.hold("toy-1.0.0"), bench.store.hold("base-1.0.0"):
            pass
        with pytest.raises(NotFound), bench.store.hold("nothing-1.0.0"):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_package_that_came_back_is_another_one(bench: Bench, tmp_path: Path) -> None:
    path = piston(tmp_path, "toy", "1.0.0", file("data", "x"))
    await bench.install_file(path)
    with ExitStack() as old:
        old.enter_context(bench.store.hold("toy-1.0.0"))
        bench.store.place("toy-1.0.0").rename(tmp_path / "taken by force")
        await Bench(tmp_path).install_file(path)
        with bench.store.hold("toy-1.0.0"):
            going = asyncio.create_task(bench.installer.uninstall("toy-1.0.0"))
            await until_refused(bench.store, "toy-1.0.0")
        await going
    assert bench.ids == []
