"""Definitions: ours are valid, and a mistake is reported with its file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.domain.errors import SettingsError
from firebox.domain.limits import LimitRequest, OutputMode
from firebox.runtimes.definition import read_definition, read_definitions, shipped_definitions
from tests.conftest import ROOT

BASE = {
    "language": '"x"',
    "extensions": '[".x"]',
    "main_name": '"main.x"',
    "run": '["{tool}", "{main}"]',
    "detect": '{programs = ["x"]}',
}


def toml(**changes: str | None) -> str:
    return "\n".join(f"{key} = {value}" for key, value in {**BASE, **changes}.items() if value is not None)


def test_the_smallest_definition() -> None:
    definition = read_definition(toml(), "x.toml")
    assert definition.detect.version == ["--version"]
    assert definition.mounts == ["{prefix}"]
    assert definition.limits("run") == LimitRequest()


def test_limits_are_read_like_settings() -> None:
    text = toml(run_limits="{wall_ms = '5s', memory_bytes = '1GiB', processes = 7, output_mode = 'kill'}")
    limits = read_definition(text, "x.toml").limits("run")
    assert limits == LimitRequest(wall_ms=5000, memory_bytes=1 << 30, processes=7, output_mode=OutputMode.KILL)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"ahead": '"file"', "run": '["{tool}", "{main}", "x"]'}, "run", "the last that is none"),
        ({"compile_ahead": '{hook = "gcc", command = ["x"]}'}, "compile_ahead.hook", "javac"),
        ({"compile_ahead": '{hook = "javac", command = []}'}, "compile_ahead.command", "at least one word"),
        ({"compile_ahead": '{hook = "javac", command = ["{main}"]}'}, "compile_ahead.command", "{memory_mb}"),
        ({"commands": '{"../x" = "{tool}"}'}, "commands", "names of programs"),
        ({"commands": '{x = "relative"}'}, "commands.x", "an absolute path"),
        ({"commands": '{x = "{unknown}"}'}, "commands.x", "placeholders"),
        ({"language": None}, "", "missing required field `language`"),
        ({"detect": None}, "", "missing required field `detect`"),
        ({"detect": "{}"}, "detect", "missing required field `programs`"),
        ({"language": '"Big Name"'}, "language", "lower-case"),
        ({"language": "3"}, "language", "Expected `str`, got `int`"),
        ({"aliases": '["ok", "not ok"]'}, "aliases", "lower-case"),
        ({"aliases": "[1]"}, "aliases[0]", "Expected `str`, got `int`"),
        ({"extensions": "[]"}, "extensions", "at least one"),
        ({"extensions": '["x"]'}, "extensions", "with their dot"),
        ({"main_name": '"a/b.x"'}, "main_name", "a plain file name"),
        ({"run": "[]"}, "run", "at least one word"),
        ({"run": '["{tool}", "{mian}"]'}, "run", "{main}"),
        ({"run": '["-l{sources}"]'}, "run", "only as a word of its own"),
        ({"run": '"x"'}, "run", "Expected `array`, got `str`"),
        ({"compile": '["gcc"]'}, "compile[0]", "Expected `array`, got `str`"),
        ({"compile": '[["gcc"], []]'}, "compile[1]", "at least one word"),
        ({"cache": '"everything"'}, "cache", "Invalid enum value"),
        ({"rank": '"first"'}, "rank", "Expected `int`"),
        ({"colour": '"red"'}, "colour", "main_name"),
        ({"detect": '{programs = ["x"], versoin = ["-v"]}'}, "detect.versoin", "the keys command, executable"),
        ({"detect": '{programs = ["/usr/bin/x"]}'}, "detect.programs", "without folders"),
        ({"detect": "{programs = []}"}, "detect.programs", "names of programs"),
        ({"detect": '{programs = ["x"], pattern = "("}'}, "detect.pattern", "a regular expression"),
        ({"detect": '{programs = ["x"], command = ["{node}"]}'}, "detect.command", "placeholders"),
        ({"name_pattern": '"class"'}, "name_pattern", "with a group"),
        ({"name_pattern": '"("'}, "name_pattern", "a regular expression"),
        ({"env": '{A = "{main}"}'}, "env", "placeholders"),
        ({"env": "{A = 1}"}, "env[...]", "Expected `str`"),
        ({"mounts": '["{home}"]'}, "mounts", "placeholders"),
        ({"tools": '{main = ["x"]}'}, "tools.main", "no other placeholder's"),
        ({"tools": '{tool = ["x"]}'}, "tools.tool", "no other placeholder's"),
        ({"tools": "{node = []}"}, "tools.node.programs", "names of programs"),
        ({"run_limits": "{memory = 1}"}, "run_limits.memory", "memory_bytes"),
        ({"run_limits": "{wall_ms = 'soon'}"}, "run_limits.wall_ms", "milliseconds"),
        ({"compile_limits": "{processes = 0}"}, "compile_limits.processes", "3 or more"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(changes: dict[str, str | None], key: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_definition(toml(**changes), "/etc/firebox/x.toml")
    error = caught.value
    assert error.source == "file /etc/firebox/x.toml"
    assert "/etc/firebox/x.toml" in error.message
    assert error.setting == (key or "runtime definition")
    assert words in error.allowed


@pytest.mark.parametrize(
    ("changes", "meant"),
    [
        ({"mian_name": '"a"'}, "main_name"),
        ({"detect": '{programs = ["x"], versoin = ["-v"]}'}, "version"),
        ({"tools": '{node = {program = ["x"]}}'}, "programs"),
        ({"packages": '{debain = ["x"]}'}, "debian"),
        ({"run_limits": "{wal_ms = 1}"}, "wall_ms"),
    ],
)
def test_a_misspelt_key_gets_the_nearest_one(changes: dict[str, str | None], meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_definition(toml(**changes), "x.toml")
    assert caught.value.hint == f"did you mean {meant}?"
    assert meant in caught.value.allowed


def test_text_that_is_no_toml() -> None:
    with pytest.raises(SettingsError, match=r"x\.toml.*TOML"):
        read_definition("language = ", "x.toml")


def test_a_shell_variable_is_no_placeholder() -> None:
    text = toml(compile="""[["sh", "-c", "echo ${main} %{VERSION} ${x%y}"]]""")
    assert read_definition(text, "x.toml").compile[0][2] == "echo ${main} %{VERSION} ${x%y}"


def test_a_folder_of_definitions(tmp_path: Path) -> None:
    assert read_definitions(tmp_path / "none") == []
    (tmp_path / "b.toml").write_text(toml(language='"b"'))
    (tmp_path / "a.toml").write_text(toml(language='"a"'))
    (tmp_path / "README").write_text("not a definition")
    assert [definition.language for definition in read_definitions(tmp_path)] == ["a", "b"]
    (tmp_path / "c.toml").write_bytes(b"language = '\xff'")
    with pytest.raises(SettingsError, match=r"c\.toml.*UTF-8"):
        read_definitions(tmp_path)


def test_ours_are_sound() -> None:
    folder = ROOT / "src/firebox/runtimes/definitions"
    definitions = [read_definition(file.read_text(encoding="utf-8"), str(file)) for file in sorted(folder.glob("*.toml"))]
    assert definitions == shipped_definitions()
    assert len(definitions) > 60
    pairs = [(definition.language, definition.package) for definition in definitions]
    assert len(pairs) == len(set(pairs))
    for definition in definitions:
        shares_an_ending = definition.language in {"python2", "prolog", "nasm"}
        assert definition.main_name.endswith(tuple(definition.extensions)) or shares_an_ending
        assert definition.language not in definition.aliases


def test_no_two_of_ours_claim_a_name_at_the_same_rank() -> None:
    claims: dict[tuple[str, int], set[str]] = {}
    for definition in shipped_definitions():
        for name in (definition.language, *definition.aliases):
            claims.setdefault((name, definition.rank), set()).add(definition.language)
    assert {key: languages for key, languages in claims.items() if len(languages) > 1} == {}


CLIENTS_SAY = """
py python3 python2 js node javascript node-js node-javascript ts typescript c cpp c++ g++ gcc csharp c# java golang go
php ruby rb rust rs sh bash dash perl pl lua tcl awk gawk sql sqlite3 haskell hs kotlin kt scala swift dart elixir erlang
julia jl r rscript nim zig crystal d fortran pascal ocaml ml cobol assembly asm nasm64 clojure clj groovy lisp clisp guile
hare nix raku perl6 coffeescript racket prolog forth smalltalk octave matlab brainfuck emacs iverilog llvm_ir ats deno-ts
deno-js
"""
"""Names that clients of Piston, grounds-exec and rce-runner use."""


@pytest.mark.parametrize("name", CLIENTS_SAY.split())
def test_names_that_clients_use(name: str) -> None:
    assert any(name in (definition.language, *definition.aliases) for definition in shipped_definitions())
