"""What every family of tests shares: a missing tool skips on a laptop and fails in CI; one summary line a family."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import NoReturn

import pytest

pytest_plugins = ["tests.support.package_workshop", "tests.support.services"]

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""


def require_tool(name: str) -> str:
    """Return the path of a program that the test runs; without it skip the test, or fail it when `CI` is set."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed")
    return found


def missing(what: str) -> NoReturn:
    """Skip the test for want of something on this machine; fail it when `CI` is set, where everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} (in CI this fails instead of skipping)", pytrace=False)
    pytest.skip(what)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-variant", action="store_true", help="run only the first variant of each parametrised test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `--one-variant` asks to leave out, and let each worker begin with a share of the slow files.

    Every promise is still tried, in the first of its variants.
    """
    if config.getoption("--one-variant"):
        first = set({item.nodeid.partition("[")[0]: item for item in reversed(items)}.values())
        config.hook.pytest_deselected(items=[item for item in items if item not in first])
        items[:] = [item for item in items if item in first]
    items[:] = _slow_files_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _slow_files_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Order tests so that the slow files are spread over the workers, which get equal parts of the list and start at the top.

    A test that takes a minute would have all others wait if it came last. Other neighbours stay together: they share servers.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    slow = [file for file in files.values() if any(item.get_closest_marker("slow") for item in file)]
    others = iter([item for file in files.values() if file not in slow for item in file])
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        ordered += itertools.chain.from_iterable(slow[worker::workers])
        ordered += itertools.islice(others, max(0, len(items) * (worker + 1) // workers - len(ordered)))
    return [*ordered, *others]


@pytest.fixture
def checkout() -> Path:
    """The folder of the checkout."""
    return ROOT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each family: the folder below `tests`, or the file where there is none."""
    families: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped", "xfailed"):
        for report in terminalreporter.getreports(outcome):
            path = Path(report.nodeid.partition("::")[0])
            parts = path.parts[1:] if path.parts[:1] == ("tests",) else path.parts
            name = parts[0].removesuffix(".py") if parts else "?"
            families.setdefault(name, Counter())[outcome] += 1
    terminalreporter.section("families")
    for name, counts in sorted(families.items()):
        terminalreporter.write_line(f"{name:<24} " + ", ".join(f"{count} {word}" for word, count in counts.items()))
