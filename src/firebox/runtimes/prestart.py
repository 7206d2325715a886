"""Prestarted interpreters and compilers: how they are started, and for which jobs they can be used.

A hook is a small program in the interpreter's own language, loaded by the interpreter at startup. It must leave no trace: a
program must not be able to tell whether it was prestarted. For a compiler the hook is the main program: it runs the compiler in
its own process, and then the rest of the compile stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from firebox.runtimes.runtime import Runtime, shell_line
from firebox.sandbox.spec import HOOKS_FOLDER, RESUME_WORDS_BYTES, Prestart


class Hook(Struct, frozen=True):
    """How an interpreter is prestarted.

    name: file name of the hook (`hooks/NAME.hook`), "" for none: the program then stops where it opens its main file. env: makes
    the interpreter load the hook. takes_args, preloads: whether a prestarted program can be given arguments, and modules to load.
    has_template: whether the interpreter can be restored from a template; the hook then reseeds random numbers for each run.
    other_pid, draws: as for `Prestart`.
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
"""File name by hook name."""

PRELOAD = "FIREBOX_PRELOAD"
"""The variable that tells a hook which modules to preload; the hook removes it."""

_LIKE_OURS = (
    *(PRELOAD, "CLASSPATH", "JAVA_", "JDK_", "_JAVA_", "PYTHON", "NODE_", "PERL", "BASH_ENV"),
    *("RUBY", "GEM_", "BUNDLE", "XDG_DATA_HOME"),
)
"""Prefixes of variables that may change what a hook finds or how it is loaded."""
_HARMLESS = ("PYTHONDONTWRITEBYTECODE",)


_OF_THE_JOB = ("HOME", "LD_", "LOCPATH", "GCONV_PATH", "NLSPATH", "OPENSSL_", "SSL_", "XDG_")
"""Prefixes of variables that may name files of the job, which do not exist yet when a program is prestarted."""


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
    """Return how to prestart a program that can continue as this command with `args`; None if only a fresh start will do.

    command: ends with the main file, perhaps options, and then `args`. env: the complete environment; job_env: names of the
    variables set by the job. modules: to preload. alone: the main file is the job's only file. template: as for `Prestart`, if
    the interpreter supports templates.
    """
    hook = HOOKS.get(runtime.ahead)
    if hook is None or (args and not hook.takes_args) or not _may_wait(args, env, job_env):
        return None
    if not hook.name and not alone:
        return None  # such a program looks for files at startup that the job may or may not have
    argv = tuple(command[: len(command) - len(args)])
    main = next((word for word in reversed(argv) if not word.startswith("-")), "/")
    if main.startswith("/"):
        return None
    preload = [(PRELOAD, " ".join(modules))] if modules and hook.preloads else []
    return Prestart(
        argv=argv,
        env=(*env.items(), *hook.env.items(), *preload),  # last, so that the others keep their places when these are removed
        main=main,
        held=not hook.name,
        template=template if hook.has_template else None,
        other_pid=hook.other_pid,
        draws=hook.draws,
    )


def plan_compiler_ahead(
    runtime: Runtime, words: Sequence[str], env: Mapping[str, str], memory_bytes: int, *, job_env: Iterable[str] = ()
) -> Prestart | None:
    """Return how to prestart a compiler that can continue with `words` (see `compile_words`); None if only a fresh start will do.

    env, job_env: as for `plan_ahead`. memory_bytes: the stage's limit, 0 for none.
    """
    if runtime.compile_ahead is None or not _may_wait(words, env, job_env):
        return None
    argv = (*runtime.compile_ahead_command(memory_bytes), f"{HOOKS_FOLDER}/{COMPILER_HOOKS[runtime.compile_ahead.hook]}")
    return Prestart(argv=argv, env=tuple(env.items()))


def compile_words(steps: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the words for a hook: a shell command line of all steps but the first, then the words of the first step."""
    return (shell_line(steps[1:]), *steps[0])


def _may_wait(words: Sequence[str], env: Mapping[str, str], job_env: Iterable[str]) -> bool:
    """Return whether nothing in the job rules out a prestarted program."""
    if sum(len(word.encode(errors="replace")) + 1 for word in words) > RESUME_WORDS_BYTES:
        return False
    if any(name.startswith(_OF_THE_JOB) for name in job_env):
        return False
    return not any(name.startswith(_LIKE_OURS) and name not in _HARMLESS for name in env)


def hook_texts() -> dict[str, str]:
    """Read every hook. Return texts by the file name that the interpreter looks for.

    Python's hook is embedded in another one, `python_start.hook`, which compiles it in the right place.
    """
    folder = Path(__file__).parent / "hooks"
    files = {**{name: hook.name for name, hook in HOOKS.items() if hook.name}, **COMPILER_HOOKS}
    texts = {file: (folder / f"{name}.hook").read_text(encoding="utf-8") for name, file in files.items()}
    start = (folder / "python_start.hook").read_text(encoding="utf-8")
    return {**texts, HOOKS["python"].name: start.replace("TEXT", repr(texts[HOOKS["python"].name]))}
