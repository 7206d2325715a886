"""Attack 42: files and variables that interpreters read before the program. They affect only the job that sent them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from firebox.domain.model import Verdict
from tests.attacks.conftest import Workshop, printed, require, shown

MARK = b"injected"


@dataclass(frozen=True)
class Vector:
    """A way to run code before the program. version: "3.11", for paths that contain it."""

    language: str
    files: Callable[[str], dict[str, str]]
    env: dict[str, str] = field(default_factory=dict[str, str])
    works: bool = True
    """Whether it works in its own run; False: the interpreter ignores it."""


def fixed(**files: str) -> Callable[[str], dict[str, str]]:
    return lambda _version: {name.replace("__", ".", 1).replace("_SLASH_", "/"): content for name, content in files.items()}


PYTHON = (
    "import os\nprint('injected')\n"
    "for place in ('/tmp', '/var/tmp', '/dev/shm', os.path.expanduser('~')):\n"
    "    try: open(place + '/injected', 'w').write('x')\n    except OSError: pass\n"
)

VECTORS: dict[str, Vector] = {
    "python sitecustomize beside the program": Vector("python", fixed(sitecustomize__py=PYTHON), works=False),
    "python sitecustomize on PYTHONPATH": Vector("python", fixed(sitecustomize__py=PYTHON), {"PYTHONPATH": "/box"}),
    "python usercustomize at home": Vector(
        "python",
        lambda version: {f"home/lib/python{version}/site-packages/usercustomize.py": PYTHON},
        {"PYTHONUSERBASE": "/box/home"},
    ),
    "python .pth at home": Vector(
        "python",
        lambda version: {f"home/lib/python{version}/site-packages/x.pth": "import os; print('injected')\n"},
        {"PYTHONUSERBASE": "/box/home"},
    ),
    "python .pth beside the program": Vector("python", fixed(x__pth="import os; print('injected')\n"), works=False),
    "python PYTHONSTARTUP": Vector("python", fixed(start__py=PYTHON), {"PYTHONSTARTUP": "/box/start.py"}, works=False),
    "python module in place of one of its own": Vector("python", fixed(os__py=PYTHON, encodings__py=PYTHON), works=False),
    "bash BASH_ENV": Vector("bash", fixed(start__sh="echo injected; echo x > /tmp/injected"), {"BASH_ENV": "/box/start.sh"}),
    "bash function": Vector("bash", fixed(), {"BASH_FUNC_echo%%": "() { builtin echo injected; }"}),
    "bash ENV": Vector("bash", fixed(start__sh="echo injected"), {"ENV": "/box/start.sh"}, works=False),
    "bash rc files": Vector(
        "bash", lambda _version: {".bashrc": "echo injected", ".profile": "echo injected"}, {"HOME": "/box"}, works=False
    ),
    "node NODE_OPTIONS": Vector(
        "javascript", fixed(start__js="console.log('injected')"), {"NODE_OPTIONS": "--require=/box/start.js"}
    ),
    "java JAVA_TOOL_OPTIONS": Vector("java", fixed(), {"JAVA_TOOL_OPTIONS": "-Dword=injected"}),
    "java JDK_JAVA_OPTIONS": Vector("java", fixed(), {"JDK_JAVA_OPTIONS": "-Dword=injected"}),
    "perl PERL5OPT": Vector("perl", fixed(Start__pm="print qq(injected\\n); 1;"), {"PERL5OPT": "-MStart", "PERL5LIB": "/box"}),
    "perl sitecustomize": Vector("perl", fixed(sitecustomize__pl="print qq(injected\\n);"), works=False),
    "ruby RUBYOPT": Vector("ruby", fixed(start__rb="puts 'injected'"), {"RUBYOPT": "-r/box/start.rb"}),
    "lua LUA_INIT": Vector("lua", fixed(start__lua="print('injected')"), {"LUA_INIT": "@/box/start.lua"}),
    "php ini": Vector(
        "php",
        lambda _version: {"php.ini": "auto_prepend_file=/box/start.php\n", "start.php": "<?php echo 'injected';"},
        {"PHPRC": "/box"},
    ),
    "awk AWKPATH": Vector("awk", fixed(), {"AWKPATH": "/box", "AWKLIBPATH": "/box"}, works=False),
}

PROGRAMS = {
    "python": ("main.py", "print('clean')\n"),
    "bash": ("main.sh", "echo clean\n"),
    "javascript": ("main.js", "console.log('clean')\n"),
    "java": (
        "Main.java",
        (
            "public class Main {\n    public static void main(String[] a) {\n"
            '        System.out.println(System.getProperty("word", "clean"));\n    }\n}\n'
        ),
    ),
    "perl": ("main.pl", 'print "clean\\n";\n'),
    "ruby": ("main.rb", "puts 'clean'\n"),
    "lua": ("main.lua", "print('clean')\n"),
    "php": ("main.php", '<?php echo "clean\\n";\n'),
    "awk": ("main.awk", 'BEGIN { print "clean" }\n'),
}


@pytest.mark.parametrize("name", VECTORS)
async def test_attack_42_startup_files_affect_only_their_own_run(workshop: Workshop, name: str) -> None:
    vector = VECTORS[name]
    version = ".".join(require(vector.language).version.split(".")[:2])
    main, code = PROGRAMS[vector.language]
    before = await workshop.run(vector.language, {main: code})
    assert printed(before) == b"clean\n"
    hostile = await workshop.run(vector.language, {main: code, **vector.files(version)}, env=vector.env)
    assert (MARK in shown(hostile)) == vector.works, shown(hostile)
    for _ in range(2):
        after = await workshop.run(vector.language, {main: code})
        assert printed(after) == b"clean\n"
        assert MARK not in shown(after)
    for place in ("/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~")):
        assert not os.path.lexists(f"{place}/injected"), "on the host"


LOADED = ["python", "bash", "perl", "javascript", "java", "c"]


@pytest.mark.parametrize("language", LOADED)
async def test_attack_42_library_before_all_others_is_loaded_by_the_job_and_nothing_else(
    workshop: Workshop, parasite: bytes, language: str
) -> None:
    main, code = {**PROGRAMS, "c": ("main.c", '#include <stdio.h>\nint main(void) { puts("clean"); }\n')}[language]
    name = {"javascript": "node", "c": "a.out"}.get(language, language)
    if language == "python":
        name = os.path.basename(require("python").run[0])
    # Process names are cut to fifteen letters.
    env = {"LD_PRELOAD": "/box/parasite.so", "PARASITE_IN": name[:15], "PARASITE_BEGIN": "echo injected $(id -u) >&2"}
    hostile = await workshop.run(language, {main: code, "parasite.so": parasite}, env=env)
    assert MARK in shown(hostile)
    assert b"injected 0\n" not in shown(hostile)
    assert b"first process" not in shown(hostile)
    after = await workshop.run(language, {main: code})
    assert printed(after) == b"clean\n"
    assert MARK not in shown(after)


@pytest.mark.parametrize(
    "variable", ["LD_AUDIT", "LD_LIBRARY_PATH", "LD_PROFILE_OUTPUT", "GCONV_PATH", "LD_DEBUG_OUTPUT", "GLIBC_TUNABLES"]
)
async def test_attack_42_loader_variables_leave_nothing(workshop: Workshop, parasite: bytes, variable: str) -> None:
    value = {"LD_AUDIT": "/box/parasite.so", "GLIBC_TUNABLES": "glibc.malloc.check=3"}.get(variable, "/tmp")
    files: dict[str, str | bytes] = {"main.sh": "echo clean\n", "parasite.so": parasite}
    result = await workshop.run("bash", files, env={variable: value, "LD_DEBUG": "all", "LD_PROFILE": "libc.so.6"})
    assert result.verdict in {Verdict.OK, Verdict.SIGNAL, Verdict.RUNTIME_ERROR}
    after = await workshop.run("bash", {"main.sh": "echo clean; ls -A /tmp\n"})
    assert printed(after) == b"clean\n"
