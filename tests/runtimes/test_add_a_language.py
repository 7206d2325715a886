"""docs/develop/add-a-language.md: its example works, and it names every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from firebox.runtimes import host_folders
from firebox.runtimes.definition import Definition, Detect, read_definitions
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import LIST_PLACEHOLDERS, WORD_PLACEHOLDERS
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import load_settings


@pytest.fixture
def page(checkout: Path) -> str:
    return (checkout / "docs" / "develop" / "add-a-language.md").read_text(encoding="utf-8")


def test_the_worked_example_works(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_folders, "COVERED", ("/covered",))
    settings = load_settings({"data_dir": str(tmp_path / "data")}, None, {})
    settings.runtimes_dir.mkdir(parents=True)
    example = re.search(r"```toml\n(language = .*?)```", page, re.DOTALL)
    assert example is not None
    (settings.runtimes_dir / "shout.toml").write_text(example[1])
    binaries = tmp_path / "shout" / "bin"
    binaries.mkdir(parents=True)
    says = re.search(r"prints `(shoutc, [^`]*)`", page)
    assert says is not None
    for name in ("shoutc", "shoutvm"):
        (binaries / name).write_text(f"#!/bin/sh\necho '{says[1]}'\n")
        (binaries / name).chmod(0o755)

    scan = scan_host(str(binaries), read_definitions(settings.runtimes_dir))
    registry = Registry(scan.runtimes)

    runtime = registry.resolve("sht", "1.x")
    assert (runtime.language, runtime.version) == ("shout", "1.4.0")
    assert registry.by_extension(".shout") is runtime
    assert runtime.compile_commands(["main.shout", "more.shout", "data"], 0) == [
        [f"{binaries}/shoutc", "-o", "program.loud", "main.shout", "more.shout"]
    ]
    assert runtime.run_command(["main.shout"], ["loudly"], 0) == [f"{binaries}/shoutvm", "program.loud", "loudly"]
    assert runtime.environment("run")["SHOUT_COLOURS"] == "never"
    assert limit_policy(settings).default_limits("compile", runtime).wall_ms == 20_000


def test_every_key_is_documented(page: str) -> None:
    for key in (*Definition.__struct_fields__, *Detect.__struct_fields__):
        assert f"`{key}`" in page, key


def test_every_placeholder_is_documented(page: str) -> None:
    for name in (*WORD_PLACEHOLDERS, *LIST_PLACEHOLDERS, "tool", "prefix", "folder", "prepared", "located"):
        assert f"`{{{name}}}`" in page, name
