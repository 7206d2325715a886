"""Whose template an interpreter may be restored from, as the pool is asked for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from firebox.domain.model import Job, Verdict
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.prestart import plan_ahead
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.pool.pool import Pool
from firebox.sandbox.spec import SandboxSpec
from firebox.settings.settings import load_settings
from tests.engine.conftest import Engine, job

PYTHON = Runtime(
    language="python",
    version="3.0.0",
    main_name="main.py",
    extensions=(".py",),
    run=("/usr/bin/python3", "{main}"),
    ahead="python",
)
BASH = Runtime(
    language="bash", version="5.0.0", main_name="main.sh", extensions=(".sh",), run=("/bin/bash", "{main}"), ahead="bash"
)
BUILT = replace(PYTHON, language="built", compile=(("/bin/cp", "{main}", "copy.py"),))
"""It has a compile stage as well."""
CODE = {"python": "print('x')", "built": "print('x')", "bash": "echo x"}


def job_of(language: str, **fields: Any) -> Job:
    name = "main.sh" if language == "bash" else "main.py"
    wanted = job("python", CODE[language])
    return replace(wanted, language=language, files=(replace(wanted.files[0], name=name),), **fields)


async def asked_for(folder: Path, wanted: Job, monkeypatch: pytest.MonkeyPatch, **flags: object) -> list[SandboxSpec]:
    """Run a job and return what the pool was asked for, stage by stage."""
    asked: list[SandboxSpec] = []
    take: Callable[[Pool, SandboxSpec], Awaitable[Sandbox]] = Pool.take

    async def remember(pool: Pool, specification: SandboxSpec) -> Sandbox:
        asked.append(specification)
        return await take(pool, specification)

    monkeypatch.setattr(Pool, "take", remember)
    settings = load_settings({"ready_sandboxes": 1, "launchers": 1, "data_dir": str(folder), **flags}, environ={})
    async with LocalExecutor(settings, Registry([PYTHON, BASH, BUILT])) as executor:
        result = await Engine(executor).result(wanted)
    assert result.verdict is Verdict.OK
    assert result.run is not None
    assert result.run.stdout == b"x\n"
    return asked


@pytest.mark.parametrize(
    ("language", "account", "flags", "template"),
    [
        ("python", "", {}, ""),
        ("python", "user 7", {}, ""),
        ("python", "user 7", {"isolate_templates": True}, "user 7"),
        ("python", "", {"isolate_templates": True}, ""),
        ("python", "user 7", {"isolate_templates": True, "templates": False}, None),
        ("python", "", {"templates": False}, None),
        ("bash", "", {}, None),
    ],
)
async def test_whose_template_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, account: str, flags: dict[str, object], template: str | None
) -> None:
    (run,) = await asked_for(tmp_path, job_of(language, account=account), monkeypatch, **flags)
    assert run.prestart is not None
    assert run.prestart.template == template


@pytest.mark.parametrize(
    ("fields", "flags"),
    [({"fresh": True}, {}), ({}, {"start_ahead": False}), ({"fresh": True}, {"isolate_templates": True})],
    ids=["fresh", "off", "isolated"],
)
async def test_what_is_started_anew_neither_waits_nor_has_a_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], flags: dict[str, object]
) -> None:
    (run,) = await asked_for(tmp_path, job_of("python", **fields), monkeypatch, **flags)
    assert run.prestart is None


@pytest.mark.parametrize(("fresh", "template"), [(False, ""), (True, None)])
async def test_only_the_run_stage_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: bool, template: str | None
) -> None:
    build, run = await asked_for(tmp_path, job_of("built", fresh=fresh), monkeypatch)
    assert build.prestart is None
    assert (run.prestart.template if run.prestart else None) == template


def test_only_some_interpreters_can_have_one() -> None:
    plans = [plan_ahead(each, each.run_command([each.main_name], (), 0), (), {}, template="user 7") for each in (PYTHON, BASH)]
    assert [plan.template for plan in plans if plan is not None] == ["user 7", None]


def test_age_and_runs_reach_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, float] = {}

    class Told(Pool):
        def __init__(self, *words: Any, template_age_s: float = 0, template_runs: int = 0, **more: Any) -> None:
            heard.update(template_age_s=template_age_s, template_runs=template_runs)
            super().__init__(*words, **more)

    monkeypatch.setattr("firebox.engine.executor.Pool", Told)
    settings = load_settings({"data_dir": str(tmp_path), "template_age_s": "2m", "template_runs": "7"}, environ={})
    LocalExecutor(settings, Registry([PYTHON]))
    assert heard == {"template_age_s": 120, "template_runs": 7}
