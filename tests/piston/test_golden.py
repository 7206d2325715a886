"""Every route against golden files, below both prefixes. Words in angle brackets stand for what differs from host to host."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import require_tool

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
AMONG_OTHERS = "<among others>"


def is_stand_in(expected: object, found: object) -> bool:
    match expected:
        case "<text>":
            return isinstance(found, str) and found != ""
        case "<integer>":
            return type(found) is int and found >= 0
        case "<list>":
            return isinstance(found, list)
        case "<version>":
            return isinstance(found, str) and re.fullmatch(r"\d+\.\d+\.\d+\S*", found) is not None
        case _:
            return False


def agrees(expected: Any, found: Any) -> bool:
    """Compare two documents: the same keys, and values that are equal or stood in for."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(agrees(value, found[key]) for key, value in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        if expected[:1] == [AMONG_OTHERS]:
            return all(any(agrees(value, other) for other in found) for value in expected[1:])
        return len(expected) == len(found) and all(map(agrees, expected, found))
    return (type(expected) is type(found) and expected == found) or is_stand_in(expected, found)


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_answer_is_as_in_the_golden_file(each_prefix: httpx.Client, path: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    for tool in golden.get("tools", []):
        require_tool(tool)
    asked, expected = golden["request"], golden["answer"]
    arguments: dict[str, Any] = {"json": asked["json"]} if "json" in asked else {"content": asked.get("text")}
    answer = each_prefix.request(asked["method"], asked["path"], headers=asked.get("headers"), **arguments)
    assert answer.headers["content-type"] == "application/json"
    assert agrees(expected, {"status": answer.status_code, "json": answer.json()}), answer.text[:2000]
