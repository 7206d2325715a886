"""Hostile jobs for real compilers in real sandboxes: the engine with this machine's tools, and secrets to steal."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Finished, Job, Result, Verdict
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.settings.settings import load_settings
from tests.conftest import missing, require_tool
from tests.sandbox.leftovers import descendants_of, groups_of, is_gone
from tests.support.server import data_folder
from tests.support.toolchains import prepare_go
from tests.support.waiting import until

OPTIONAL = {"go", "llvm_ir", "nasm64"}
"""Tools that may be missing even in CI."""

PATIENT = LimitRequest(wall_ms=100_000, cpu_ms=60_000)
"""Limits for jobs that must succeed, however busy the machine is."""

ROOMY = {
    "slots": 2,
    "reserved_slots": 0,
    **{f"max_{stage}_{kind}_ms": 200_000 for stage in ("compile", "run") for kind in ("wall", "cpu")},
}
"""Settings that allow them."""

SHORT = LimitRequest(wall_ms=5000, cpu_ms=1500, memory_bytes=256 << 20, output_bytes=64 << 10)
"""Limits for jobs that never end."""

ENDED = {Verdict.COMPILE_ERROR, Verdict.WALL_TIME, Verdict.CPU_TIME, Verdict.MEMORY, Verdict.OUTPUT, Verdict.RUNTIME_ERROR}
"""Possible results of a failing job: the compiler rejected it, or a limit ended it."""


@cache
def registry() -> Registry:
    """Every runtime of this machine."""
    return Registry(scan_host(os.environ["PATH"], data_folder=data_folder()).runtimes)


def require(language: str) -> Runtime:
    """The runtime of a language. Without it the test is skipped, or fails in CI."""
    if not any(language in runtime.names for runtime in registry().all()):
        if language in OPTIONAL:
            pytest.skip(f"{language} is not installed")
        missing(f"{language} is not installed")
    if language == "go":
        prepare_go(data_folder())
    return registry().resolve(language)


@dataclass
class Workshop:
    """An executor for hostile jobs."""

    executor: LocalExecutor
    folder: Path
    token: str
    """A secret in places that no job may read: a file, the server's environment, data of other jobs."""
    results: list[Result] = field(default_factory=list[Result])

    async def run(self, language: str, files: Mapping[str, Any], **fields: Any) -> Result:
        """Run a job. The first file and those with an extension of the language are sources."""
        runtime = require(language)
        extensions = tuple(
            extension for known in registry().all() if known.language == runtime.language for extension in known.extensions
        )
        given = tuple(
            File(name, content.encode() if isinstance(content, str) else content, name.endswith(extensions) or not position)
            for position, (name, content) in enumerate(files.items())
        )
        fields = {"compile_limits": PATIENT, "run_limits": PATIENT} | fields
        job = Job(language=language, files=given, **fields)
        async with asyncio.timeout(200), self.executor.submit(job) as run:
            last = [event async for event in run.events()][-1]
        assert isinstance(last, Finished)
        self.results.append(last.result)
        assert self.token.encode() not in shown(last.result), "a secret of the host"
        return last.result

    @property
    def secret_file(self) -> Path:
        return self.folder / "secret.txt"


def shown(result: Result) -> bytes:
    """Everything that a client sees of a job."""
    stages = [stage for stage in (result.compile, result.run) if stage is not None]
    words = [result.reason.encode(), *(stage.reason.encode() for stage in stages)]
    return b"\n".join(
        [*words, *(chunk.data for stage in stages for chunk in stage.chunks), *(file.content for file in result.artifacts)]
    )


def printed(result: Result) -> bytes:
    """The output of the program; the job must have succeeded."""
    assert result.verdict is Verdict.OK, (result.verdict, result.reason, shown(result)[-3000:])
    assert result.run is not None
    return result.run.stdout


Open = Callable[..., Awaitable[Workshop]]


@pytest.fixture
async def open_workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Open workshops with given settings, and check that nothing is left of them."""
    token = f"secret_{secrets.token_hex(12)}"
    monkeypatch.setenv("FIREBOX_TEST_SECRET", token)
    (tmp_path / "secret.txt").write_text(token)
    (tmp_path / "secret.ts").write_text(token)
    async with AsyncExitStack() as stack:

        async def make(**flags: object) -> Workshop:
            settings = load_settings({"data_dir": tmp_path / "data", "ready_sandboxes": 1, **ROOMY, **flags}, environ={})
            executor = await stack.enter_async_context(LocalExecutor(settings, registry()))
            opened.extend(executor.launchers.pids)
            return Workshop(executor, tmp_path, token)

        opened: list[int] = []
        yield make
        processes = frozenset[int]().union(*map(descendants_of, opened))
    await until(lambda: all(map(is_gone, processes)))
    assert [group for pid in opened for group in groups_of(pid)] == []


@pytest.fixture
async def workshop(open_workshop: Open) -> Workshop:
    return await open_workshop()


PARASITE = r"""
// Comes into every program that is started with LD_PRELOAD: runs a script once at the beginning of the one that is named,
// and another one at its end.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int chosen;

static void act(const char *script) {
    if (script) {
        char *kept = strdup(getenv("LD_PRELOAD"));
        unsetenv("LD_PRELOAD");
        if (system(script) < 0) perror("parasite");
        setenv("LD_PRELOAD", kept, 1);
    }
}

__attribute__((constructor)) static void begin(void) {
    if (getpid() == 1) fprintf(stderr, "parasite in the first process\n");
    const char *wanted = getenv("PARASITE_IN");
    char name[64] = "";
    FILE *comm = fopen("/proc/self/comm", "r");
    if (comm && !fgets(name, sizeof name, comm)) name[0] = 0;
    if (comm) fclose(comm);
    name[strcspn(name, "\n")] = 0;
    chosen = wanted && !strcmp(name, wanted) && open("/tmp/.parasite", O_CREAT | O_EXCL, 0600) >= 0;
    if (chosen) act(getenv("PARASITE_BEGIN"));
}

__attribute__((destructor)) static void end(void) {
    if (chosen) act(getenv("PARASITE_END"));
}
"""


@pytest.fixture(scope="session")
def parasite(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library that injects code into a compiler."""
    folder = tmp_path_factory.mktemp("parasite")
    (folder / "parasite.c").write_text(PARASITE)
    command = [require_tool("gcc"), "-shared", "-fPIC", "-O1", "-o", "parasite.so", "parasite.c"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return (folder / "parasite.so").read_bytes()


def infested(program: str, begin: str = "", end: str = "") -> dict[str, str]:
    """Variables that inject the parasite, sent as `parasite.so`, into a program of this name."""
    scripts = {name: script for name, script in (("PARASITE_BEGIN", begin), ("PARASITE_END", end)) if script}
    return {"LD_PRELOAD": "/box/parasite.so", "PARASITE_IN": program, **scripts}
