"""A real browser for tests: headless Chromium, driven over its debugging protocol."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import require_tool


class Page:
    """A page in the browser. Source: Chrome DevTools Protocol, "Runtime.evaluate"."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(await asyncio.wait_for(self._socket.recv(), 60))
            if answer.get("id") == self._number:
                return dict(answer["result"])

    async def evaluate(self, expression: str) -> Any:
        """Evaluate JavaScript in the page and wait for its promise."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until something of the page is true."""
        assert await self.evaluate(
            f"""new Promise((done) => {{
                const look = () => {{ if ({condition}) {{ observer.disconnect(); done(true); }} }};
                const observer = new MutationObserver(look);
                observer.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
                look();
            }})"""
        )


@asynccontextmanager
async def browsing(folder: Path, url: str) -> AsyncGenerator[Page]:
    """Open a page in a browser that knows nothing yet."""
    command = [
        require_tool("chromium"),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--no-proxy-server",
        f"--user-data-dir={folder}",
        "--remote-debugging-port=0",
        "about:blank",
    ]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert browser.stderr is not None
    try:
        address = await asyncio.to_thread(_debugger_of, browser)
        async with connect(address, proxy=None, max_size=None) as socket:
            whole = Page(socket)
            target = (await whole.call("Target.createTarget", url="about:blank"))["targetId"]
            page_address = address.partition("/devtools/")[0] + f"/devtools/page/{target}"
            async with connect(page_address, proxy=None, max_size=None) as page_socket:
                page = Page(page_socket)
                await page.call("Page.enable")
                await page.call("Page.navigate", url=url)
                await page.evaluate(
                    "new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', () => done()))"
                )
                yield page
            await whole.call("Browser.close")
    finally:
        browser.terminate()
        try:
            await asyncio.to_thread(browser.communicate, timeout=60)
        finally:
            browser.kill()


def _debugger_of(browser: subprocess.Popen[str]) -> str:
    assert browser.stderr is not None
    for line in browser.stderr:
        if line.startswith("DevTools listening on "):
            return line.removeprefix("DevTools listening on ").strip()
    raise AssertionError("the browser ended")
