"""ultra-piston of PyPI, unchanged, by its `base_url`."""

from __future__ import annotations

from typing import Any

import pytest

from firebox.doors.piston.routes import PREFIXES
from tests.clients.libraries import load
from tests.conftest import require_tool
from tests.support.server import RunningServer


@pytest.fixture
def ultra_piston() -> Any:
    return load("ultra_piston")


@pytest.fixture(params=PREFIXES)
def piston(request: pytest.FixtureRequest, server: RunningServer, ultra_piston: Any) -> Any:
    return ultra_piston.PistonClient(base_url=server.url + request.param, rate_limit=0)


def test_lists_what_can_run(piston: Any) -> None:
    runtimes = {runtime.language: runtime for runtime in piston.get_runtimes()}
    assert "sh" in runtimes["bash"].aliases
    assert "bash" not in {package.language for package in piston.get_packages()}, "what the host has is no package"


def test_runs_a_program(piston: Any, ultra_piston: Any) -> None:
    file = ultra_piston.File(content="import sys; print(input(), sys.argv[1:])")
    output = piston.post_execute("python", "3.x", file, stdin="hello", args=["a", "b"])
    assert output.language == "python"
    assert output.run.output == "hello ['a', 'b']\n"
    assert (output.run.code, output.run.signal, output.compile) == (0, None, None)


async def test_runs_a_program_asynchronously(piston: Any, ultra_piston: Any) -> None:
    output = await piston.post_execute_async("bash", "*", ultra_piston.File(name="main.sh", content="echo $0"))
    assert output.run.stdout == "main.sh\n"


def test_compiles_a_program(piston: Any, ultra_piston: Any) -> None:
    require_tool("gcc")
    output = piston.post_execute("c", "*", ultra_piston.File(content="int main(void) { return nothing; }"))
    assert output.compile.code == 1
    assert output.run == ultra_piston.models.RunStage(**output.compile.model_dump())


def test_raises_for_every_status(piston: Any, ultra_piston: Any) -> None:
    with pytest.raises(ultra_piston.errors.BadRequestError):
        piston.post_execute("klingon", "*", ultra_piston.File(content=""))
    with pytest.raises(ultra_piston.errors.NotFoundError):
        piston.post_packages("klingon", "*")
    with pytest.raises(ultra_piston.errors.InternalServerError):
        piston.post_packages("bash", "*")
    with pytest.raises(ultra_piston.errors.InternalServerError):
        piston.delete_packages("bash", "*")
