"""`firebox images`: builds, listing and error messages."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from firebox.cli.image_building.debian_image import read_installation
from firebox.cli.image_building.root_setup import offer_commands
from firebox.cli.one_request.exec_code import read_code
from firebox.packages.building import debian_root
from firebox.packages.building.debian_root import sources
from firebox.runtimes.runtime import Runtime
from tests.conftest import require_tool
from tests.images.conftest import run_container
from tests.support.images import glot_image
from tests.support.server import run_firebox

pytestmark = pytest.mark.timeout(900)
"""Some build an image."""

NO_ENGINE = "unix:///nonexistent/docker.sock"


def images(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run_firebox("images", *arguments, env=env, timeout_s=600)


def test_missing_commands_are_linked(tmp_path: Path) -> None:
    commands = {"firebox-test-command": "/bin/sh", "sh": "/bin/sh", "gone": "/nonexistent"}
    runtime = Runtime(language="x", version="1.0.0", main_name="main.x", run=("x",), commands=commands)
    offer_commands([runtime, runtime], tmp_path)
    assert {link.name: str(link.readlink()) for link in tmp_path.iterdir()} == {"firebox-test-command": "/bin/sh"}


@pytest.mark.slow
async def test_builds_an_image_that_runs_and_lists_it(docker_url: str) -> None:
    require_tool("mmdebstrap")
    built = images("build", "lua", "--tag", "firebox-test/lua:one", "--docker-url", docker_url)
    assert built.returncode == 0, built.stderr
    assert built.stdout.startswith("firebox-test/lua:one sha256:")
    request = {"language": "lua", "files": [{"name": "main.lua", "content": "print(6 * 7)"}]}
    ended = await run_container(docker_url, "firebox-test/lua:one", stdin=json.dumps(request).encode())
    assert ended.answer == {"stdout": "42\n", "stderr": "", "error": ""}
    listed = images("list", env={"FIREBOX_DOCKER_URL": docker_url})
    line = next(line for line in listed.stdout.splitlines() if line.startswith("firebox-test/lua:one "))
    assert line.split()[1:3] == ["glot", "lua"]


def test_list_only_shows_images_built_by_firebox(docker_url: str) -> None:
    tag = glot_image(docker_url)
    listed = images("list", "--docker-url", docker_url)
    assert listed.returncode == 0, listed.stderr
    header, *lines = listed.stdout.splitlines()
    assert header.split() == ["IMAGE", "CONTRACT", "LANGUAGE", "SIZE", "CREATED"]
    assert tag in {line.split()[0] for line in lines}
    assert {line.split()[1] for line in lines} <= {"glot", "grounds"}


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no engine is set": (("build", "python"), "no container engine is configured"),
    "no engine answers": (("build", "python", "--docker-url", NO_ENGINE), "the container engine does not answer"),
    "no engine answers a list": (("list", "--docker-url", NO_ENGINE), "the container engine does not answer"),
    "no engine's address": (("list", "--docker-url", "ftp://somewhere"), "is not a valid engine URL"),
    "unknown language": (("build", "klingon", "--docker-url", NO_ENGINE), "klingon"),
    "unknown contract": (("build", "python", "--contract", "piston", "--docker-url", NO_ENGINE), "is not a contract"),
    "no Debian package": (("build", "sac", "--docker-url", NO_ENGINE), "no Debian package provides sac"),
    "a release that is none": (("build", "python", "--suite", "a b", "--docker-url", NO_ENGINE), "is not a valid Debian release"),
    "an unknown release": (("build", "python", "--suite", "potato", "-o", "/nonexistent/x"), "Debian potato is not supported"),
    "a package that is none": (
        ("build", "python", "--package", "-o=x", "--docker-url", NO_ENGINE),
        "is not a valid Debian package name",
    ),
    "a bad tag": (("build", "python", "--tag", "A B", "--docker-url", NO_ENGINE), "is not a valid image name"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_invalid_options_are_rejected_with_a_message(what: str) -> None:
    arguments, words = REFUSED[what]
    if "--suite" in arguments:
        require_tool("mmdebstrap")
    done = images(*arguments)
    assert done.returncode in {2, 125}
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_missing_mmdebstrap_is_reported(tmp_path: Path) -> None:
    done = images("build", "python", "--output", str(tmp_path / "root.tar"), env={"PATH": str(tmp_path)})
    assert done.returncode == 125
    assert "mmdebstrap is not installed" in done.stderr
    assert "apt-get install mmdebstrap" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_mmdebstrap_failure_is_reported_and_leaves_nothing_behind(tmp_path: Path) -> None:
    require_tool("mmdebstrap")
    output = tmp_path / "root.tar"
    done = images("build", "python", "--package", "no-such-package-anywhere", "--output", str(output))
    assert done.returncode == 125
    assert "no-such-package-anywhere" in done.stderr
    assert os.listdir(tmp_path) == []


def test_uses_the_mirror_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_root, "SOURCES", tmp_path)
    assert sources("bookworm") == []  # the default of mmdebstrap
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "other.list").write_text("deb [arch=amd64] https://example.org/tool stable main\n")
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "# a comment\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n"
        "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n"
    )
    lines = ["http://mirror.example/debian bookworm", "http://mirror.example/debian bookworm-updates"]
    lines.append("http://mirror.example/debian-security bookworm-security")
    assert sources("bookworm") == [f"deb {line} main" for line in lines]
    assert sources("sid") == ["deb http://mirror.example/debian sid main"]
    (tmp_path / "sources.list.d" / "debian.sources").unlink()
    (tmp_path / "sources.list").write_text("deb [signed-by=/a/b] http://old.example/debian/ bookworm main\n")
    assert sources("trixie")[0] == "deb http://old.example/debian/ trixie main"


def test_images_only_contain_the_modules_that_their_programs_load() -> None:
    installation = read_installation()
    assert "firebox/engine/unsandboxed.py" in installation.files
    assert "firebox/runtimes/definitions/python.toml" in installation.files
    assert not [name for name in installation.files if name.startswith(("firebox/storage", "firebox/doors/native"))]
    assert {name.lower() for name in installation.distributions} <= {
        "msgspec", "semantic-version", "python-ulid", "typing-extensions", "typing_extensions", "python_ulid",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "code"),
    [
        ("a\\nb", "a\nb"),
        ("a\\\\nb", "a\\nb"),
        ("a\\\\\\nb", "a\\\nb"),
        ("\\t\\r", "\t\r"),
        ("\\x\\", "\\x\\"),
        ("a\nb", "a\nb"),
        ("", ""),
    ],
)
def test_escapes_are_undone_once(argument: str, code: str) -> None:
    assert read_code(argument) == code
