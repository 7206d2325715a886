"""Validation of jobs, independent of protocols. The engine checks limits against the operator's maxima."""

from __future__ import annotations

from collections.abc import Sequence

from firebox.domain.errors import InvalidRequest
from firebox.domain.limits import check_limits
from firebox.domain.model import File, Job, Terminal

MAX_FILES = 5000
MAX_SELECTOR_CHARACTERS = 256
MAX_NAME_BYTES = 4096
"""Source: path_resolution(7), PATH_MAX."""
MAX_COMPONENT_BYTES = 255
"""Source: path_resolution(7), NAME_MAX."""
MAX_DEPTH = 32
MAX_WORD_BYTES = 128 * 1024 - 1
"""Maximum size of an argument, a variable or a command. Source: execve(2), MAX_ARG_STRLEN."""
MAX_WORDS = 10_000
"""Maximum number of arguments, and of variables."""
MAX_WORDS_BYTES = 1024 * 1024
"""Maximum size of all arguments and variables: half of what Linux allows with the usual 8 MiB of stack; the runtime's own
variables need the rest. Source: execve(2), "Limits on size of arguments and environment"."""
MAX_COMPILE_ARGS = 100
MAX_ARTIFACT_GLOBS = 100
MAX_GLOBS_BYTES = 16 * 1024
MAX_TERMINAL = 1000


def check_job(job: Job) -> None:
    """Check that a job can be carried out. Raises: InvalidRequest; `where` is the field as in `model.Job` ("files[2].name")."""
    check_selector(job.language, job.version)
    check_files(job.files)
    if not job.command and not any(file.source for file in job.files):
        raise InvalidRequest("there is no source file to run", where="files", hint="send at least one file with code")
    check_words(job.args, job.env, job.command)
    check_count(len(job.compile_args), allowed=MAX_COMPILE_ARGS, what="arguments", where="compile_args")
    for index, word in enumerate(job.compile_args):
        check_word(word, where=f"compile_args[{index}]")
    check_globs(job.artifacts)
    check_limits("compile", job.compile_limits)
    check_limits("run", job.run_limits)
    if job.terminal is not None:
        check_terminal(job.terminal)


def check_selector(language: str, version: str) -> None:
    """Check language and version before they are looked up. Raises: InvalidRequest."""
    for where, text in (("language", language), ("version", version)):
        encode_text(text, where=where)
        if len(text) > MAX_SELECTOR_CHARACTERS:
            raise InvalidRequest(f"longer than {MAX_SELECTOR_CHARACTERS} characters", where=where)
    if not language.strip():
        raise InvalidRequest("the name of a language is required", where="language")


def encode_text(text: str, *, where: str) -> bytes:
    """Return the text as UTF-8 bytes. Raises: InvalidRequest for a lone surrogate, which JSON can contain and UTF-8 cannot."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code_point = f"U+{ord(text[error.start]):04X}"
        raise InvalidRequest(f"a lone surrogate ({code_point}) at character {error.start}", where=where) from None


def check_count(count: int, *, allowed: int, what: str, where: str) -> None:
    """Check a count before the items themselves. Raises: InvalidRequest."""
    if count > allowed:
        raise InvalidRequest(f"{count} {what}, at most {allowed} are allowed", where=where)


def check_word(text: str, *, where: str) -> int:
    """Return the size in bytes of a word. Raises: InvalidRequest for a NUL, a lone surrogate, or more than the kernel allows."""
    size_bytes = len(encode_text(text, where=where))
    if "\0" in text:
        raise InvalidRequest("a NUL character", where=where, hint="the kernel ends every argument at the first NUL")
    if size_bytes > MAX_WORD_BYTES:
        raise InvalidRequest(
            f"{size_bytes} bytes, at most {MAX_WORD_BYTES} are possible", where=where, hint="use stdin or a file"
        )
    return size_bytes


def check_words(args: Sequence[str], env: dict[str, str], command: str) -> None:
    """Check that the kernel can pass arguments, variables and command to a program. Raises: InvalidRequest."""
    check_count(len(args), allowed=MAX_WORDS, what="arguments", where="args")
    check_count(len(env), allowed=MAX_WORDS, what="variables", where="env")
    total_bytes = check_word(command, where="command")
    # Each word takes its bytes, a NUL and a pointer.
    for index, word in enumerate(args):
        total_bytes += check_word(word, where=f"args[{index}]") + 9
    for name, value in env.items():
        encode_text(name, where="env")
        if not name or "=" in name or "\0" in name:
            raise InvalidRequest(f"{name[:64]!r} is not a valid variable name", where="env")
        total_bytes += check_word(f"{name}={value}", where=f"env.{name[:64]}") + 9
    if total_bytes > MAX_WORDS_BYTES:
        raise InvalidRequest(
            f"arguments and variables take {total_bytes} bytes, at most {MAX_WORDS_BYTES} are possible",
            where="args",
            hint="use stdin or a file",
        )


def check_files(files: tuple[File, ...]) -> None:
    """Reject names that leave the folder, are repeated, or are both a file and a folder. Raises: InvalidRequest."""
    check_count(len(files), allowed=MAX_FILES, what="files", where="files")
    places: dict[str, int] = {}
    for index, file in enumerate(files):
        where = f"files[{index}].name"
        check_file_name(file.name, where=where)
        if file.name in places:
            raise InvalidRequest(f"{file.name[:64]!r} is also the name of files[{places[file.name]}]", where=where)
        places[file.name] = index
    for name, index in places.items():
        folder = name
        while folder := folder.rpartition("/")[0]:
            if folder in places:
                raise InvalidRequest(
                    f"{folder[:64]!r} is a folder here and a file in files[{places[folder]}]", where=f"files[{index}].name"
                )


def check_file_name(name: str, *, where: str) -> None:
    """Check that a file name lies inside the folder of the job.

    Raises: InvalidRequest for absolute names, `.` and `..` components, empty components, a trailing slash, backslashes,
    NUL, lone surrogates, and names longer or deeper than a file system allows.
    """
    size_bytes = len(encode_text(name, where=where))
    if not name:
        raise InvalidRequest("the name is empty", where=where)
    if "\0" in name:
        raise InvalidRequest("a NUL character", where=where)
    if "\\" in name:
        raise InvalidRequest(f"{name[:64]!r} contains a backslash", where=where, hint="folders are separated by /")
    if name.startswith("/"):
        raise InvalidRequest(f"{name[:64]!r} is absolute", where=where, hint="names are relative to the job's folder")
    if name.endswith("/"):
        raise InvalidRequest(f"{name[:64]!r} ends in a slash: it names a folder", where=where)
    if size_bytes > MAX_NAME_BYTES:
        raise InvalidRequest(f"{size_bytes} bytes, at most {MAX_NAME_BYTES} are possible", where=where)
    components = name.split("/")
    if len(components) > MAX_DEPTH:
        raise InvalidRequest(f"{len(components)} folders deep, at most {MAX_DEPTH} are allowed", where=where)
    for component in components:
        if component in {"", ".", ".."}:
            raise InvalidRequest(f"{name[:64]!r} has the component {component!r}", where=where)
        if size_bytes > MAX_COMPONENT_BYTES and len(component.encode()) > MAX_COMPONENT_BYTES:
            raise InvalidRequest(f"a component is longer than {MAX_COMPONENT_BYTES} bytes", where=where)


def check_globs(globs: tuple[str, ...]) -> None:
    """Reject artifact patterns that reach outside of the job's folder. Raises: InvalidRequest."""
    check_count(len(globs), allowed=MAX_ARTIFACT_GLOBS, what="patterns", where="artifacts")
    for index, pattern in enumerate(globs):
        check_file_name(pattern, where=f"artifacts[{index}]")
    total_bytes = sum(len(pattern.encode()) for pattern in globs)
    if total_bytes > MAX_GLOBS_BYTES:
        raise InvalidRequest(f"{total_bytes} bytes of patterns, at most {MAX_GLOBS_BYTES} are allowed", where="artifacts")


def check_terminal(terminal: Terminal) -> None:
    """Reject a terminal without rows or columns, or larger than any screen. Raises: InvalidRequest."""
    for name, value in (("rows", terminal.rows), ("columns", terminal.columns)):
        if not 1 <= value <= MAX_TERMINAL:
            raise InvalidRequest(f"{value}, allowed: 1 to {MAX_TERMINAL}", where=f"terminal.{name}")
