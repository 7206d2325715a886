"""Selection of runtimes: a name or alias, and a range in npm's syntax."""

from __future__ import annotations

import msgspec
import pytest

from firebox.domain.errors import UnknownRuntime
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime


def runtime(language: str, version: str, *aliases: str, **more: object) -> Runtime:
    keys = {"language": language, "version": version, "aliases": aliases, "extensions": (f".{language}",)}
    return msgspec.convert({**keys, "main_name": "main", "run": (language,), **more}, Runtime)


REGISTRY = Registry(
    [
        runtime("python", "3.9.2", "py", "python3"),
        runtime("python", "3.11.7", "py", "python3"),
        runtime("python", "3.11.2", "py", "python3"),
        runtime("python", "3.14.0-rc.2", "py", "python3"),
        runtime("python", "3.10.14", "py", "pypy", package="pypy", rank=-1),
        runtime("c", "12.2.0", "gcc", package="gcc"),
        runtime("c", "14.0.6", "clang", package="clang", rank=-1, extensions=(".c",)),
        runtime("bash", "5.2.15", "sh"),
        runtime("dash", "0.5.12", "sh", rank=-1, extensions=(".dash", ".bash")),
        runtime("sh", "1.0.0", rank=-5),
        runtime("preview", "2.0.0-beta.11"),
        runtime("preview", "2.0.0-beta.2"),
        runtime("preview", "2.0.0-alpha"),
    ]
)


@pytest.mark.parametrize(
    ("version_range", "version"),
    [
        ("*", "3.11.7"),
        ("", "3.11.7"),
        ("x", "3.11.7"),
        ("3", "3.11.7"),
        ("3.x", "3.11.7"),
        ("3.X", "3.11.7"),
        ("3.11", "3.11.7"),
        ("3.11.x", "3.11.7"),
        ("3.11.*", "3.11.7"),
        ("3.11.2", "3.11.2"),
        ("=3.11.2", "3.11.2"),
        ("v3.11.2", "3.11.2"),
        (" 3.11.2 ", "3.11.2"),
        ("^3.9", "3.11.7"),
        ("~3.9.0", "3.9.2"),
        ("~3.11", "3.11.7"),
        ("<3.10", "3.9.2"),
        ("<=3.9.2", "3.9.2"),
        (">=3.9 <3.11.7", "3.11.2"),
        (">=3.9 <4", "3.11.7"),
        ("3.9.0 - 3.11.5", "3.11.2"),
        ("3.9.2 || 2.7", "3.9.2"),
        ("3.8 || 3.11.2", "3.11.2"),
        (">3.11.2", "3.11.7"),
        ("3.14.0-rc.2", "3.14.0-rc.2"),
        (">=3.14.0-rc.1", "3.14.0-rc.2"),
        ("3.14", "3.14.0-rc.2"),
        ("3.10", "3.10.14"),
    ],
)
def test_ranges(version_range: str, version: str) -> None:
    assert REGISTRY.resolve("python", version_range).version == version


@pytest.mark.parametrize(
    ("selector", "language", "version"),
    [
        ("python", "python", "3.11.7"),
        ("PYTHON", "python", "3.11.7"),
        (" py ", "python", "3.11.7"),
        ("Python3", "python", "3.11.7"),
        ("pypy", "python", "3.10.14"),
        ("c", "c", "12.2.0"),
        ("gcc", "c", "12.2.0"),
        ("clang", "c", "14.0.6"),
        ("sh", "sh", "1.0.0"),
        ("dash", "dash", "0.5.12"),
        ("preview", "preview", "2.0.0-beta.11"),
    ],
)
def test_names(selector: str, language: str, version: str) -> None:
    found = REGISTRY.resolve(selector, "*")
    assert (found.language, found.version) == (language, version)


def test_rank_wins_over_version_but_every_version_can_be_selected() -> None:
    assert REGISTRY.resolve("c", "14").package == "clang"
    assert REGISTRY.resolve("c").package == "gcc"


def test_an_alias_of_several_means_the_one_of_the_highest_rank() -> None:
    registry = Registry([runtime("dash", "9.0.0", "sh", rank=-1), runtime("bash", "5.0.0", "sh")])
    assert registry.resolve("sh").language == "bash"
    assert registry.resolve("sh", "9").language == "dash"


@pytest.mark.parametrize("version_range", ["foo", "latest", "3.11.7.1", ">>3", "3..1", "1" * 300, "^", "0x3", "3.11; rm"])
def test_what_is_no_range(version_range: str) -> None:
    with pytest.raises(UnknownRuntime) as caught:
        REGISTRY.resolve("python", version_range)
    assert caught.value.hint.startswith("a version range looks like")


def test_no_version_matches() -> None:
    with pytest.raises(UnknownRuntime) as caught:
        REGISTRY.resolve("python", "2.x")
    assert caught.value.hint == "versions of python here: 3.14.0-rc.2, 3.11.7, 3.11.2, 3.9.2, 3.10.14"
    assert (caught.value.selector, caught.value.version) == ("python", "2.x")


def test_no_name_matches() -> None:
    with pytest.raises(UnknownRuntime) as caught:
        REGISTRY.resolve("pyhton", "*")
    assert caught.value.hint.startswith("did you mean python")
    with pytest.raises(UnknownRuntime) as caught:
        REGISTRY.resolve("fortran" * 1000, "*")
    assert caught.value.hint == "languages here: bash, c, dash, preview, python, sh"


def test_without_any_runtime() -> None:
    with pytest.raises(UnknownRuntime):
        Registry([]).resolve("python", "*")
    assert Registry([]).all() == []
    assert Registry([]).by_extension(".py") is None


def test_all_is_sorted_with_the_meant_one_first() -> None:
    listed = [(runtime.language, runtime.version) for runtime in REGISTRY.all()]
    assert [language for language, _ in listed] == sorted(language for language, _ in listed)
    assert [version for language, version in listed if language == "python"] == [
        "3.14.0-rc.2",
        "3.11.7",
        "3.11.2",
        "3.9.2",
        "3.10.14",
    ]


def test_doubles_are_listed_once_and_the_first_counts() -> None:
    registry = Registry([runtime("c", "1.0.0", package="a", env={"FIRST": "1"}), runtime("c", "1.0.0", package="a")])
    (found,) = registry.all()
    assert found.env == {"FIRST": "1"}
    assert len(Registry([runtime("c", "1.0.0", package="a"), runtime("c", "1.0.0", package="b")]).all()) == 2


def test_extensions() -> None:
    found = REGISTRY.by_extension(".c")
    assert found is not None
    assert found.package == "gcc"
    found = REGISTRY.by_extension(".bash")
    assert found is not None
    assert found.language == "bash"
    assert REGISTRY.by_extension(".PYTHON") is REGISTRY.by_extension(".python") is not None
    assert REGISTRY.by_extension(".nothing") is None
    assert REGISTRY.by_extension("") is None
