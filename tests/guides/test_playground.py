"""docs/start/playground.md: its page is the one in examples/, and works in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.browser import browsing
from tests.support.server import RunningServer, kept_server

__all__ = ["kept_server"]

PAGE = ROOT / "examples" / "playground.html"
TUTORIAL = ROOT / "docs" / "start" / "playground.md"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A site with the page."""
    shutil.copy(PAGE, tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_the_tutorial_shows_the_whole_page() -> None:
    shown = "\n".join(re.findall(r"```(?:html|js)\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL))
    lines = {line.strip() for line in shown.splitlines()}
    missing = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.strip() not in lines]
    assert [line.strip() for line in missing] == ["<script>", "</script>", "</html>"]


async def test_a_program_asks_and_is_answered(site: str, kept_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    server = kept_server("--cors-origins", site)
    async with browsing(tmp_path / "profile", f"{site}/playground.html?server={server.url}") as page:
        await page.until("byId('language').value === 'python'")
        await page.evaluate("byId('run').click()")
        await page.until("byId('output').textContent.includes('name? ')")
        await page.evaluate(
            "byId('input').value = 'Ann'; byId('input').dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }))"
        )
        await page.until("byId('output').textContent.includes('[ok]')")
        assert (await page.evaluate("byId('output').textContent")).strip() == "name? hello Ann\n\n[ok]"
        # A program without end is stopped, and markup stays text.
        code = "print('<b>bold</b>', flush=True)\nwhile True: pass"
        await page.evaluate(f"byId('code').value = {json.dumps(code)}; byId('run').click()")
        await page.until("byId('output').textContent.includes('bold')")
        await page.evaluate("byId('stop').click()")
        await page.until("byId('output').textContent.includes('[cancelled]')")
        assert await page.evaluate("document.querySelectorAll('b').length") == 0
