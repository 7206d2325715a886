"""Command line templates, and file names that toolchains require."""

from __future__ import annotations

import os

import msgspec
import pytest

from firebox.domain.limits import LimitRequest
from firebox.domain.model import File
from firebox.runtimes.runtime import Runtime

MIB = 1 << 20


def runtime(*run: str, **more: object) -> Runtime:
    keys = {"language": "x", "version": "1.0.0", "extensions": (".x", ".xx"), "main_name": "main.x", "run": run}
    return msgspec.convert({**keys, **more}, Runtime)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (("/t", "{main}"), ["/t", "src/main.x"]),
        (("{base}.js",), ["src/main.js"]),
        (("{stem}", "{Stem}", "{Stem}Kt"), ["main", "Main", "MainKt"]),
        (("{sources}",), ["src/main.x", "src/b.x", "c.xx", "data.txt"]),
        (("{others}", "{main}"), ["src/b.x", "c.xx", "src/main.x"]),
        (("{reversed}", "{main}"), ["c.xx", "src/b.x", "src/main.x"]),
        (("{siblings}",), ["src/b.x"]),
        (("-Xmx{memory_mb}m",), ["-Xmx256m"]),
        (("${main}", "%{main}", "{unknown}", "{", "{}"), ["${main}", "%{main}", "{unknown}", "{", "{}"]),
        (("read '{main}'",), ["read 'src/main.x'"]),
    ],
)
def test_templates(template: tuple[str, ...], words: list[str]) -> None:
    files = ["src/main.x", "src/b.x", "c.xx", "data.txt"]
    assert runtime(*template).run_command(files, ["a", "{main}"], 256 * MIB) == [*words, "a", "{main}"]
    compiled = runtime("./a.out", compile=(template, ("strip", "a.out")))
    assert compiled.compile_commands(files, 256 * MIB) == [words, ["strip", "a.out"]]


def test_a_step_for_each_other_file_and_none_where_there_are_none() -> None:
    compiled = runtime("run", "{main}", compile=(("/c", "{other}", "-o{other}o"), ("/d", "{main}")))
    steps = compiled.compile_commands(["main.x", "a.x", "data.txt", "-b.x"], 0)
    assert steps == [["/c", "a.x", "-oa.xo"], ["/c", "./-b.x", "-o./-b.xo"], ["/d", "main.x"]]
    assert compiled.compile_commands(["main.x", "data.txt"], 0) == [["/d", "main.x"]]
    assert compiled.has_compile_commands(["main.x", "data.txt"])
    only_others = runtime("run", compile=(("/c", "{other}"),))
    assert only_others.compile_commands(["main.x"], 0) == []
    assert not only_others.has_compile_commands(["main.x"])
    assert only_others.has_compile_commands(["main.x", "a.x"])


def test_several_files_may_be_run_in_another_way() -> None:
    several = runtime("one", "{main}", run_with_others=("many", "{main}", "{others}"))
    assert several.run_command(["main.x", "data.txt"], ["a"], 0) == ["one", "main.x", "a"]
    assert several.run_command(["main.x", "b.x"], ["a"], 0) == ["many", "main.x", "b.x", "a"]


@pytest.mark.parametrize("name", ["-rf.x", "@options.x", "+x.x", "x=1.x", "_a1=b.x"])
def test_a_name_is_never_read_as_an_option_or_an_assignment(name: str) -> None:
    words = runtime("t", "{main}", "{others}", "{base}").run_command([name, name], [], 0)
    assert words == ["t", f"./{name}", f"./{name}", f"./{name.removesuffix('.x')}"]


def test_no_limit_means_the_memory_of_the_machine() -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert runtime("{memory_mb}").run_command(["a"], [], 0) == [str(machine)]
    assert runtime("{memory_mb}").run_command(["a"], [], 5) == ["1"]


def test_without_files_lists_are_empty() -> None:
    assert runtime("t", "{sources}", "{main}").run_command([], [], 0) == ["t", ""]


def test_names_stages_and_environments() -> None:
    one = runtime(
        "t",
        aliases=("y",),
        env={"A": "1", "B": "1"},
        compile_env={"B": "2"},
        compile_limits=LimitRequest(wall_ms=1),
        run_limits=LimitRequest(wall_ms=2),
    )
    assert one.names == ("x", "y")
    assert not one.compiled
    assert one.environment("run") == {"A": "1", "B": "1"}
    assert one.environment("compile") == {"A": "1", "B": "2"}
    assert (one.limits("compile").wall_ms, one.limits("run").wall_ms) == (1, 2)


def place(names: list[str], content: bytes = b"", **more: object) -> list[str]:
    return [file.name for file in runtime("t", **more).place([File(name, content) for name in names])]


def test_a_toolchain_without_wishes_leaves_names_alone() -> None:
    assert place(["file0.code", "noext"]) == ["file0.code", "noext"]


def test_a_toolchain_that_needs_its_extension_gets_it() -> None:
    assert place(["file0.code", "file1.code", "util.h", "b"], needs_extension=True) == ["file0.x", "file1.x", "util.h", "b.x"]
    assert place(["main.xx"], needs_extension=True) == ["main.xx"]
    assert place(["main.py"], needs_extension=True) == ["main.py.x"]
    assert place(["dir/file0.code"], needs_extension=True) == ["dir/file0.x"]


def test_data_keeps_its_name() -> None:
    files = [File("file0.code", b""), File("file1.code", b"", source=False)]
    assert [file.name for file in runtime("t", needs_extension=True).place(files)] == ["file0.x", "file1.code"]


def test_a_taken_file_name_is_not_reused() -> None:
    assert place(["file0.code", "file0.x"], needs_extension=True) == ["file0.code", "file0.x"]


def test_the_main_file_is_named_after_what_is_in_it() -> None:
    pattern = r"^public class (\w+)"
    source = b"import x;\npublic class Hello {}\n"
    assert place(["Main.x"], source, name_pattern=pattern) == ["Hello.x"]
    assert place(["a/b/file0.code"], source, name_pattern=pattern) == ["a/b/Hello.x"]
    assert place(["Main.x"], b"class Hello {}", name_pattern=pattern) == ["Main.x"]
    assert place(["Hello.x"], source, name_pattern=pattern) == ["Hello.x"]
    assert place(["Main.x"], b"\xff\xfe", name_pattern=pattern) == ["Main.x"]


def test_contents_and_order_survive_placing() -> None:
    files = (File("a.code", b"1"), File("b.code", b"2"))
    placed = runtime("t", needs_extension=True).place(files)
    assert placed == (File("a.x", b"1"), File("b.x", b"2"))


def test_a_byte_order_mark_is_taken_from_sources_only() -> None:
    marked = b"\xef\xbb\xbfcode"
    files = [
        File("main", marked),
        File("b.x", marked),
        File("c.txt", marked),
        File("d.x", marked, source=False),
        File("e.x", b""),
    ]
    contents = {file.name: file.content for file in runtime("t").place(files)}
    assert contents == {"main": b"code", "b.x": b"code", "c.txt": marked, "d.x": marked, "e.x": b""}
    assert runtime("t", byte_order_mark=True).place(files) == tuple(files)
    named = runtime("t", name_pattern=r"^(\w+)").place([File("main.x", marked)])
    assert named == (File("code.x", b"code"),)
