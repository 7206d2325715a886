"""Images built by Firebox, run in a real engine under both contracts."""

from __future__ import annotations

import json
from typing import Any

import aiodocker
import pytest

from tests.images.conftest import run_container
from tests.support.images import glot_image, grounds_image

pytestmark = pytest.mark.timeout(900)
"""The first test on a machine builds the image."""


def asked(code: str, **more: str) -> bytes:
    files = [{"name": "main.py", "content": code}]
    return json.dumps({"language": "python", "files": files, "stdin": "", "command": "", **more}).encode()


async def test_glot_contract(docker_url: str) -> None:
    image = glot_image(docker_url)
    code = "import os, sys; print(os.getuid(), input()); print('oops', file=sys.stderr); sys.exit(3)"
    ended = await run_container(docker_url, image, stdin=asked(code, stdin="in\n"))
    assert ended.stdout == b'{"stdout":"1000 in\\n","stderr":"oops\\n","error":"Exit code: 3"}'
    assert (ended.status, ended.stderr) == (0, b"")


async def test_glot_image_has_the_settings_of_the_contract(docker_url: str) -> None:
    image = glot_image(docker_url)
    async with aiodocker.Docker(url=docker_url) as docker:
        config: dict[str, Any] = (await docker.images.inspect(image))["Config"]
    assert (config["User"], config["Entrypoint"]) == ("glot", ["/home/glot/runner"])
    assert config["Labels"]["firebox.contract"] == "glot"
    assert config["Labels"]["firebox.language"] == "python"


async def test_glot_command_replaces_the_program(docker_url: str) -> None:
    ended = await run_container(
        docker_url, glot_image(docker_url), stdin=asked("print('by name')", command="ls; id -un; python main.py")
    )
    assert ended.answer == {"stdout": "main.py\nglot\nby name\n", "stderr": "", "error": ""}


async def test_glot_bad_request_leaves_stdout_empty(docker_url: str) -> None:
    ended = await run_container(docker_url, glot_image(docker_url), stdin=b'{"language":"python","files":[]}')
    assert (ended.status, ended.stdout) == (1, b"")
    assert b"files" in ended.stderr


async def test_a_language_that_is_not_in_the_image_is_named_with_its_packages(docker_url: str) -> None:
    request = json.dumps({"language": "ruby", "files": [{"name": "a.rb", "content": "puts 1"}]}).encode()
    ended = await run_container(docker_url, glot_image(docker_url), stdin=request)
    assert ended.answer["error"] == "ruby is not installed here: apt-get install ruby"


async def test_programs_cannot_modify_firebox(docker_url: str) -> None:
    code = (
        "import os\n"
        "for place in ('/opt/firebox', '/opt/firebox/data', '/usr/local/bin/exec', '/home/glot/runner', '/etc/passwd'):\n"
        "    print(os.access(place, os.W_OK))"
    )
    ended = await run_container(docker_url, glot_image(docker_url), stdin=asked(code))
    assert ended.answer["stdout"] == "False\n" * 5


@pytest.mark.parametrize(
    ("argument", "output"),
    [
        ("print(1)", b"1\n"),
        (r"if 1:\n\tprint(2)\r\n", b"2\n"),
        (r"print('a\\nb')", b"a\nb\n"),
        (r"print('\\\\n')", b"\\n\n"),
        ("print('\u00e4', '$HOME', '`id`')", "\u00e4 $HOME `id`\n".encode()),
        ("-c", b""),
    ],
)
async def test_grounds_contract_takes_code_as_its_argument(docker_url: str, argument: str, output: bytes) -> None:
    ended = await run_container(docker_url, grounds_image(docker_url), arguments=[argument])
    assert ended.stdout == output
    assert (ended.status == 0) == bool(output)


async def test_grounds_exit_status_and_streams_are_the_programs_own(docker_url: str) -> None:
    code = r"import sys, os\nprint(os.getuid())\nprint('oops', file=sys.stderr)\nsys.exit(200)"
    ended = await run_container(docker_url, grounds_image(docker_url), arguments=[code])
    assert (ended.status, ended.stdout, ended.stderr) == (200, b"1001\n", b"oops\n")


@pytest.mark.parametrize(("signal", "status"), [("SIGKILL", 137), ("SIGSEGV", 139), ("SIGABRT", 134), ("SIGTERM", 143)])
async def test_grounds_death_by_a_signal_is_128_and_its_number(docker_url: str, signal: str, status: int) -> None:
    code = rf"import os, signal\nos.kill(os.getpid(), signal.{signal})"
    assert (await run_container(docker_url, grounds_image(docker_url), arguments=[code])).status == status


async def test_grounds_empty_code_is_a_run(docker_url: str) -> None:
    ended = await run_container(docker_url, grounds_image(docker_url), arguments=[""])
    assert (ended.status, ended.stdout, ended.stderr) == (0, b"", b"")


async def test_grounds_requires_exactly_one_argument(docker_url: str) -> None:
    ended = await run_container(docker_url, grounds_image(docker_url), arguments=["a", "b"])
    assert (ended.status, ended.stdout) == (2, b"")
    assert b"exactly one" in ended.stderr
