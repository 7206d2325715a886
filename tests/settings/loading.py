"""Short forms of what most tests of settings do."""

from __future__ import annotations

from pathlib import Path

from firebox.settings.settings import Settings, load_settings


def load(environ: dict[str, str] | None = None, flags: dict[str, object] | None = None, file: Path | None = None) -> Settings:
    """Load settings without the environment of the tests."""
    return load_settings(flags, file, environ or {})


def write(folder: Path, text: str) -> Path:
    """Write a TOML file and return its path."""
    file = folder / "firebox.toml"
    file.write_text(text, encoding="utf-8")
    return file


def shown(settings: Settings, *names: str) -> list[tuple[object, str]]:
    """Return value and source of each setting."""
    return [(settings.value(name), settings.source(name)) for name in names]
