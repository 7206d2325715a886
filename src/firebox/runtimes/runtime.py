"""A runtime: a language at a version, as data; and how its templates become command lines."""

from __future__ import annotations

import os
import re
import shlex
from codecs import BOM_UTF8
from collections.abc import Sequence
from posixpath import basename, dirname, splitext

from msgspec import Struct, field

from firebox.domain.errors import InvalidRequest
from firebox.domain.limits import LimitRequest, StageName
from firebox.domain.model import CacheLevel, File
from firebox.sandbox.plan.mounts import HOME

BASE_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": HOME,
    "USER": "firebox",
    "LOGNAME": "firebox",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "TMPDIR": "/tmp",  # noqa: S108 - the sandbox's own
}
"""What a program finds when neither its runtime nor its job says otherwise."""

WORD_PLACEHOLDERS = ("main", "base", "stem", "Stem", "memory_mb")
LIST_PLACEHOLDERS = ("sources", "others", "reversed", "siblings", "compile_args")
"""These stand for any number of words, so they must be a word of their own."""
STEP_PLACEHOLDER = "other"
"""In a compile step: the step is taken once for each of the others, and not at all where there are none."""

_WORD = re.compile(r"(?<![$%])\{(" + "|".join((*WORD_PLACEHOLDERS, STEP_PLACEHOLDER)) + r")\}")
_NO_FILE = re.compile(r"[-@+]|[A-Za-z_]\w*=", re.ASCII)
_EACH = re.compile(r"(?<![$%])\{" + STEP_PLACEHOLDER + r"\}")
_SEARCHED_BYTES = 64 << 10
_COMPILE_ARGUMENT = 512
"""Characters of one at most."""
_NAMELESS_EXTENSIONS = ("", ".code")
"""Endings that say nothing about a language: Piston's clients send `file0.code` for a file without a name."""


class CompilerAhead(Struct, frozen=True, forbid_unknown_fields=True):
    """A compiler that can wait for a job."""

    hook: str
    """Which of `ahead.COMPILER_HOOKS` calls it."""
    command: tuple[str, ...]
    """What is started; the hook's file comes after it. Of the placeholders only `{memory_mb}`."""


class Runtime(Struct, frozen=True, kw_only=True):
    """A language at a version, ready to run.

    Words of `compile` and `run` are templates:

    | placeholder   | becomes                                                                             |
    | ------------- | ----------------------------------------------------------------------------------- |
    | `{main}`      | name of the main file                                                               |
    | `{base}`      | that without its extension, folder kept                                             |
    | `{stem}`      | that without its folder too                                                         |
    | `{Stem}`      | the stem with a capital first letter                                                |
    | `{sources}`   | every source file, main first; a word each                                          |
    | `{others}`    | the sources except main that have one of the runtime's extensions; a word each      |
    | `{reversed}`  | the same in reverse order, for compilers that want what is used before its user     |
    | `{siblings}`  | those of them that lie in main's folder; a word each                                |
    | `{compile_args}` | arguments of the compiler that the job asks for, in compile steps only; a word each   |
    | `{other}`     | one of the others: the compile step is taken once for each, and not at all for none |
    | `{memory_mb}` | the stage's memory limit in MiB, or the machine's memory where there is no limit    |
    """

    language: str
    version: str
    """An exact SemVer."""
    aliases: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    """With the dot; the first one is the usual one."""
    main_name: str
    """Name of the main file when the client gave none."""
    compile: tuple[tuple[str, ...], ...] = ()
    """Steps, each a command line, all in one stage; empty: nothing to compile."""
    compile_args: tuple[str, ...] = ()
    """Which arguments a job may give to the compiler: regular expressions, of which one matches the whole argument."""
    run: tuple[str, ...]
    run_with_others: tuple[str, ...] = ()
    """What is run instead where there are other source files; empty: the same."""
    env: dict[str, str] = field(default_factory=dict[str, str])
    """For both stages, above the engine's own variables."""
    compile_env: dict[str, str] = field(default_factory=dict[str, str])
    """For the compile stage, above `env`."""
    compile_limits: LimitRequest = LimitRequest()
    """What this language asks for instead of the defaults; `LimitPolicy` decides."""
    run_limits: LimitRequest = LimitRequest()
    mounts: tuple[str, ...] = ()
    """Folders of the host to be shown read-only besides the standard ones."""
    layers: tuple[str, ...] = ()
    """Of a packaged runtime: what its root is stacked from, topmost first: squashfs images, or folders; absolute paths."""
    on_host: bool = True
    """True: the host's own standard folders are shown, above `layers` if there are any."""
    installed: str = ""
    """Of a packaged runtime: the folder in the package store that it comes from; "" for one of the host's."""
    package: str | None = None
    """The toolchain that brings it, where that has another name than the language ("gcc")."""
    rank: int = 0
    """Among runtimes of one name the highest rank is meant, whatever its version."""
    cache: CacheLevel = "none"
    ahead: str = ""
    """The hook at which its program can wait for a job, "" for none; see `prestart.HOOKS`."""
    compile_ahead: CompilerAhead | None = None
    needs_extension: bool = False
    """True: the toolchain refuses a source file that has none of `extensions`."""
    byte_order_mark: bool = False
    """True: a byte order mark at the start of a source means something to the toolchain; else it is taken away."""
    name_pattern: str = ""
    """Where the toolchain wants the main file named after something in it: a regular expression with that as group 1."""
    commands: dict[str, str] = field(default_factory=dict[str, str])
    """Names that people type in a shell, and the program that each one means. They are on PATH."""

    @property
    def names(self) -> tuple[str, ...]:
        """The language and its aliases."""
        return (self.language, *self.aliases)

    @property
    def setting_names(self) -> tuple[str, ...]:
        """What settings for single languages and packages may call it, the most exact first: `python-3.13.5` before `python`."""
        return tuple(name for name in (self.installed, self.package, *self.names) if name)

    @property
    def compiled(self) -> bool:
        return bool(self.compile)

    def environment(self, stage: StageName) -> dict[str, str]:
        """Give the variables of a stage."""
        return {**self.env, **self.compile_env} if stage == "compile" else dict(self.env)

    def limits(self, stage: StageName) -> LimitRequest:
        """Give what this language wants instead of a stage's usual limits."""
        return self.compile_limits if stage == "compile" else self.run_limits

    def compile_commands(self, files: Sequence[str], memory_bytes: int, compile_args: Sequence[str] = ()) -> list[list[str]]:
        """Give the command lines of the compile stage, in order; none for an interpreted language.

        files: names of the source files, main first. memory_bytes: the stage's limit, 0 for none. compile_args: checked already.
        """
        steps: list[list[str]] = []
        for template in self.compile:
            if _is_for_each(template):
                steps += [self._fill(template, files, memory_bytes, other, compile_args) for other in self._others(files)]
            else:
                steps.append(self._fill(template, files, memory_bytes, "", compile_args))
        return steps

    def has_compile_commands(self, files: Sequence[str]) -> bool:
        """Tell whether `compile_commands` gives any for these files."""
        return any(not _is_for_each(template) or self._others(files) for template in self.compile)

    def compile_ahead_command(self, memory_bytes: int) -> list[str]:
        """Give the command line of the compiler that waits, without its hook; none where there is none."""
        return self._fill(self.compile_ahead.command, (), memory_bytes) if self.compile_ahead is not None else []

    def run_command(self, files: Sequence[str], args: Sequence[str], memory_bytes: int) -> list[str]:
        """Give the command line of the run stage. Arguments as of `compile_commands`."""
        template = self.run_with_others if self.run_with_others and self._others(files) else self.run
        return [*self._fill(template, files, memory_bytes), *args]

    def check_compile_args(self, compile_args: Sequence[str]) -> None:
        """Refuse arguments of the compiler that this runtime does not allow. Raises: InvalidRequest."""
        if compile_args and not self.compile_args:
            raise InvalidRequest(f"{self.language} {self.version} takes no arguments for a compiler", where="compile_args")
        for index, word in enumerate(compile_args):
            if len(word) > _COMPILE_ARGUMENT or not any(re.fullmatch(allowed, word) for allowed in self.compile_args):
                raise InvalidRequest(
                    f"{word[:64]!r} is not among the arguments that may be given to the compiler of {self.language}",
                    where=f"compile_args[{index}]",
                    hint="docs/native-api.md lists them; an argument and its value are one word, as in -DNAME=1",
                )

    def place(self, files: Sequence[File]) -> tuple[File, ...]:
        """Give every source file the name that the toolchain insists on, and take byte order marks away.

        Only some do: javac wants a file named after its public class, others refuse a strange extension. A name that is
        taken already is left as it was.
        """
        if not self.byte_order_mark:
            files = self._without_marks(files)
        if not (self.needs_extension or self.name_pattern) or not self.extensions:
            return tuple(files)
        taken = {file.name for file in files}
        placed: list[File] = []
        main_seen = False
        for file in files:
            name = file.name
            if file.source and (not main_seen or splitext(name)[1] in _NAMELESS_EXTENSIONS):
                name = self._source_name(file)
                main_seen = True
            if name != file.name and name not in taken:
                taken = taken - {file.name} | {name}
                placed.append(File(name, file.content, file.source))
            else:
                placed.append(file)
        return tuple(placed)

    def _without_marks(self, files: Sequence[File]) -> Sequence[File]:
        """Take the UTF-8 byte order mark from sources: many toolchains stumble over it, and some editors write it."""
        if not any(file.source and file.content.startswith(BOM_UTF8) for file in files):
            return files
        main = next(file for file in files if file.source)
        return [
            File(file.name, file.content.removeprefix(BOM_UTF8))
            if file is main or (file.source and splitext(file.name)[1] in self.extensions)
            else file
            for file in files
        ]

    def _source_name(self, file: File) -> str:
        base, extension = splitext(file.name)
        if extension not in self.extensions:
            base = base if extension in _NAMELESS_EXTENSIONS else file.name
            extension = self.extensions[0]
        if self.name_pattern:
            # A client's file, searched outside of any sandbox: only as much of it as even a slow pattern gets through.
            match = re.search(self.name_pattern, file.content[:_SEARCHED_BYTES].decode(errors="replace"), re.MULTILINE)
            if match:
                base = (dirname(base) + "/" if dirname(base) else "") + match[1]
        return base + extension

    def _others(self, files: Sequence[str]) -> list[str]:
        return [_as_path(name) for name in files[1:] if splitext(name)[1] in self.extensions]

    def _fill(
        self,
        template: Sequence[str],
        files: Sequence[str],
        memory_bytes: int,
        other: str = "",
        compile_args: Sequence[str] = (),
    ) -> list[str]:
        words: list[str] = []
        for word in template:
            if "{" not in word:
                words.append(word)
            elif word[1:-1] in LIST_PLACEHOLDERS:
                words += self._several(word[1:-1], files, compile_args)
            else:
                words.append(_WORD.sub(lambda match: self._one(match[1], files, memory_bytes, other), word))
        return words

    def _one(self, placeholder: str, files: Sequence[str], memory_bytes: int, other: str) -> str:
        """Give what a placeholder of `WORD_PLACEHOLDERS` stands for, or `{other}`."""
        main = _as_path(files[0]) if files else ""
        base = splitext(main)[0]
        stem = basename(base)
        match placeholder:
            case "main":
                return main
            case "base":
                return base
            case "stem":
                return stem
            case "Stem":
                return stem[:1].upper() + stem[1:]
            case "memory_mb":
                return str(_memory_mb(memory_bytes))
            case _:
                return other

    def _several(self, placeholder: str, files: Sequence[str], compile_args: Sequence[str]) -> Sequence[str]:
        """Give the words that a placeholder of `LIST_PLACEHOLDERS` stands for."""
        match placeholder:
            case "sources":
                return [_as_path(name) for name in files]
            case "compile_args":
                return compile_args
            case "reversed":
                return self._others(files)[::-1]
            case "siblings":
                return [name for name in self._others(files) if dirname(name) == dirname(_as_path(files[0]))]
            case _:
                return self._others(files)


def shell_line(steps: Sequence[Sequence[str]]) -> str:
    """Give a shell's command line that takes steps in order until one fails."""
    return " && ".join(map(shlex.join, steps))


def _is_for_each(template: Sequence[str]) -> bool:
    """Tell whether a step is taken for each of the other sources."""
    return any("{" in word and _EACH.search(word) for word in template)


def _as_path(name: str) -> str:
    """Return a file name that no program takes for an option (-x, +x), a file of options (@x) or an assignment (x=1, awk)."""
    return "./" + name if _NO_FILE.match(name) else name


def _memory_mb(memory_bytes: int) -> int:
    if memory_bytes == 0:
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, memory_bytes >> 20)
