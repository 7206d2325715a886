"""What can be started before a job comes: where interpreters and compilers wait, and for which jobs they are the right ones.

A hook is a small program in the interpreter's own language which that loads by itself at its start. It must leave no trace: a
program that was started ahead and one that was not cannot tell. Of a compiler the hook is the main program: it calls the
compiler in its own process, and whatever else the compile stage does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from firebox.runtimes.runtime import Runtime, shell_line
from firebox.sandbox.spec import HOOKS_FOLDER, RESUME_WORDS_BYTES, Prestart


class Hook(Struct, frozen=True):
    """name: of the file that the interpreter looks for; env: how it is made to. takes_args, preloads: whether it can be given
    arguments, and modules to load. has_template: whether the interpreter can be restored from one; the hook then draws new random
    numbers for each run. other_pid, draws: as of `Prestart`.

    Its text is `hooks/NAME.hook`. Without a name there is none: the program waits where it opens its main file.
    """

    name: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    takes_args: bool = True
    preloads: bool = True
    has_template: bool = False
    other_pid: bool = False
    draws: str = ""


_NODE_DRAWS = """
import("crypto").then(async (crypto) => {
  const vm = await import("vm");
  console.log(Math.random());
  console.log(vm.runInNewContext("Math.random()"));
  console.log(crypto.randomBytes(16).toString("hex"));
  console.log(crypto.generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" }).d);
});
"""

HOOKS: Mapping[str, Hook] = {
    "python": Hook("sitecustomize.py", {"PYTHONPATH": HOOKS_FOLDER}, has_template=True),
    "node": Hook(
        "wait.js", {"NODE_OPTIONS": f"--require {HOOKS_FOLDER}/wait.js"}, has_template=True, other_pid=True, draws=_NODE_DRAWS
    ),
    "perl": Hook("firebox_wait.pm", {"PERL5LIB": HOOKS_FOLDER, "PERL5OPT": "-Mfirebox_wait"}),
    "bash": Hook("wait.sh", {"BASH_ENV": f"{HOOKS_FOLDER}/wait.sh"}, takes_args=False, preloads=False),
    "ruby": Hook("wait.rb", {"RUBYOPT": f"-r{HOOKS_FOLDER}/wait.rb"}, has_template=True),
    "php": Hook(takes_args=False, preloads=False, has_template=True),
    "file": Hook(takes_args=False, preloads=False),
}

COMPILER_HOOKS: Mapping[str, str] = {"javac": "Javac.java"}
"""Name of a hook -> name of its file."""

PRELOAD = "FIREBOX_PRELOAD"
"""The variable that tells a hook which modules to load while it waits; the hook takes it away."""

_LIKE_OURS = (
    *(PRELOAD, "CLASSPATH", "JAVA_", "JDK_", "_JAVA_", "PYTHON", "NODE_", "PERL", "BASH_ENV"),
    *("RUBY", "GEM_", "BUNDLE", "XDG_DATA_HOME"),
)
"""Variables that begin so may change what a hook finds or how it is loaded."""
_HARMLESS = ("PYTHONDONTWRITEBYTECODE",)


_OF_THE_JOB = ("HOME", "LD_", "LOCPATH", "GCONV_PATH", "NLSPATH", "OPENSSL_", "SSL_", "XDG_")
"""Variables of a job that begin so may name files of its own, which are not there when a program is started ahead."""


def plan_ahead(
    runtime: Runtime,
    command: Sequence[str],
    args: Sequence[str],
    env: Mapping[str, str],
    modules: Sequence[str] = (),
    *,
    job_env: Iterable[str] = (),
    alone: bool = True,
    template: str | None = None,
) -> Prestart | None:
    """Say what to start so that it can go on as this command, told `args`; None when that must be a fresh start.

    command: ends with the main file, perhaps options, and then `args`. env: of the program, complete; job_env: names of those
    that the job brings. modules: loaded while it waits. alone: the main file is the job's only one. template: as of `Prestart`,
    where the interpreter can have one.
    """
    hook = HOOKS.get(runtime.ahead)
    if hook is None or (args and not hook.takes_args) or not _may_wait(args, env, job_env):
        return None
    if not hook.name and not alone:
        return None  # whatever such a program looks for at its start must be there, or not, in either case
    argv = tuple(command[: len(command) - len(args)])
    main = next((word for word in reversed(argv) if not word.startswith("-")), "/")
    if main.startswith("/"):
        return None
    preload = [(PRELOAD, " ".join(modules))] if modules and hook.preloads else []
    return Prestart(
        argv=argv,
        env=(*env.items(), *hook.env.items(), *preload),  # last, so that the others stay where they are when these go
        main=main,
        held=not hook.name,
        template=template if hook.has_template else None,
        other_pid=hook.other_pid,
        draws=hook.draws,
    )


def plan_compiler_ahead(
    runtime: Runtime, words: Sequence[str], env: Mapping[str, str], memory_bytes: int, *, job_env: Iterable[str] = ()
) -> Prestart | None:
    """Say what to start so that it can go on as a compile stage, told `words` (see `compile_words`); None for a fresh start.

    env, job_env: as of `plan_ahead`. memory_bytes: the stage's limit, 0 for none.
    """
    if runtime.compile_ahead is None or not _may_wait(words, env, job_env):
        return None
    argv = (*runtime.compile_ahead_command(memory_bytes), f"{HOOKS_FOLDER}/{COMPILER_HOOKS[runtime.compile_ahead.hook]}")
    return Prestart(argv=argv, env=tuple(env.items()))


def compile_words(steps: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Put a compile stage into words for a hook: a shell's command line of every step but the first, then the first as it is."""
    return (shell_line(steps[1:]), *steps[0])


def _may_wait(words: Sequence[str], env: Mapping[str, str], job_env: Iterable[str]) -> bool:
    """Tell whether nothing in the job keeps it from a program that waits."""
    if sum(len(word.encode(errors="replace")) + 1 for word in words) > RESUME_WORDS_BYTES:
        return False
    if any(name.startswith(_OF_THE_JOB) for name in job_env):
        return False
    return not any(name.startswith(_LIKE_OURS) and name not in _HARMLESS for name in env)


def hook_texts() -> dict[str, str]:
    """Read every hook: name of the file that the interpreter looks for -> text.

    That of Python is a text in another one, `python_start.hook`, which has it compiled in the right place.
    """
    folder = Path(__file__).parent / "hooks"
    files = {**{name: hook.name for name, hook in HOOKS.items() if hook.name}, **COMPILER_HOOKS}
    texts = {file: (folder / f"{name}.hook").read_text(encoding="utf-8") for name, file in files.items()}
    start = (folder / "python_start.hook").read_text(encoding="utf-8")
    return {**texts, HOOKS["python"].name: start.replace("TEXT", repr(texts[HOOKS["python"].name]))}
