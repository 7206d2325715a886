from __future__ import annotations

from pathlib import Path

import pytest

RUNNER = """\
env: prod
db_uri: postgres://runner:hunter2@db:5432/runner
redis_addr: redis:6379
prometheus_addr: 0.0.0.0:9100
grpc:
  port: 44000
  timeout: 7s
clients:
  sso:
    address: sso:44044
    timeout: 1m30s
    retriesCount: 5
app_secret: hunter3
"""


@pytest.fixture
def runner_file(tmp_path: Path) -> Path:
    """A file with every key of Runner, and one that is not a setting here."""
    file = tmp_path / "prod.yaml"
    file.write_text(RUNNER)
    return file
