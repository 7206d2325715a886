"""pistonpy of PyPI: the public instance is written into it, and its JSON goes without a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.front import Front
from tests.clients.libraries import load
from tests.support.server import RunningServer

PUBLIC_INSTANCE = "https://emkc.org"


LeadTo = Callable[[str], None]


@pytest.fixture
def pistonpy() -> Any:
    return load("pistonpy")


@pytest.fixture
def lead_to(monkeypatch: pytest.MonkeyPatch) -> LeadTo:
    """Lead every request for the public instance to another address: the way a name server of one's own would."""
    requests = load("requests")
    original = requests.request

    def lead(target: str) -> None:
        def request(method: str, url: str, **more: Any) -> Any:
            assert url.startswith(PUBLIC_INSTANCE + "/api/v2/piston")
            return original(method, target + url.removeprefix(PUBLIC_INSTANCE), timeout=60, **more)

        monkeypatch.setattr(requests, "request", request)

    return lead


def test_lists_what_can_run(pistonpy: Any, lead_to: LeadTo, server: RunningServer) -> None:
    lead_to(server.url)
    app = pistonpy.PistonApp()
    assert app.languages["bash"][0].isdecimal()
    assert "sh" in app.aliases["bash"]
    assert {"language", "version", "aliases"} <= app.raw[0].keys()


def test_runs_a_program(pistonpy: Any, lead_to: LeadTo, front: Front) -> None:
    lead_to(front.url)
    code = "import sys; print(input(), sys.argv[1:])"
    output = pistonpy.PistonApp().run(language="python", code=code, input="hello", args=["a", "b"])
    assert output["run"]["output"] == "hello ['a', 'b']\n"
    assert output["run"]["code"] == 0


def test_runs_a_file(pistonpy: Any, lead_to: LeadTo, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(front.url)
    monkeypatch.chdir(tmp_path)
    Path("test.py").write_text("print('The code ran from', __file__)")
    output = pistonpy.PistonApp().run(language="python", files=["test.py"])
    assert output["run"]["stdout"].startswith("The code ran from")


def test_runs_several_files_although_it_sends_the_main_file_again_with_each(
    pistonpy: Any, lead_to: LeadTo, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead_to(front.url)
    monkeypatch.chdir(tmp_path)
    Path("one.py").write_text("print('one')")
    Path("two.py").write_text("print('two')")
    output = pistonpy.PistonApp().run(language="python", files=["one.py", "two.py"])
    assert output["run"]["stdout"] == "one\ntwo\n"


def test_raises_what_the_server_says(pistonpy: Any, lead_to: LeadTo, front: Front) -> None:
    lead_to(front.url)
    with pytest.raises(pistonpy.PistonError, match=r"^python-99\.x runtime is unknown$"):
        pistonpy.PistonApp().run(language="python", version="99.x", code="print(1)")


def test_without_a_front_it_gets_what_piston_itself_would_answer(pistonpy: Any, lead_to: LeadTo, server: RunningServer) -> None:
    lead_to(server.url)
    with pytest.raises(pistonpy.PistonError, match=r"^requests must be of type application/json$"):
        pistonpy.PistonApp().run(language="python", code="print(1)")
