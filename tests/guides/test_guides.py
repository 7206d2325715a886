"""docs/guides and docs/start: every program there runs against a real server and prints what its page shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, require_tool
from tests.support.npm import install_locked
from tests.support.server import RunningServer, environment, kept_server, unused_uid_base
from tests.support.toolchains import CACHE

__all__ = ["kept_server"]

ADMIN_TOKEN = "secret"
GLOT_TOKEN = "d11088bc-a29d-4d49-a633-b1b1ae807064"
PROTOCOL = ROOT / "src/firebox/doors/runner/proto"
TOOLS = {
    "python": ("client.py", sys.executable),
    "js": ("client.mjs", "node"),
    "go": ("client.go", "go run"),
    "java": ("Client.java", "java"),
}
"""By the name of a code block: the file that a program is put into, and the command that runs it."""
GO = {
    "GOCACHE": str(CACHE / "guides"),
    "GOMODCACHE": str(CACHE / "modules"),
    "GOFLAGS": "-modcacherw",
    "GOTOOLCHAIN": "local",
    "GO111MODULE": "auto",
}
"""The environment of Go. Modules are used only where there is a go.mod."""
GO_PACKAGES = (
    *("google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"),
    *("google.golang.org/grpc", "google.golang.org/grpc/credentials/insecure"),
)
"""What a gRPC client in Go is made with, and what it imports."""


class Program(NamedTuple):
    """A program of a page, and the text block behind it: what it prints."""

    page: str
    language: str
    code: str
    output: str


def programs() -> Iterator[Program]:
    """Yield the programs of docs/guides and docs/start that have their output behind them."""
    for page in sorted([*(ROOT / "docs/guides").glob("*.md"), *(ROOT / "docs/start").glob("*.md")]):
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"```(python|js|go|java)\n((?:(?!```).)*)```\n\n```text\n(.*?)```", text, re.DOTALL):
            yield Program(page.stem, *found.groups())


PROGRAMS = list(programs())


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_locked(Path(__file__).parent / "npm", tmp_path_factory.mktemp("npm"))


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Program], Path]:
    """Return the folder that a program runs in, with the libraries that its page tells the reader to install."""

    def prepare(program: Program) -> Path:
        if re.search(r'from "[^":]+"', program.code):
            folder: Path = request.getfixturevalue("node_modules")
            shutil.copy(PROTOCOL / "runner.proto", folder)
            return folder
        if "client/runner" in program.code:
            shutil.copytree(Path(__file__).parent / "go", tmp_path, dirs_exist_ok=True)
            command = ["go", "build", "-o", "bin/", *GO_PACKAGES]
            subprocess.run(command, cwd=tmp_path, env={**os.environ, **GO}, check=True, timeout=280)
            options = "module=client,Mrunner.proto=client/runner"
            generate_stubs(tmp_path, "--go_out=.", f"--go_opt={options}", "--go-grpc_out=.", f"--go-grpc_opt={options}")
        if "runner_pb2" in program.code:
            generate_stubs(tmp_path, "--python_out=.", "--grpc_python_out=.")
        return tmp_path

    return prepare


@pytest.mark.parametrize(
    "program",
    [
        # gRPC takes a while to compile.
        pytest.param(each, id=f"{each.page}-{each.language}", marks=[pytest.mark.slow] if "client/runner" in each.code else [])
        for each in PROGRAMS
    ],
)
def test_program_prints_what_its_page_shows(
    program: Program, kept_server: Callable[..., RunningServer], place: Callable[[Program], Path], tmp_path: Path
) -> None:
    name, tool = TOOLS[program.language]
    command = [require_tool(tool.split()[0]), *tool.split()[1:], name]
    server = kept_server("--slots", "4", "--grpc-port", "0", "--admin-token", ADMIN_TOKEN)
    if program.page == "glot-run":
        add_glot_user(server)
    folder = place(program)
    (folder / name).write_text(at_server(program.code, server), encoding="utf-8")
    done = subprocess.run(
        command, cwd=folder, env=client_environment(tmp_path), capture_output=True, text=True, check=False, timeout=280
    )
    # Trailing blanks are no part of a page.
    printed = "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())
    assert (printed, done.returncode) == (program.output, 0), done.stderr


@pytest.mark.parametrize("page", sorted(path.stem for path in (ROOT / "docs/guides").glob("*.md")))
def test_every_guide_has_four_clients(page: str) -> None:
    assert {program.language for program in PROGRAMS if program.page == page} == TOOLS.keys()


def generate_stubs(folder: Path, *options: str) -> None:
    """Generate the stubs of a gRPC client, perhaps with the plug-ins in `bin`."""
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTOCOL), *options, "runner.proto"]
    path = f"{folder}/bin:{os.environ['PATH']}"
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, check=True, timeout=60)


def at_server(code: str, server: RunningServer) -> str:
    """Replace the addresses of a page by those of the server."""
    grpc = server.ready["grpc"]
    return code.replace("localhost:2000", server.url.removeprefix("http://")).replace("localhost:44000", grpc)


def add_glot_user(server: RunningServer) -> None:
    with server.client() as client:
        headers = {"Authorization": f"Token {ADMIN_TOKEN}"}
        response = client.post(f"{server.url}/admin/users", headers=headers, json={"token": GLOT_TOKEN})
        assert response.status_code in (200, 201, 409), response.text


def client_environment(folder: Path) -> dict[str, str]:
    """The environment of a client: no proxies, `firebox` and `rce-runner` on PATH with a data folder of their own."""
    CACHE.mkdir(parents=True, exist_ok=True)
    outside = {name: value for name, value in environment().items() if not name.lower().endswith("_proxy")}
    return outside | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FIREBOX_DATA_DIR": str(folder / "data"),
        "FIREBOX_UID_BASE": str(unused_uid_base()),
        "GLOT_TOKEN": GLOT_TOKEN,
        **GO,
    }
