"""Commands that the host lacks become symlinks in sandboxes."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.runtimes import host_folders
from firebox.runtimes.command_names import offer_commands
from firebox.runtimes.definition import read_definition
from firebox.runtimes.host_runtimes import scan_host
from firebox.sandbox.plan.mounts import shown_at

DEFINITION = """
language = "x"
extensions = [".x"]
main_name = "main.x"
run = ["{tool}", "{main}"]
detect = {programs = ["x-tool"], command = ["/bin/echo", "1.2.3"]}
commands = {x = "{tool}", sh = "{tool}", gone = "{folder}/gone"}
"""


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host_folders, "COVERED", ("/covered",))
    return tmp_path / "data"


def test_a_runtime_of_the_host_gets_the_names_that_the_host_lacks(data_folder: Path, tmp_path: Path) -> None:
    tool = tmp_path / "opt" / "bin" / "x-tool"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    definition = read_definition(DEFINITION, "x.toml")
    for _ in range(2):
        (runtime,) = scan_host(str(tool.parent), [definition], data_folder=data_folder).runtimes
        *before, last = runtime.env["PATH"].split(":")
        assert before == [str(tool.parent), "/usr/local/bin", "/usr/bin", "/bin"]
        (folder,) = data_folder.glob("prepared/*")
        assert last == shown_at(str(folder))
        assert {link.name: link.readlink() for link in folder.iterdir()} == {"x": tool}
        assert str(folder.parent) in runtime.mounts


def test_nothing_is_offered_where_nothing_is_missing_or_can_be_shown(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offer_commands({"sh": "/bin/sh", "gone": "/nonexistent"}, [], data_folder) is None
    assert not data_folder.exists()
    home = tmp_path / "prepared" / "home"
    monkeypatch.setattr(Path, "home", lambda: home)
    assert offer_commands({"no-such-command": "/bin/sh"}, [], tmp_path) is None
