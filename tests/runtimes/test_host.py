"""Tools on PATH, simulated by small scripts with odd answers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from firebox.runtimes import host_folders, host_tools
from firebox.runtimes.definition import Definition, read_definition, shipped_definitions
from firebox.runtimes.host_runtimes import HostScan, scan_host
from firebox.runtimes.runtime import Runtime

MakeTool = Callable[..., Path]


@pytest.fixture(autouse=True)
def show_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow mounting folders below /tmp, where tests have theirs."""
    monkeypatch.setattr(host_folders, "COVERED", ("/covered",))


@pytest.fixture
def make_tool(tmp_path: Path) -> MakeTool:
    """Write a shell script into a folder of PATH; each run of it adds a line to `tmp_path/asked`."""

    def make(name: str, body: str, folder: str = "one/bin") -> Path:
        program = tmp_path / folder / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\necho $0 >> {tmp_path}/asked\n{body}\n")
        program.chmod(0o755)
        return program

    return make


def definition(detect: str = "", **more: str) -> Definition:
    keys = {"run": '["{tool}", "{main}"]', **more}
    text = "\n".join(
        [
            'language = "shout"\nextensions = [".s"]\nmain_name = "main.s"',
            *(f"{key} = {value}" for key, value in keys.items()),
            '[detect]\nprograms = ["shout", "shout[0-9]"]',
            detect,
        ]
    )
    return read_definition(text, "shout.toml")


def path_of(tmp_path: Path, *folders: str) -> str:
    return ":".join(str(tmp_path / folder) for folder in folders or ("one/bin",))


def the_only_one(scan: HostScan | list[Runtime]) -> Runtime:
    runtimes = scan if isinstance(scan, list) else scan.runtimes
    (found,) = runtimes
    return found


@pytest.mark.parametrize(
    ("body", "pattern", "version"),
    [
        ("echo shout 1.2.3", "", "1.2.3"),
        ("echo shout 1.2.3 >&2", "", "1.2.3"),
        ("echo 'GNU shout, version 5.2.15(1)-release (x86_64-pc-linux-gnu)'", "", "5.2.15"),
        ("printf 'Copyright 2020\\nshout v2024.09'", "", "2024.9.0"),
        ("echo 'built by gcc 12.2.0, shout 7'", r"pattern = 'shout (\d+)'", "7.0.0"),
        ("printf 'built 1.0\\nshout 2.0\\n'", r"pattern = '^shout (\S+)'", "2.0.0"),
        ("echo 3.14.0rc2", "", "3.14.0-rc.2"),
        ("printf 'shout \\377\\376 4.5.6'", "", "4.5.6"),
    ],
)
def test_odd_versions(make_tool: MakeTool, tmp_path: Path, body: str, pattern: str, version: str) -> None:
    make_tool("shout", body)
    assert the_only_one(scan_host(path_of(tmp_path), [definition(pattern)]).runtimes).version == version


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo not telling", "no version in 'not telling'"),
        ("true", "no version in ''"),
        ("echo shout 1.2.3; exit 3", "exit code 3: 'shout 1.2.3'"),
        ("kill -9 $$", "exit code -9"),
    ],
)
def test_a_failing_tool_is_reported(make_tool: MakeTool, tmp_path: Path, body: str, words: str) -> None:
    program = make_tool("shout", body)
    scan = scan_host(path_of(tmp_path), [definition()])
    assert scan.runtimes == []
    assert scan.problems == [f"shout: {program}: {words}"]


def test_a_file_that_is_no_program(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0").write_bytes(b"\x00garbage")
    scan = scan_host(path_of(tmp_path), [definition()])
    assert scan.runtimes == []
    assert "Exec format error" in scan.problems[0]


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_a_tool_with_endless_output_is_killed(make_tool: MakeTool, tmp_path: Path, stream: str) -> None:
    make_tool("shout", f"exec yes 1.0{stream}")
    scan = scan_host(path_of(tmp_path) + ":/usr/bin:/bin", [definition()])
    assert scan.problems[0].endswith("its output exceeds 1048576 bytes")


def test_a_hanging_tool_is_killed_with_its_children(make_tool: MakeTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools, "ANSWER_TIMEOUT_S", 0.2)
    os.mkfifo(tmp_path / "alive")
    make_tool("shout", f"exec 9> {tmp_path}/alive; sleep 600 & wait")
    alive = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    scan = scan_host(path_of(tmp_path) + ":/usr/bin:/bin", [definition()])
    assert scan.problems[0].endswith("no answer within 0.2 s")
    os.set_blocking(alive, True)
    assert os.read(alive, 1) == b"", "end of file needs all copies of the other end closed"
    os.close(alive)


def test_stdin_comes_from_the_definition(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", 'read line; [ "$line" = version? ] && echo 1.5')
    assert the_only_one(scan_host(path_of(tmp_path), [definition('stdin = "version?"')])).version == "1.5.0"


def test_a_file_instead_of_asking(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0")
    asking = definition("""file = "{prefix}/release"\npattern = 'VERSION="(.*)"|(?<=V)x'""")
    (tmp_path / "one/release").write_text('NAME="x 9"\nVERSION="3.2"\n')
    assert the_only_one(scan_host(path_of(tmp_path), [asking])).version == "3.2.0"
    assert not (tmp_path / "asked").exists()


def test_a_file_without_a_version_is_another_ones(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo V1.0")
    asking = definition("""file = "{prefix}/release"\npattern = 'V([0-9.]+)'""")
    (tmp_path / "one/release").write_text("3.2")
    assert the_only_one(scan_host(path_of(tmp_path), [asking])).version == "1.0.0"


def test_typescript_is_known_by_its_package(make_tool: MakeTool, tmp_path: Path) -> None:
    shipped = next(each for each in shipped_definitions("typescript") if each.detect.programs == ["tsc"])
    make_tool("tsc", "echo Version 4.0.1")
    make_tool("node", 'echo "$0"')
    package = tmp_path / "one/package.json"
    package.write_text('{"name": "a-project", "version": "1.0.0", "dependencies": {"typescript": "5"}}')
    assert the_only_one(scan_host(path_of(tmp_path), [shipped])).version == "4.0.1"
    package.write_text(
        '{\n    "name": "typescript",\n    "author": "x",\n    "version": "5.9.3",\n    "license": "Apache-2.0"\n}'
    )
    assert the_only_one(scan_host(path_of(tmp_path), [shipped])).version == "5.9.3"


def test_a_command_of_another_program(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "exit 1")
    path = path_of(tmp_path) + ":/usr/bin:/bin"
    found = the_only_one(scan_host(path, [definition('command = ["sh", "-c", "echo $0 4.4", "{tool}"]')]))
    assert found.version == "4.4.0"


def test_every_folder_of_path_is_searched(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0", "one/bin")
    make_tool("shout", "echo 2.0", "two/bin")
    make_tool("shout", "echo 1.0", "three/bin")
    found = scan_host(path_of(tmp_path, "none", "one/bin", "two/bin", "three/bin") + "::relative", [definition()]).runtimes
    assert [runtime.version for runtime in found] == ["1.0.0", "2.0.0"]
    assert found[0].run == (f"{tmp_path}/one/bin/shout", "{main}")
    assert found[0].mounts == (f"{tmp_path}/one",)
    assert found[0].env["PATH"] == f"{tmp_path}/one/bin:/usr/local/bin:/usr/bin:/bin"


def test_a_program_with_several_names_runs_once(make_tool: MakeTool, tmp_path: Path) -> None:
    program = make_tool("shout", "echo 1.0")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/shout").symlink_to(program)
    found = the_only_one(scan_host(path_of(tmp_path, "two", "one/bin"), [definition()]).runtimes)
    assert found.run[0] == str(program)
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


def test_a_pattern_finds_no_scripts(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout9", "echo 9.0")
    assert scan_host(path_of(tmp_path), [definition()]) == HostScan()


def test_what_cannot_be_executed_is_not_seen(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0").chmod(0o644)
    (tmp_path / "two/shout").mkdir(parents=True)
    assert scan_host(path_of(tmp_path, "one/bin", "two"), [definition()]) == HostScan()


def test_a_shim_is_followed_to_the_real_program(make_tool: MakeTool, tmp_path: Path) -> None:
    real = make_tool("shout", "echo 3.3", "versions/3.3/bin")
    make_tool("shout", f'[ "$1" = where ] && echo {real}', "shims")
    found = the_only_one(scan_host(path_of(tmp_path, "shims"), [definition('locate = ["where"]')]))
    assert (found.version, found.run[0], found.mounts) == ("3.3.0", str(real), (f"{tmp_path}/versions/3.3",))


def test_a_shim_that_tells_a_folder(make_tool: MakeTool, tmp_path: Path) -> None:
    real = make_tool("shout", "echo 3.3", "chain/bin")
    make_tool("shout", f"echo {tmp_path}/chain", "shims")
    detect = 'locate = ["root"]\nexecutable = "{located}/bin/shout"'
    assert the_only_one(scan_host(path_of(tmp_path, "shims"), [definition(detect)])).run[0] == str(real)


def test_a_shim_of_nothing(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo /nowhere/shout")
    scan = scan_host(path_of(tmp_path), [definition('locate = ["where"]')])
    assert scan.problems[0].endswith("it resolves to /nowhere/shout, which is not a program")


def test_further_tools_are_found_beside_the_first_or_on_path(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0")
    near = make_tool("echoer", "true")
    make_tool("echoer", "true", "two/bin")
    far = make_tool("linker", "true", "two/bin")
    wants = definition(
        run='["{echo}"]', compile='[["{link}", "{tool}"]]', tools='{echo = ["echoer"], link = ["nolink", "linker"]}'
    )
    found = the_only_one(scan_host(path_of(tmp_path, "two/bin", "one/bin"), [wants]))
    assert found.run == (str(near),)
    assert found.compile == ((str(far), f"{tmp_path}/one/bin/shout"),)
    assert found.mounts == (f"{tmp_path}/one", str(far.parent))
    assert found.cache == "binary"


def test_a_missing_further_tool_is_a_problem(make_tool: MakeTool, tmp_path: Path) -> None:
    program = make_tool("shout", "echo 1.0")
    scan = scan_host(path_of(tmp_path), [definition(tools='{echo = ["echoer"]}')])
    assert scan.runtimes == []
    assert scan.problems == [f"shout 1.0.0: {program}: it needs echoer: not on PATH"]


def test_placeholders_of_the_tool_in_everything(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0")
    found = the_only_one(
        scan_host(
            path_of(tmp_path),
            [
                definition(
                    env='{HOME_OF = "{prefix}", PATH = "/x"}',
                    compile_env='{BIN = "{folder}"}',
                    compile='[["{tool}", "-L{prefix}/lib", "{sources}"]]',
                )
            ],
        )
    )
    assert found.env == {"HOME_OF": f"{tmp_path}/one", "PATH": "/x"}
    assert found.compile_env == {"BIN": f"{tmp_path}/one/bin"}
    assert found.compile[0] == (f"{tmp_path}/one/bin/shout", f"-L{tmp_path}/one/lib", "{sources}")


def test_folders_to_show_may_be_patterns(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0")
    for name in ("lib-1", "lib-2", "other", "one/inner"):
        (tmp_path / name).mkdir()
    mounts = f'["{{prefix}}", "{{prefix}}/inner", "{tmp_path}/lib-*", "/usr/lib", "/opt/no-such", "/usr/no-such-*"]'
    found = the_only_one(scan_host(path_of(tmp_path), [definition(mounts=mounts)]))
    assert found.mounts == (f"{tmp_path}/lib-1", f"{tmp_path}/lib-2", f"{tmp_path}/one")


def test_a_folder_that_sandboxes_cover_cannot_be_shown(
    make_tool: MakeTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tool("shout", "echo 1.0")
    monkeypatch.setattr(host_folders, "COVERED", (str(tmp_path),))
    scan = scan_host(path_of(tmp_path), [definition()])
    assert scan.problems[0].endswith(f"{tmp_path}/one is hidden by a folder of the sandbox")


@pytest.mark.parametrize("home", ["one", "one/someone", "one/some/one"])
def test_home_folders_are_never_shown(make_tool: MakeTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    make_tool("shout", "echo 1.0")
    monkeypatch.setenv("HOME", str(tmp_path / home))
    scan = scan_host(path_of(tmp_path), [definition()])
    assert scan.problems[0].endswith("would show too much")


def test_a_tool_in_the_home_is_shown_with_its_own_folder_only(
    make_tool: MakeTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tool("shout", "echo 1.0", "home/.shout/bin")
    make_tool("shout", "echo 2.0", "home/.local/bin")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    scan = scan_host(path_of(tmp_path, "home/.shout/bin", "home/.local/bin"), [definition()])
    assert the_only_one(scan).mounts == (f"{tmp_path}/home/.shout",)
    assert "would show too much" in scan.problems[0]


def test_a_folder_that_only_root_may_read_cannot_be_shown(
    make_tool: MakeTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tool("shout", "echo 1.0")
    (tmp_path / "one").chmod(0o700)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "is not readable by others" in scan_host(path_of(tmp_path), [definition()]).problems[0]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert scan_host(path_of(tmp_path), [definition()]).problems == []


def test_answers_are_remembered_until_the_file_changes(make_tool: MakeTool, tmp_path: Path) -> None:
    data, path = tmp_path / "data", path_of(tmp_path)
    program = make_tool("shout", "echo 1.0")
    first = scan_host(path, [definition()], data_folder=data)
    assert scan_host(path, [definition()], data_folder=data) == first
    assert len((tmp_path / "asked").read_text().splitlines()) == 1
    make_tool("shout", "echo 2.0; :")
    assert the_only_one(scan_host(path, [definition()], data_folder=data)).version == "2.0.0"
    program.unlink()
    assert scan_host(path, [definition()], data_folder=data) == HostScan()
    assert json.loads((data / "detected-tools.json").read_text())["tools"] == {}


def test_another_way_of_asking_asks_again(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0 or 2.0")
    data, path = tmp_path / "data", path_of(tmp_path)
    assert the_only_one(scan_host(path, [definition()], data_folder=data)).version == "1.0.0"
    assert the_only_one(scan_host(path, [definition("pattern = 'or (.*)'")], data_folder=data)).version == "2.0.0"


def test_targets_of_unknown_shims_are_not_cached(make_tool: MakeTool, tmp_path: Path) -> None:
    old, new = (make_tool("shout", f"echo {version}", f"v/{version}/bin") for version in ("1.0", "2.0"))
    (tmp_path / "current").write_text(str(old))
    make_tool("shout", f"cat {tmp_path}/current", "shims")
    ask = definition('locate = ["where"]')
    path = path_of(tmp_path, "shims") + ":/usr/bin:/bin"
    assert the_only_one(scan_host(path, [ask], data_folder=tmp_path / "data")).version == "1.0.0"
    (tmp_path / "current").write_text(str(new))
    assert the_only_one(scan_host(path, [ask], data_folder=tmp_path / "data")).version == "2.0.0"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99, "tools": {}}', '{"format": 1, "tools": {"a": 3}}'])
def test_a_damaged_memory_is_no_error(make_tool: MakeTool, tmp_path: Path, content: str) -> None:
    make_tool("shout", "echo 1.0")
    (tmp_path / "detected-tools.json").write_text(content)
    scan = scan_host(path_of(tmp_path), [definition()], data_folder=tmp_path)
    assert the_only_one(scan).version == "1.0.0"
    assert json.loads((tmp_path / "detected-tools.json").read_text())["format"] == 1


def test_a_data_folder_that_cannot_be_written_is_no_error(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0")
    (tmp_path / "file").touch()
    wants = definition(prepare='[["true"]]', run='["{tool}", "{prepared}"]')
    scan = scan_host(path_of(tmp_path), [wants], data_folder=tmp_path / "file" / "data")
    assert the_only_one(scan).run[1] == "/nonexistent"
    assert scan.preparations == []


def test_only_some_definitions(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0")
    assert scan_host(path_of(tmp_path), [definition()], only=lambda item: item.language == "other") == HostScan()
    assert not (tmp_path / "asked").exists()


def test_of_two_definitions_of_one_language_and_package_the_first_counts(make_tool: MakeTool, tmp_path: Path) -> None:
    make_tool("shout", "echo 1.0")
    mine, ours, other = definition(run='["mine"]'), definition(run='["ours"]'), definition(run='["other"]', package='"p"')
    runs = [runtime.run for runtime in scan_host(path_of(tmp_path), [mine, ours, other]).runtimes]
    assert runs == [("mine",), ("other",)]


def test_a_standard_program_keeps_the_name_it_is_called_by() -> None:
    shell = shutil.which("sh", path="/usr/bin")
    assert shell is not None
    ask = read_definition(
        """
        language = "sh"
        extensions = [".sh"]
        main_name = "main.sh"
        run = ["{tool}"]
        detect = {programs = ["sh"], command = ["sh", "-c", "echo 1.0"]}
        """,
        "sh.toml",
    )
    found = the_only_one(scan_host("/usr/bin", [ask]))
    assert found.run == ("/usr/bin/sh",)
    assert found.mounts == ()
    assert "PATH" not in found.env


def test_nothing_on_path(tmp_path: Path) -> None:
    assert scan_host("").runtimes == []
    assert scan_host(str(tmp_path)).runtimes == []


def test_every_runtime_of_this_machine_is_whole() -> None:
    scan = scan_host(os.environ["PATH"])
    for runtime in scan.runtimes:
        for word in (*runtime.run, *(word for step in runtime.compile for word in step)):
            assert "{tool}" not in word
            assert "{prefix}" not in word
        assert all(Path(folder).is_dir() for folder in runtime.mounts)
        if runtime.run[0].startswith("/"):
            assert os.access(runtime.run[0], os.X_OK)
