"""Attacks 39, 40 and 41 on the compile stage: code in the compiler, modified programs and toolchains, poisoned caches."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from firebox.domain.limits import LimitRequest
from firebox.domain.model import Result, Verdict
from tests.attacks.conftest import ENDED, PATIENT, Open, Workshop, infested, printed, registry, require, shown
from tests.conftest import require_tool

NASM = """
global _start
section .text
_start: mov rax, 1
mov rdi, 1
mov rsi, m
mov rdx, 6
syscall
mov rax, 60
xor rdi, rdi
syscall
section .data
m: db 'hello', 10
"""
HELLO = {
    "c": ("main.c", '#include <stdio.h>\nint main(void) { puts("hello"); }\n'),
    "c++": ("main.cpp", '#include <cstdio>\nint main() { std::puts("hello"); }\n'),
    "rust": ("main.rs", 'fn main() { println!("hello"); }\n'),
    "java": ("Main.java", 'public class Main { public static void main(String[] a) { System.out.println("hello"); } }\n'),
    "typescript": ("main.ts", 'console.log("hello");\n'),
    "nasm64": ("main.asm", NASM),
}
COMPILERS = {"c": "gcc", "c++": "g++", "rust": "rustc", "java": "javac", "typescript": "sh", "nasm64": "nasm"}
"""The process names of these programs."""

LOOK_AROUND = r"""
echo "foreign code"
echo "user $(id -u) $(id -g) $(id -G)"
grep -E "^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status
echo "processes: $(ls /proc | grep -E '^[0-9]+$' | wc -l)"
cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\0' '\n' | sed 's/^/seen: /'
for each in $TARGETS /etc/shadow /root /var/lib/firebox; do
    [ -r "$each" ] && [ -n "$(cat "$each" 2>/dev/null || ls "$each" 2>/dev/null)" ] && echo "READ $each"
done
for each in /usr/bin/gcc /usr/bin/python3 /etc/passwd /proc/sys/kernel/core_pattern /proc/sysrq-trigger \
    /sys/kernel/uevent_helper /sys/fs/cgroup/cgroup.procs /usr/lib /usr/bin $TOOLS; do
    if [ -d "$each" ]; then touch "$each/left" 2>/dev/null && echo "WROTE $each/left"; else
        [ -e "$each" ] && { true >> "$each"; } 2>/dev/null && echo "WROTE $each"; fi
done
for each in /tmp /var/tmp /dev/shm /run /run/lock "$HOME" /var/lock /dev/mqueue /; do
    { echo left > "$each/left-behind"; } 2>/dev/null && echo "kept $each"
done
(setsid sleep 1000 > /dev/null 2>&1 &)
{ echo x > /dev/tcp/127.0.0.1/22; } 2>/dev/null && echo "REACHED the network"
true
"""
AFTERWARDS = r"""
for each in /tmp /var/tmp /dev/shm /run /run/lock "$HOME" /var/lock /dev/mqueue /; do
    [ -e "$each/left-behind" ] && echo "LEFT $each"
done
[ -e /tmp/.parasite ] && echo "LEFT parasite"
ls /proc | grep -E '^[0-9]+$' | while read -r pid; do
    tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -q sleep && echo "LEFT $pid"
done
echo over
"""


@pytest.mark.parametrize("language", HELLO)
async def test_attack_39_code_inside_a_compiler_is_in_the_sandbox_and_gone_with_it(
    workshop: Workshop, parasite: bytes, language: str
) -> None:
    runtime = require(language)
    main, code = HELLO[language]
    tools = sorted({word for step in runtime.compile for word in step if word.startswith("/")})
    targets = [workshop.secret_file, workshop.folder, Path(__file__), *workshop.folder.glob("data/*")]
    env = {
        **infested(COMPILERS[language], begin="sh /box/look.sh >&2"),
        "TARGETS": " ".join(map(str, targets)),
        "TOOLS": " ".join(tools),
    }
    files: dict[str, str | bytes] = {main: code, "look.sh": LOOK_AROUND, "parasite.so": parasite}
    result = await workshop.run(language, files, env=env)
    assert result.compile is not None
    said = result.compile.stderr.decode(errors="replace")
    assert "foreign code\n" in said, (shown(result), "the attack has to work to be worth anything")
    lines = said.splitlines()
    assert "parasite in the first process" not in said
    assert [line for line in lines if line.startswith(("READ", "WROTE", "REACHED"))] == []
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert (status["CapPrm"], status["CapEff"], status["NoNewPrivs"], status["Seccomp"]) == ("0" * 16, "0" * 16, "1", "2")
    assert not [line for line in lines if line.startswith("user ") and " 0" in line]
    assert "kept /tmp" in lines, "it has places of its own to write to"
    assert "FIREBOX_TEST_SECRET" not in said
    # Later stages of this job and other jobs find nothing of it.
    assert b"foreign code" not in (result.run.stdout + result.run.stderr if result.run else b"")
    after = await workshop.run("bash", {"main.sh": AFTERWARDS})
    assert printed(after) == b"over\n"
    clean = await workshop.run(language, {main: code})
    assert printed(clean) == b"hello\n"
    assert clean.compile is not None
    assert b"foreign code" not in clean.compile.stderr
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", "/"):
        assert not os.path.lexists(f"{place}/left-behind"), "on the host"


OUTPUTS = {
    "link to a file of the host": "ln -sf /etc/passwd /box/a.out",
    "link to a program": "ln -sf /bin/cat /box/a.out",
    "link out of the folder": "ln -sf ../../../../../../etc/shadow /box/a.out",
    "link to the environment": "ln -sf /proc/self/environ /box/a.out",
    "link to itself": "rm /box/a.out; ln -s a.out /box/a.out",
    "pipe": "rm /box/a.out; mkfifo /box/a.out",
    "socket": "rm /box/a.out; perl -MSocket -e 'socket S, PF_UNIX, SOCK_STREAM, 0; bind S, sockaddr_un(q(/box/a.out))'",
    "folder": "rm /box/a.out; mkdir -p /box/a.out/a.out",
    "nothing": "rm /box/a.out",
    "empty file": ": > /box/a.out",
    "text": "echo not a program > /box/a.out",
    "file without rights": "chmod 0 /box/a.out",
    "file with holes": "rm /box/a.out; truncate -s 200M /box/a.out",
    "linked folder": "mkdir /tmp/x; mv /box/* /tmp/x; ln -s /tmp/x/a.out /box/a.out",
}


@pytest.mark.parametrize("kind", OUTPUTS)
async def test_attack_39_what_a_compiler_leaves_instead_of_a_program_is_not_followed(
    workshop: Workshop, parasite: bytes, kind: str
) -> None:
    main, code = HELLO["c"]
    env = infested("gcc", end=OUTPUTS[kind])
    limits = LimitRequest(wall_ms=100_000, file_size_bytes=256 << 20, writable_bytes=256 << 20)
    result = await workshop.run("c", {main: code, "parasite.so": parasite}, env=env, compile_limits=limits, artifacts=("*",))
    assert result.compile is not None
    assert result.verdict is not Verdict.OK, shown(result)
    assert b"root:" not in shown(result)
    assert sum(len(file.content) for file in result.artifacts) <= 16 << 20
    assert printed(await workshop.run("c", {main: code})) == b"hello\n"


async def test_attack_39_program_with_set_user_id_stays_an_ordinary_one(workshop: Workshop, parasite: bytes) -> None:
    code = (
        '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("%d %d\\n", geteuid() == 0, geteuid() == getuid()); }\n'
    )
    env = infested("gcc", end="chmod 6777 /box/a.out")
    result = await workshop.run("c", {"main.c": code, "parasite.so": parasite}, env=env, artifacts=("a.out",))
    assert printed(result).splitlines()[-1] == b"0 1"


@pytest.mark.parametrize(
    ("language", "main", "code", "files"),
    [
        (
            "c",
            "main.c",
            '#include <stdio.h>\nint main(void) {\n#ifdef TAKEN\nputs("taken");\n#else\nputs("as it is");\n#endif\n}\n',
            {"-DTAKEN.c": "", "-include taken.c": "", "@options.c": "-DTAKEN", "-specs=taken.c": "*cc1:\n-DTAKEN\n"},
        ),
        (
            "c++",
            "main.cpp",
            '#include <cstdio>\nint main() {\n#ifdef TAKEN\nstd::puts("taken");\n#else\nstd::puts("as it is");\n#endif\n}\n',
            {"-DTAKEN.cpp": "", "@options.cpp": "-DTAKEN", "-fplugin=taken.cpp": "", "-wrapper=taken.cpp": ""},
        ),
        (
            "rust",
            "main.rs",
            'fn main() { println!("{}", if cfg!(taken) { "taken" } else { "as it is" }); }\n',
            {
                "build.rs": 'fn main() { println!("cargo:rustc-cfg=taken"); panic!("taken"); }',
                "Cargo.toml": '[package]\nname = "main"\nversion = "1.0.0"\nbuild = "build.rs"\n',
                ".cargo/config.toml": '[build]\nrustflags = ["--cfg", "taken"]\nrustc-wrapper = "/box/taken"\n',
                "rust-toolchain.toml": '[toolchain]\nchannel = "nightly-2020-01-01"\n',
                "@options.rs": "--cfg=taken",
            },
        ),
        (
            "java",
            "Main.java",
            'public class Main { public static void main(String[] a) { System.out.println("as it is"); } }\n',
            {
                "META-INF/services/javax.annotation.processing.Processor": "Taken",
                "Taken.java": "import java.util.*;\nimport javax.annotation.processing.*;\nimport javax.lang.model.element.*;\n"
                '@SupportedAnnotationTypes("*")\npublic class Taken extends AbstractProcessor {\n'
                '    static { System.err.println("taken"); }\n'
                "    public boolean process(Set<? extends TypeElement> t, RoundEnvironment e) { throw new Error(); }\n}\n",
                "@options.java": "-nonsense",
                "module-info.txt": "",
            },
        ),
        (
            "typescript",
            "main.ts",
            'console.log("as it is");\n',
            {
                "tsconfig.json": '{"compilerOptions": {"noEmit": true, "plugins": [{"name": "./taken"}]}, "extends": "./taken"}',
                "taken.js": 'console.error("taken");',
                "package.json": '{"type": "module", "scripts": {"prepare": "echo taken"}}',
                "@options.ts": "--noEmit",
            },
        ),
    ],
    ids=["c", "c++", "rust", "java", "typescript"],
)
async def test_attack_39_names_and_side_files_give_a_compiler_no_orders(
    workshop: Workshop, language: str, main: str, code: str, files: dict[str, str]
) -> None:
    for name, content in files.items():
        result = await workshop.run(language, {main: code, name: content})
        assert b"taken\n" not in shown(result), name
        if result.verdict is Verdict.OK:
            assert printed(result) == b"as it is\n", name
        else:
            assert result.verdict is Verdict.COMPILE_ERROR, (name, shown(result))
    together = {main: code} | {name: content for name, content in files.items() if not name.startswith(("-", "@"))}
    together.pop("package.json", None)
    assert printed(await workshop.run(language, together)) == b"as it is\n"


JAVA_PLUGIN = """
import com.sun.source.util.JavacTask;
import com.sun.source.util.Plugin;
import java.nio.file.*;

public class Taken implements Plugin {
    public String getName() { return "Taken"; }
    public void init(JavacTask task, String... words) {
        System.err.println("taken as " + System.getProperty("user.name"));
        for (String word : words) {
            try { System.err.println("READ " + Files.readString(Path.of(word))); } catch (Exception error) { }
        }
    }
    public static void main(String[] words) { }
}
"""


async def test_attack_39_plugin_asked_for_in_the_environment_is_in_the_sandbox(workshop: Workshop) -> None:
    """A client may control its own compiler by variables, which reaches nothing of others."""
    made = await workshop.run("java", {"Taken.java": JAVA_PLUGIN}, artifacts=("Taken.class",))
    [plugin] = [file.content for file in made.artifacts]
    main, code = HELLO["java"]
    files: dict[str, str | bytes] = {main: code, "Taken.class": plugin, "META-INF/services/com.sun.source.util.Plugin": "Taken\n"}
    wanted = f"{workshop.secret_file} /etc/shadow /proc/1/environ"
    env = {"JDK_JAVAC_OPTIONS": f'"-Xplugin:Taken {wanted}" --processor-path /box'}
    result = await workshop.run("java", files, env=env)
    assert result.compile is not None
    assert b"taken as firebox\n" in result.compile.stderr, shown(result)
    assert b"READ" not in result.compile.stderr
    clean = await workshop.run("java", {main: code})
    assert printed(clean) == b"hello\n"
    assert b"taken" not in shown(clean)


GO_NO_CODE = {
    "toolchain of the network": {"go.mod": "module m\n\ngo 1.99.9\n\ntoolchain go1.99.9\n"},
    "module of the network": {"main.go": 'package main\n\nimport _ "example.org/module"\n\nfunc main() {}\n'},
    "C": {"main.go": 'package main\n\n// #cgo CFLAGS: -fplugin=/box/taken.so\nimport "C"\n\nfunc main() {}\n'},
}


@pytest.mark.parametrize("kind", GO_NO_CODE)
async def test_attack_39_go_fetches_nothing_and_runs_no_c_compiler(workshop: Workshop, kind: str) -> None:
    files = {"main.go": "package main\n\nfunc main() {}\n"} | GO_NO_CODE[kind]
    result = await workshop.run("go", files)
    assert result.verdict is Verdict.COMPILE_ERROR
    assert result.run is None


@pytest.mark.slow
async def test_attack_39_go_runs_configured_programs_only_in_the_sandbox(workshop: Workshop) -> None:
    code = 'package main\n\n//go:generate sh -c "echo generated >&2"\n\nfunc main() { println("hello") }\n'
    files = {"main.go": code, "tool.sh": 'echo "tool $(id -u) $(cat /etc/shadow 2>&1)" >&2; exec "$@"\n'}
    result = await workshop.run("go", files, env={"GOFLAGS": '"-toolexec=/bin/sh /box/tool.sh"'})
    assert result.compile is not None
    assert b"generated" not in shown(result)
    assert b"tool 1000 cat: " in result.compile.stderr
    assert b"root:" not in shown(result)


# 40: programs and toolchains for the next run.

OVERWRITE = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static void spoil(const char *path) {
    int file = open(path, O_WRONLY);
    if (file >= 0 && write(file, "spoilt", 6) == 6) fprintf(stderr, "wrote %s\n", path);
    if (file >= 0) close(file);
    if (unlink(path) == 0) fprintf(stderr, "removed %s\n", path);
    if (chmod(path, 0777) == 0) fprintf(stderr, "opened %s\n", path);
}
int main(int count, char **words) {
    puts("hello");
    for (int each = 1; each < count; each++) spoil(words[each]);
    int file;
    unlink("/box/a.out");
    if ((file = open("/box/a.out", O_WRONLY | O_CREAT, 0755)) >= 0 && write(file, "#!/bin/sh\necho spoilt\n", 22) == 22)
        fprintf(stderr, "replaced itself\n");
}
"""


@pytest.mark.parametrize("cache", ["none", "binary", "output"])
async def test_attack_40_program_that_replaces_itself_is_there_again_next_time(workshop: Workshop, cache: str) -> None:
    levels: list[str] = []
    for _ in range(3):
        result = await workshop.run("c", {"main.c": OVERWRITE}, cache=cache)
        levels.append(result.cache)
        assert printed(result) == b"hello\n"
        assert b"replaced itself" in shown(result)
        await workshop.executor.cache.written()
    assert levels == ["none", cache, cache]


async def test_attack_40_toolchains_cannot_be_written_to(workshop: Workshop) -> None:
    tools = {word for language in HELLO for step in _steps(language) for word in step if word.startswith("/")}
    tools |= {
        str(Path(require_tool("gcc")).resolve()),
        "/usr/include/stdio.h",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/bin/python3",
        "/bin/sh",
    }
    before = {tool: _look(tool) for tool in tools}
    result = await workshop.run("c", {"main.c": OVERWRITE}, args=tuple(sorted(tools)))
    assert result.run is not None
    assert result.run.stderr == b"replaced itself\n"
    assert {tool: _look(tool) for tool in tools} == before


def _steps(language: str) -> list[tuple[str, ...]]:
    return [step for runtime in registry().all() if language in runtime.names for step in (*runtime.compile, runtime.run)]


def _look(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.S_IMODE(status.st_mode), status.st_size, status.st_mtime_ns


# 41: cached for one job and served to another.

ASKS: dict[str, tuple[str, str, str, str]] = {
    "c": ("main.c", '#include <stdio.h>\n#include "word.h"\nint main(void) { puts(WORD); }\n', "word.h", '#define WORD "{}"\n'),
    "c++": (
        "main.cpp",
        '#include <cstdio>\n#include "word.h"\nint main() { std::puts(WORD); }\n',
        "word.h",
        '#define WORD "{}"\n',
    ),
    "rust": ("main.rs", 'fn main() { println!("{}", include_str!("word.txt")); }\n', "word.txt", "{}"),
    "java": (
        "Main.java",
        "public class Main { public static void main(String[] a) { System.out.println(Word.WORD); } }\n",
        "Word.java",
        'class Word {{ static final String WORD = "{}"; }}\n',
    ),
    "nasm64": (
        "main.asm",
        HELLO["nasm64"][1].replace("'hello', 10", "WORD, 10").replace("global", '%include "word.inc"\nglobal'),
        "word.inc",
        "%define WORD '{}'\n",
    ),
}


async def _ask(workshop: Workshop, files: dict[str, Any], language: str = "c", **fields: Any) -> Result:
    result = await workshop.run(language, files, cache="binary", **fields)
    await workshop.executor.cache.written()
    return result


@pytest.mark.parametrize("language", ASKS)
async def test_attack_41_program_compiled_for_other_files_is_not_served(workshop: Workshop, language: str) -> None:
    main, code, name, template = ASKS[language]
    seen: list[tuple[bytes, str]] = []
    for word in ("first", "other", "first"):
        result = await _ask(workshop, {main: code, name: template.format(word)}, language)
        seen.append((printed(result).strip(), result.cache))
    assert seen == [(b"first", "none"), (b"other", "none"), (b"first", "binary")]


async def test_attack_41_program_compiled_with_other_variables_is_not_served(workshop: Workshop) -> None:
    main, code, _name, template = ASKS["c"]
    files: dict[str, Any] = {main: code, "a/word.h": template.format("first"), "b/word.h": template.format("other")}
    seen: list[tuple[bytes, str]] = []
    for folder in ("a", "b", "a"):
        result = await _ask(workshop, files, env={"CPATH": f"/box/{folder}"})
        seen.append((printed(result).strip(), result.cache))
    assert seen == [(b"first", "none"), (b"other", "none"), (b"first", "binary")]


async def test_attack_41_program_from_an_infected_compiler_is_served_to_its_owner_only(
    workshop: Workshop, parasite: bytes
) -> None:
    main, code = HELLO["c"]
    evil = "printf '#!/bin/sh\\necho spoilt\\n' > /box/a.out"
    infected = await _ask(workshop, {main: code, "parasite.so": parasite}, env=infested("gcc", end=evil))
    assert printed(infected) == b"spoilt\n"
    both: list[dict[str, str | bytes]] = [{main: code}, {main: code, "parasite.so": parasite}]
    for files in both:
        honest = await _ask(workshop, files)
        assert (printed(honest), honest.cache) == (b"hello\n", "none")
    again = await _ask(workshop, {main: code})
    assert (printed(again), again.cache) == (b"hello\n", "binary")


PRINTS_MACRO = '#include <stdio.h>\n#ifndef W\n#define W "none"\n#endif\nint main(void) { puts(W); }\n'


async def test_attack_41_files_cut_at_other_places_are_other_files(workshop: Workshop) -> None:
    """Inputs that are equal when simply concatenated."""
    define = '#define W "taken"\n'
    jobs: list[dict[str, Any]] = [
        {"main.c": define + PRINTS_MACRO},
        {"main.c": PRINTS_MACRO, "x.h": define},
        {"main.c": PRINTS_MACRO, "x.h" + define.strip().replace("/", ""): ""},
        {"main.c": PRINTS_MACRO + define},
        {"x.h": define, "main.c": PRINTS_MACRO},
        {"main.c": PRINTS_MACRO, "main.cx.h": define},
    ]
    seen = [await _ask(workshop, files) for files in jobs]
    assert [result.cache for result in seen] == ["none"] * len(jobs)
    assert [printed(result).strip() for result in seen] == [b"taken", *[b"none"] * (len(jobs) - 1)]


async def test_attack_41_what_a_tight_limit_refused_is_not_refused_to_others(workshop: Workshop) -> None:
    files: dict[str, Any] = {"main.cpp": '#include <iostream>\n#include <regex>\nint main() { std::cout << "hello\\n"; }\n'}
    tight = await _ask(workshop, files, "c++", compile_limits=LimitRequest(memory_bytes=24 << 20, wall_ms=8000))
    assert tight.verdict in ENDED
    stopped = await _ask(workshop, files, "c++", compile_limits=LimitRequest(wall_ms=20))
    assert stopped.verdict is Verdict.WALL_TIME
    roomy = await _ask(workshop, files, "c++", compile_limits=PATIENT)
    assert (printed(roomy), roomy.cache) == (b"hello\n", "none")
    assert (await _ask(workshop, files, "c++", compile_limits=PATIENT)).cache == "binary"


async def test_attack_41_languages_that_share_a_compiler_do_not_share_programs(workshop: Workshop) -> None:
    code = '#include <stdio.h>\nint main(void) { puts(sizeof(\'a\') == 1 ? "c++" : "c"); }\n'
    seen = [printed(await _ask(workshop, {"main.c": code}, language)).strip() for language in ("c", "c++", "c", "c++")]
    assert seen == [b"c", b"c++", b"c", b"c++"]


async def test_attack_41_jobs_cannot_reach_the_cache(workshop: Workshop, parasite: bytes) -> None:
    main, code = HELLO["c"]
    await _ask(workshop, {main: code})
    [entry] = [path for path in (workshop.folder / "data").rglob("*") if path.is_file() and path.stat().st_size > 4096]
    before = entry.read_bytes()
    assert stat.S_IMODE(entry.parent.stat().st_mode) == 0o700
    script = (
        f"ls -la {entry.parent} {entry} >&2; echo spoilt > {entry}; rm -rf {entry.parent}; find / -name '{entry.name}' >&2; true"
    )
    found = await workshop.run("c", {main: code, "parasite.so": parasite}, env=infested("gcc", begin=script))
    assert found.compile is not None
    assert b"No such file or directory" in found.compile.stderr
    assert f"\n{entry}".encode() not in found.compile.stderr
    assert entry.read_bytes() == before
    again = await _ask(workshop, {main: code})
    assert (printed(again), again.cache) == (b"hello\n", "binary")


async def test_attack_41_whole_results_are_cached_for_the_identical_job_only(open_workshop: Open) -> None:
    workshop = await open_workshop()
    files = {
        "main.py": "import os, sys\nprint(os.getenv('WHO'), sys.argv[1:], sys.stdin.read(), open('note').read())\n",
        "note": "a",
    }
    variants: list[dict[str, object]] = [
        {},
        {"args": ("x",)},
        {"stdin": b"x"},
        {"env": {"WHO": "x"}},
        {"args": ("x", "")},
        {"args": ("", "x")},
        {"files": files | {"note": "b"}},
    ]
    outputs: list[bytes] = []
    for variant in variants:
        given: dict[str, Any] = dict(variant)
        result = await workshop.run("python", given.pop("files", files), cache="output", **given)
        assert result.cache == "none"
        outputs.append(printed(result))
    assert len(set(outputs)) == len(variants)
