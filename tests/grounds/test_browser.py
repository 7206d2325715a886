"""The page in examples/, in a real browser, served by another site than the server's."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.conftest import ROOT
from tests.support.browser import Page, browsing
from tests.support.server import RunningServer

every_version = pytest.mark.parametrize("version", [1, 2, 3, 4])
every_transport = pytest.mark.parametrize("transports", ["websocket", "polling", "polling,websocket"])


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


@pytest.fixture
def version() -> int:
    """Version of the client that the page loads. A test may have it as a parameter."""
    return 4


@pytest.fixture
def site(installed: Path, tmp_path: Path, version: int) -> Iterator[str]:
    """A site of its own, with the page and the client of the npm package."""
    shutil.copy(ROOT / "examples" / "grounds.html", tmp_path)
    script = "socket.io.js" if version == 2 else "socket.io.min.js"
    shutil.copy(installed / "node_modules" / f"socket.io-client-{version}" / "dist" / script, tmp_path / "socket.io.min.js")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def address_of_page(site: str, server: RunningServer, **parameters: str) -> str:
    return f"{site}/grounds.html?" + urlencode({"server": server.url, **parameters})


async def run(page: Page, language: str, code: str) -> None:
    await page.evaluate(
        f"byId('language').value = {json.dumps(language)}; byId('code').value = {json.dumps(code)}; byId('run').click()"
    )


@every_version
@every_transport
async def test_a_page_of_an_allowed_site_runs_programs(
    site: str, kept_server: Callable[..., RunningServer], tmp_path: Path, transports: str
) -> None:
    server = kept_server("--cors-origins", site)
    async with browsing(tmp_path / "profile", address_of_page(site, server, transports=transports)) as page:
        await page.until("byId('connection').textContent === 'connected'")
        code = "import sys, time\nprint('héllo', flush=True)\nprint('to err', file=sys.stderr, flush=True)\ntime.sleep(0.7)\n"
        await run(page, "python3", code + "print('second', flush=True)\nwhile True: pass")
        await page.until("byId('output').textContent.includes('second')")
        assert await page.evaluate("document.querySelector('.stderr').textContent") == "to err\n"
        await run(page, "bash", "echo other; exit 200")
        await page.until("byId('output').textContent.includes('exit status')")
        assert await page.evaluate("byId('output').textContent") == "other\n\n[exit status -56]"
        assert await page.evaluate("client.io.engine.transport.name") in transports.split(",")


@every_version
async def test_polls_bring_large_output_whole(
    site: str, kept_server: Callable[..., RunningServer], tmp_path: Path, version: int
) -> None:
    """More than one answer holds: a client of version 1 cannot read large ones, nor other characters than those of ASCII."""
    server = kept_server("--cors-origins", site)
    async with browsing(tmp_path / "profile", address_of_page(site, server, transports="polling")) as page:
        await page.until("byId('connection').textContent === 'connected'")
        assert await page.evaluate("client.io.engine.transport.query.EIO") == (3 if version < 3 else 4)
        await run(page, "python3", "print('€' * 200_000)")
        await page.until("byId('output').textContent.includes('exit status')")
        assert await page.evaluate("byId('output').textContent === '€'.repeat(200000) + '\\n\\n[exit status 0]'")


@every_transport
async def test_a_page_of_another_site_does_not_even_connect(
    site: str, kept_server: Callable[..., RunningServer], tmp_path: Path, transports: str
) -> None:
    server = kept_server("--cors-origins", "https://pages.test")
    async with browsing(tmp_path / "profile", address_of_page(site, server, transports=transports)) as page:
        await page.until("byId('connection').textContent.startsWith('refused')")
        assert await page.evaluate("client.connected") is False


async def test_a_page_with_a_token_runs_programs(site: str, kept_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    server = kept_server("--cors-origins", site, "--require-login", env={"FIREBOX_ADMIN_TOKEN": "the-operators-token"})
    async with browsing(tmp_path / "profile", address_of_page(site, server, token="the-operators-token")) as page:
        await page.until("byId('connection').textContent === 'connected'")
        await run(page, "bash", "echo in")
        await page.until("byId('output').textContent.includes('exit status 0')")
    async with browsing(tmp_path / "other", address_of_page(site, server)) as page:
        await page.until("byId('connection').textContent.startsWith('refused: a token is needed')")
