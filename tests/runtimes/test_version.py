"""Version strings of real and odd tools become SemVer."""

from __future__ import annotations

import pytest
import semantic_version

from firebox.runtimes.tool_version import to_semver


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("5.2.15(1)-release", "5.2.15"),
        ("3.11.7", "3.11.7"),
        ("3.14.0rc2", "3.14.0-rc.2"),
        ("3.13.0b1+", "3.13.0-beta.1"),
        ("3.13.0a7", "3.13.0-alpha.7"),
        ("v20.20.2", "20.20.2"),
        ("v21.0.0-nightly20230801d396a041f7", "21.0.0-nightly.20230801"),
        ("1.95.0", "1.95.0"),
        ("1.97.0-nightly", "1.97.0-nightly"),
        ("1.96.0-beta.3", "1.96.0-beta.3"),
        ("go1.26.8", "1.26.8"),
        ("go1.27rc1", "1.27.0-rc.1"),
        ("go1.27", "1.27.0"),
        ("17.0.15", "17.0.15"),
        ("17.0.15.1", "17.0.15"),
        ("21-ea", "21.0.0"),
        ("8.0_392", "8.0.392"),
        ("3.1.2p20", "3.1.2"),
        ("3.4.0preview1", "3.4.0-preview.1"),
        ("2024.09", "2024.9.0"),
        ("1.07.1", "1.7.1"),
        ("0.5.12-2", "0.5.12"),
        ("0.7.9_20220613", "0.7.9"),
        ("8.6.13", "8.6.13"),
        ("2.1.0-beta3", "2.1.0-beta.3"),
        ("27", "27.0.0"),
        ("version 007", "7.0.0"),
        ("5.2.1-2+deb12u1", "5.2.1"),
    ],
)
def test_versions(text: str, version: str) -> None:
    assert to_semver(text) == version
    semantic_version.Version(version)


@pytest.mark.parametrize("text", ["", "unknown", "rc"])
def test_text_without_a_version(text: str) -> None:
    assert to_semver(text) is None
