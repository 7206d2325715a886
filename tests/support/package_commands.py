"""`firebox packages` on a data folder of its own, beside a repository that is a folder of real packages."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.command import Command
from tests.support.package_folder import PackageFolder
from tests.support.server import environment, run_firebox, unused_uid_base

Done = subprocess.CompletedProcess[str]


class PackageCommands:
    """Runs the real command. repository: what `main` is; "" for no repository at all."""

    def __init__(self, data: Path, repository: str = "") -> None:
        self.data = data
        self.env: dict[str, str] = {
            "FIREBOX_DATA_DIR": str(data),
            "FIREBOX_UID_BASE": str(unused_uid_base()),
            "FIREBOX_REPOSITORIES": f"main={repository}" if repository else "",
            "COLUMNS": "200",
        }

    def __call__(self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
        """Run `firebox packages` with these arguments."""
        return self.run("packages", *arguments, stdin=stdin, env=env)

    def run(self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
        """Run another command of `firebox` on the same data."""
        return run_firebox(*arguments, stdin=stdin, env={**self.env, **(env or {})})

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """Run a command that has to work, and read the JSON that it prints."""
        done = self(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command and do not wait for it."""
        return Command[str](["firebox.cli.main", "packages", *arguments], env=environment(self.env), text=True, **options)

    def installed(self) -> list[str]:
        """The ids of what is installed, by the command's own word."""
        return [each["id"] for each in self.json("list")]


def filled_folder(path: Path) -> PackageFolder:
    """Make a repository with several versions, a dependency, and a package of each form."""
    path.mkdir()
    folder = PackageFolder(path)
    folder.add_archive("greet", "1.0.0")
    folder.add_archive("greet", "1.2.0", aliases=["hello"])
    folder.add_archive("greet", "2.0.0")
    folder.add_archive("polite", "3.1.0", dependencies={"greet": "1.x"})
    folder.add_image("picture", "0.5.0")
    return folder
