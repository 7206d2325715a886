"""One-time preparation of toolchains that are slow without it, such as Go's compiled standard library."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, field

from firebox.runtimes.definition import Definition, fill
from firebox.runtimes.host_folders import UnusableToolError, check_may_be_shown
from firebox.sandbox.plan.mounts import shown_at

PREPARED = "prepared"
"""The subfolder of the data folder that is shown to programs."""
PREPARATION_TIMEOUT_S = 600.0
_UNTIL_INPUT_ENDS = """
exec 3<&0
(read -r line <&3; kill -KILL 0) &
"$@" </dev/null 3<&-
status=$?
kill $!
exit $status
"""
"""Runs a command, and kills its process group when the other end of its input is closed, even if by a crash of the server."""


class Preparation(Struct, frozen=True):
    """Commands that fill a folder. They run on the host with the operator's toolchain, and never use clients' files."""

    language: str
    version: str
    folder: Path
    commands: tuple[tuple[str, ...], ...]
    files: dict[str, str] = field(default_factory=dict[str, str])
    path: str = os.defpath
    first: bool = False
    """Prepare before the first program, as set in the definition."""

    @property
    def done(self) -> bool:
        return self.folder.is_dir()

    @property
    def shown_at(self) -> str:
        """Return the path that programs see."""
        return shown_at(str(self.folder))

    def execute(self) -> str:
        """Run the commands. Return "" or an error message. The folder appears atomically.

        Commands run in a folder that contains `files`; the variable PREPARED names the folder to fill.
        """
        if self.done:
            return ""
        import shutil  # rarely needed
        import tempfile

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._sweep()
        parent, prefix = self.folder.parent, f".{self.folder.name}."
        # A server that ends meanwhile cleans up as far as possible; the next one removes the rest.
        with tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True) as work:
            target = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
            target.chmod(0o755)
            try:
                for name, content in self.files.items():
                    Path(work, name).write_text(content, encoding="utf-8")
                for command in self.commands:
                    problem = self._run(command, work, target)
                    if problem:
                        return problem
                _let_all_read(target)
                with contextlib.suppress(OSError):  # another process was faster
                    target.rename(self.folder)
            finally:
                shutil.rmtree(target, ignore_errors=True)
        return ""

    def _sweep(self) -> None:
        """Remove what a killed server left behind."""
        import shutil

        for left in self.folder.parent.glob(f".{self.folder.name}.*"):
            with contextlib.suppress(OSError):
                if left.stat().st_mtime < time.time() - PREPARATION_TIMEOUT_S:
                    shutil.rmtree(left)

    def _run(self, command: tuple[str, ...], work: str, target: Path) -> str:
        import shutil
        import subprocess

        environment = {"PATH": self.path, "HOME": work, "TMPDIR": work, "LANG": "C.UTF-8", "PREPARED": str(target)}
        words = ["/bin/sh", "-c", _UNTIL_INPUT_ENDS, "sh", *(word.replace(str(self.folder), str(target)) for word in command)]
        if shutil.which("nice", path=self.path):
            words = ["nice", "-n", "10", *words]  # runs have priority
        watched, held = os.pipe()
        try:
            done = subprocess.run(
                words,
                cwd=work,
                env=environment,
                stdin=watched,
                capture_output=True,
                check=False,
                timeout=PREPARATION_TIMEOUT_S,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return f"preparing {self.language} {self.version}: {command[0]} takes more than {PREPARATION_TIMEOUT_S:g} s"
        except OSError as error:
            return f"preparing {self.language} {self.version}: {error}"
        finally:
            os.close(watched)
            os.close(held)
        if done.returncode == 0:
            return ""
        words_of_tool = done.stderr.decode(errors="replace").strip()[-200:]
        return f"preparing {self.language} {self.version}: {command[0]} exits with {done.returncode}: {words_of_tool}"


class Unprepared(Struct, frozen=True):
    """A toolchain that stays slow. reason: a message."""

    language: str
    version: str
    reason: str


def _let_all_read(folder: Path) -> None:
    """Make everything readable for the users that programs run as, whatever the umask."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def _state(file: str) -> tuple[int, int]:
    """Return a key that changes when a file is replaced."""
    try:
        status = Path(file).stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def plan_preparation(
    definition: Definition, version: str, values: Mapping[str, str], *, path: str, data_folder: Path
) -> Preparation | Unprepared:
    """Plan the preparation of a toolchain, and create the folder for prepared toolchains.

    Return Unprepared if `data_folder` is not writable or cannot be shown to programs: they then run without, more slowly.
    Every recipe and every build of the tool has a folder of its own. values: placeholders.
    """
    state = [_state(file) for file in (values["tool"], *definition.prepare_follows)]
    recipe = hashlib.sha256(msgspec.json.encode([definition.prepare, definition.prepare_files, state])).hexdigest()[:8]
    folder = data_folder.resolve() / PREPARED / f"{definition.language}-{version}-{recipe}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_may_be_shown(folder.parent)
    except (UnusableToolError, OSError) as error:
        reason = f"nothing can be prepared for {definition.language} {version}: {error}; set data_dir to another folder"
        return Unprepared(definition.language, version, reason)
    filled = {**values, "prepared": str(folder)}
    commands = tuple(tuple(fill(word, filled) for word in step) for step in definition.prepare)
    return Preparation(definition.language, version, folder, commands, definition.prepare_files, path, definition.prepare_first)
