"""The API reference page, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.support.browser import browsing
from tests.support.server import RunningServer


def test_the_page_may_speak_to_its_own_server_only(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/schema", trust_env=False)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Firebox API</title>" in answer.text
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) <= {"'none'", "'self'", "data:"}


async def test_a_program_can_be_run_from_the_page(server: RunningServer, tmp_path: Path) -> None:
    body = {"language": "bash", "code": "echo '<img src=x onerror=document.title=1>'", "args": ["x"]}
    async with browsing(tmp_path, f"{server.url}/schema#create_run") as page:
        await page.until("document.querySelector('#create_run textarea')")
        assert "print(6 * 7)" in await page.evaluate("document.querySelector('#create_run textarea').value")
        described = await page.evaluate("fetch('/schema/openapi.json').then((answer) => answer.json())")
        shown = await page.evaluate("[...document.querySelectorAll('details')].map((each) => each.id)")
        assert {each["operationId"] for methods in described["paths"].values() for each in methods.values()} <= set(shown)
        await page.evaluate(
            f"document.querySelector('#create_run textarea').value = {json.dumps(json.dumps(body))};"
            "document.querySelector('#create_run button[type=submit]').click()"
        )
        await page.until("document.querySelector('#create_run output pre')?.textContent.includes('isolation')")
        answer = json.loads(await page.evaluate("document.querySelector('#create_run output pre').textContent"))
        assert answer["run"]["stdout"] == "<img src=x onerror=document.title=1>\n"
        assert await page.evaluate("document.querySelector('#create_run .status').textContent.startsWith('200')")
        # What a program prints is text, and nothing came from elsewhere.
        assert await page.evaluate("[document.images.length, document.title]") == [0, "Firebox API"]
        loaded = await page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
        assert all(each.startswith((server.url, "data:")) for each in loaded)
        # A mistake is shown with its status, and a path is filled in.
        await page.evaluate(
            "location.hash = 'get_run'; new Promise((done) => addEventListener('hashchange', () => setTimeout(done)))"
        )
        await page.until("document.querySelector('#get_run form')")
        await page.evaluate(
            "document.querySelector('#get_run input[name=run_id]').value = 'a?b';"
            "document.querySelector('#get_run button[type=submit]').click()"
        )
        await page.until("document.querySelector('#get_run .failed')?.textContent.includes('json')")
        assert "no such run: 'a?b'" in await page.evaluate("document.querySelector('#get_run output').textContent")
