"""What the service changes in a job before the engine runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.domain.model import File, Job
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.settings.settings import load_settings
from firebox.storage.stores import open_stores

ADDRESS = "192.0.2.1"


@pytest.mark.parametrize(
    ("caller", "client", "account"),
    [
        (Caller(address=ADDRESS, user_id=7, name="ann"), "user 7", "user 7"),
        (Caller(address=ADDRESS, role="admin"), "admin", "admin"),
        (Caller(address=ADDRESS), f"address {ADDRESS}", ""),
    ],
    ids=["user", "operator", "anonymous"],
)
async def test_a_job_carries_its_owner(tmp_path: Path, caller: Caller, client: str, account: str) -> None:
    settings = load_settings({"data_dir": str(tmp_path), "ready_sandboxes": 0}, environ={})
    registry = Registry([Runtime(language="sh", version="1.0.0", main_name="main.sh", run=("/bin/sh", "{main}"))])
    wanted = Job(language="sh", files=(File("", b""),), client="another client", account="another account")
    async with open_stores(settings) as stores, LocalExecutor(settings, registry) as executor:
        service = Service(executor, registry, settings, stores)
        async with service.start(wanted, caller) as run:
            job = run.job
    assert (job.client, job.account) == (client, account)
    assert [file.name for file in job.files] == ["main.sh"]
