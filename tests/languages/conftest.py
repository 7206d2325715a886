"""One machine to install packages on, one real server that runs them: each once a process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from firebox.runtimes.runtime import Runtime
from tests.support.languages import Case, Machine
from tests.support.package_workshop import Workshop, missing_sources
from tests.support.server import RunningServer, running_server
from tests.support.waiting import wait_until

ANSWER_TIMEOUT_S = 120.0

collect_ignore = [] if os.environ.get("FIREBOX_LANGUAGES_MEASURE") else ["test_measure.py"]


@dataclass(frozen=True)
class Ready:
    """A language that the server runs out of an installed package. image_bytes: of the package alone; base_bytes: of its base."""

    runtime: Runtime
    selector: str
    server: RunningServer
    image_bytes: int
    base_bytes: int


@pytest.fixture(scope="session")
def machine(package_workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine on which nothing is installed yet."""
    return Machine(tmp_path_factory.mktemp("machine"), package_workshop)


@pytest.fixture(scope="session")
def server(machine: Machine) -> Iterator[RunningServer]:
    """The machine's server; packages are installed while it runs."""
    flags = [word for name, value in machine.settings_given.items() for word in (f"--{name.replace('_', '-')}", value)]
    with running_server(*flags, "--slots", "2") as started:
        yield started


@pytest.fixture
def ready(machine: Machine, server: RunningServer) -> Callable[[Case, str], Ready]:
    """Build and install what a case needs, unless that has happened, and wait until the server knows it."""

    def get(case: Case, selector: str) -> Ready:
        if not case.recipe.verified and (lacking := missing_sources(case.recipe)):
            pytest.skip(f"put into FIREBOX_LANGUAGES_SOURCES: {'; '.join(lacking)}")
        installed = machine.install(case.recipe)
        runtime = machine.runtimes(case.recipe)[case.stem]
        wait_until(lambda: (runtime.language, runtime.version, selector) in _known(server))
        image, *below = [package.size_bytes for package in machine.store.closure(installed.id)]
        return Ready(runtime, selector, server, image, sum(below))

    return get


def _known(server: RunningServer) -> set[tuple[str, str, str]]:
    """List language, version and each of its names: a variant has the language and the version of the plain one."""
    answer = httpx.get(f"{server.url}/api/v1/runtimes", timeout=ANSWER_TIMEOUT_S, trust_env=False)
    answer.raise_for_status()
    return {(each["language"], each["version"], name) for each in answer.json() for name in (each["language"], *each["aliases"])}
