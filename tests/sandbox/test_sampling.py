"""How often a sandbox is looked at where no control group counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.sandbox import mounts, sampling


@pytest.mark.parametrize(("look_s", "looks"), [(0.001, 10), (0.1, 3)], ids=["a few descriptors", "very many"])
def test_descriptors_are_looked_at_in_every_sample_that_their_number_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, look_s: float, looks: int
) -> None:
    now, looked = 0.0, list[float]()

    def look(_pids: object) -> int:
        nonlocal now
        looked.append(now)
        now += look_s
        return 0

    monkeypatch.setattr(sampling, "_pipe_bytes", look)
    monkeypatch.setattr(mounts, "WORK", str(tmp_path))
    sampler = sampling.Sampler(0, 0, 0.0, None, now=lambda: now)
    for _ in range(10):
        now += 0.1
        sampler.sample()
    assert len(looked) == looks
