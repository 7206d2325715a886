"""Runtimes as data: a language at a version, and templates of its command lines."""

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
"""Default environment variables, below those of runtimes and jobs."""

WORD_PLACEHOLDERS = ("main", "base", "stem", "Stem", "memory_mb")
LIST_PLACEHOLDERS = ("sources", "others", "reversed", "siblings", "compile_args")
"""These expand to any number of words, so they must be words of their own."""
STEP_PLACEHOLDER = "other"
"""In a compile step: the step is repeated for each of the other sources."""

_WORD = re.compile(r"(?<![$%])\{(" + "|".join((*WORD_PLACEHOLDERS, STEP_PLACEHOLDER)) + r")\}")
_NO_FILE = re.compile(r"[-@+]|[A-Za-z_]\w*=", re.ASCII)
_EACH = re.compile(r"(?<![$%])\{" + STEP_PLACEHOLDER + r"\}")
_SEARCHED_BYTES = 64 << 10
_COMPILE_ARGUMENT = 512
"""Maximum length of one, in characters."""
_NAMELESS_EXTENSIONS = ("", ".code")
"""Extensions without meaning: Piston's clients send `file0.code` for a file without a name."""


class CompilerAhead(Struct, frozen=True, forbid_unknown_fields=True):
    """A compiler that can be prestarted."""

    hook: str
    """Its hook, one of `prestart.COMPILER_HOOKS`."""
    command: tuple[str, ...]
    """What to start; the hook's file is appended. `{memory_mb}` is the only placeholder."""


class Toolchain(Struct, frozen=True, kw_only=True):
    """How the programs of a language are compiled and run: what a definition and a runtime have in common.

    Words of `compile` and `run` are templates:

    | placeholder   | becomes                                                                             |
    | ------------- | ----------------------------------------------------------------------------------- |
    | `{main}`      | name of the main file                                                               |
    | `{base}`      | that without its extension, folder kept                                             |
    | `{stem}`      | that without its folder too                                                         |
    | `{Stem}`      | the stem with a capital first letter                                                |
    | `{sources}`   | every source file, main first; a word each                                          |
    | `{others}`    | all other sources that have one of the runtime's extensions; a word each            |
    | `{reversed}`  | the same in reverse order, for compilers that want definitions before their uses    |
    | `{siblings}`  | those in the folder of the main file; a word each                                   |
    | `{compile_args}` | the job's arguments of the compiler, in compile steps only; a word each             |
    | `{other}`     | one of the others: the compile step is repeated for each of them                    |
    | `{memory_mb}` | the stage's memory limit in MiB, or the machine's memory where there is no limit    |
    """

    language: str
    aliases: tuple[str, ...] = ()
    package: str | None = None
    """The toolchain, if its name differs from the language ("gcc")."""
    rank: int = 0
    """Among runtimes of one name the highest rank is selected, whatever its version."""
    extensions: tuple[str, ...]
    """With the dot; the first one is the default."""
    main_name: str
    """Name of the main file if the client gave none."""
    ahead: str = ""
    """The hook at which its program can be prestarted, "" for none; see `prestart.HOOKS`."""
    compile_ahead: CompilerAhead | None = None
    needs_extension: bool = False
    """True: the toolchain rejects source files with other extensions than `extensions`."""
    byte_order_mark: bool = False
    """True: the toolchain needs a byte order mark at the start of a source; otherwise it is removed."""
    name_pattern: str = ""
    """For toolchains that name the main file after something in it: a regular expression whose group 1 is the name."""
    compile: tuple[tuple[str, ...], ...] = ()
    """Steps, each a command line, all in one stage; empty: no compile stage."""
    compile_args: tuple[str, ...] = ()
    """Allowed arguments of the compiler: regular expressions, one of which must match the whole argument."""
    run: tuple[str, ...]
    run_with_others: tuple[str, ...] = ()
    """Used instead of `run` when there are other source files; empty: the same."""
    env: dict[str, str] = field(default_factory=dict[str, str])
    """For both stages, overriding the engine's variables."""
    compile_env: dict[str, str] = field(default_factory=dict[str, str])
    """For the compile stage, overriding `env`."""
    commands: dict[str, str] = field(default_factory=dict[str, str])
    """Commands for shells, and the programs they run. They are on PATH: a command that the host lacks becomes a symlink."""


class Runtime(Toolchain, frozen=True, kw_only=True):
    """A toolchain at a version, ready to run."""

    version: str
    """An exact SemVer."""
    extensions: tuple[str, ...] = ()
    compile_limits: LimitRequest = LimitRequest()
    """Limits for this language instead of the defaults; `LimitPolicy` decides."""
    run_limits: LimitRequest = LimitRequest()
    mounts: tuple[str, ...] = ()
    """Folders of the host to mount read-only besides the standard ones."""
    layers: tuple[str, ...] = ()
    """Of a packaged runtime: the layers of its root, topmost first: squashfs images or folders; absolute paths."""
    on_host: bool = True
    """True: the host's standard folders are shown, above `layers` if there are any."""
    installed: str = ""
    """Of a packaged runtime: its folder in the package store; "" for a runtime of the host."""
    cache: CacheLevel = "none"

    @property
    def names(self) -> tuple[str, ...]:
        """Return the language and its aliases."""
        return (self.language, *self.aliases)

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Return the names that settings may use for it, most specific first: `python-3.13.5` before `python`."""
        return tuple(name for name in (self.installed, self.package, *self.names) if name)

    @property
    def compiled(self) -> bool:
        return bool(self.compile)

    def environment(self, stage: StageName) -> dict[str, str]:
        """Return the environment variables of a stage."""
        return {**self.env, **self.compile_env} if stage == "compile" else dict(self.env)

    def limits(self, stage: StageName) -> LimitRequest:
        """Return this language's own defaults for a stage."""
        return self.compile_limits if stage == "compile" else self.run_limits

    def compile_commands(self, files: Sequence[str], memory_bytes: int, compile_args: Sequence[str] = ()) -> list[list[str]]:
        """Return the command lines of the compile stage, in order; none for an interpreted language.

        files: names of the source files, main first. memory_bytes: the stage's limit, 0 for none. compile_args: validated.
        """
        steps: list[list[str]] = []
        for template in self.compile:
            if _is_for_each(template):
                steps += [self._fill(template, files, memory_bytes, other, compile_args) for other in self._others(files)]
            else:
                steps.append(self._fill(template, files, memory_bytes, "", compile_args))
        return steps

    def has_compile_commands(self, files: Sequence[str]) -> bool:
        """Return whether `compile_commands` is not empty for these files."""
        return any(not _is_for_each(template) or self._others(files) for template in self.compile)

    def compile_ahead_command(self, memory_bytes: int) -> list[str]:
        """Return the command line of the prestarted compiler, without its hook; empty if there is none."""
        return self._fill(self.compile_ahead.command, (), memory_bytes) if self.compile_ahead is not None else []

    def run_command(self, files: Sequence[str], args: Sequence[str], memory_bytes: int) -> list[str]:
        """Return the command line of the run stage. Arguments as for `compile_commands`."""
        template = self.run_with_others if self.run_with_others and self._others(files) else self.run
        return [*self._fill(template, files, memory_bytes), *args]

    def check_compile_args(self, compile_args: Sequence[str]) -> None:
        """Check the job's arguments of the compiler. Raises: InvalidRequest."""
        if compile_args and not self.compile_args:
            raise InvalidRequest(f"{self.language} {self.version} has no compiler that takes arguments", where="compile_args")
        for index, word in enumerate(compile_args):
            if len(word) > _COMPILE_ARGUMENT or not any(re.fullmatch(allowed, word) for allowed in self.compile_args):
                raise InvalidRequest(
                    f"{word[:64]!r} is not an allowed argument of the compiler of {self.language}",
                    where=f"compile_args[{index}]",
                    hint="docs/reference/native-api.md lists them; an argument and its value are one word, as in -DNAME=1",
                )

    def place(self, files: Sequence[File]) -> tuple[File, ...]:
        """Rename source files as the toolchain requires, and remove byte order marks.

        Only some toolchains require it: javac wants a file named after its public class, others reject unknown extensions. A file
        whose new name is taken keeps its own.
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
        """Remove UTF-8 byte order marks from sources: some editors write them, and many toolchains fail on them."""
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
            # A client's file, searched outside of a sandbox: limited to what even a slow pattern gets through.
            match = re.search(self.name_pattern, file.content[:_SEARCHED_BYTES].decode(errors="replace"), re.MULTILINE)
            if match:
                base = (dirname(base) + "/" if dirname(base) else "") + match[1]
        return base + extension

    def _others(self, files: Sequence[str]) -> list[str]:
        return [_as_path(name) for name in files[1:] if splitext(name)[1] in self.extensions]

    def _fill(
        self, template: Sequence[str], files: Sequence[str], memory_bytes: int, other: str = "", compile_args: Sequence[str] = ()
    ) -> list[str]:
        main = _as_path(files[0]) if files else ""
        base = splitext(main)[0]
        stem = basename(base)
        one = {"main": main, "base": base, "stem": stem, "Stem": stem[:1].upper() + stem[1:]}
        one |= {"memory_mb": str(_memory_mb(memory_bytes)), STEP_PLACEHOLDER: other}
        words: list[str] = []
        for word in template:
            if "{" not in word:
                words.append(word)
            elif word[1:-1] in LIST_PLACEHOLDERS:
                words += self._several(word[1:-1], files, compile_args)
            else:
                words.append(_WORD.sub(lambda match: one[match[1]], word))
        return words

    def _several(self, placeholder: str, files: Sequence[str], compile_args: Sequence[str]) -> Sequence[str]:
        """Return the words of a placeholder of `LIST_PLACEHOLDERS`."""
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
    """Return a shell command line that runs the steps until one fails."""
    return " && ".join(map(shlex.join, steps))


def _is_for_each(template: Sequence[str]) -> bool:
    """Return whether a step is repeated for each of the other sources."""
    return any("{" in word and _EACH.search(word) for word in template)


def _as_path(name: str) -> str:
    """Return a path that no tool takes for an option (-x, +x), a file of options (@x) or an assignment (x=1, awk)."""
    return "./" + name if _NO_FILE.match(name) else name


def _memory_mb(memory_bytes: int) -> int:
    if memory_bytes == 0:
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, memory_bytes >> 20)
