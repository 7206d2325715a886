"""Templates as jobs meet them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from firebox.domain.limits import LimitRequest
from firebox.domain.model import Verdict
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.registry import Registry
from firebox.sandbox.pool.templates import ARE_POSSIBLE
from firebox.settings.settings import load_settings
from tests.engine.conftest import ATTEMPTS, Engine, job
from tests.engine.test_templates import PYTHON

pytestmark = pytest.mark.skipif(not ARE_POSSIBLE, reason="templates are for x86-64")


async def restored(engine: Engine) -> None:
    """Run jobs until one is restored from a template."""
    for _ in range(ATTEMPTS):
        before = engine.executor.statistics().pool.restored
        assert (await engine.result(job("python", "print('x')"))).verdict is Verdict.OK
        if engine.executor.statistics().pool.restored > before:
            return
    raise AssertionError(f"in {ATTEMPTS} runs nothing was restored: {engine.executor.statistics()}")


async def test_job_with_too_little_memory_does_not_cost_others_their_template(tmp_path: Path) -> None:
    settings = load_settings({"ready_sandboxes": 1, "launchers": 1, "data_dir": str(tmp_path)}, environ={})
    async with LocalExecutor(settings, Registry([PYTHON])) as executor:
        engine = Engine(executor)
        await restored(engine)
        # Its file leaves no room for the interpreter that waits.
        large = job("python", "#" * 4_000_000)
        for memory_bytes in range(4 << 20, 8 << 20, 256 << 10):
            await engine.result(replace(large, run_limits=LimitRequest(memory_bytes=memory_bytes)))
        assert [template.failed for template in executor._pool._templates._templates.values()] == [False]
