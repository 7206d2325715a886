"""Shims of version managers are run once, and again after a change that their answer depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from firebox.runtimes.host_runtimes import HostScan, scan_host
from firebox.runtimes.host_tools import environment_of_tools
from firebox.runtimes.shims import target_digest
from tests.runtimes.test_host import definition, show_everything, the_only_one

__all__ = ["show_everything"]  # a fixture

WHERE = definition('locate = ["where"]')


@dataclass(frozen=True)
class Manager:
    """Layout of a manager. folder: of its shims; decision: the file that selects the version; link: its shims are symlinks."""

    folder: str
    decision: str
    program: str
    script: str = ""


MANAGERS = {
    "pyenv": Manager(".pyenv/shims", ".pyenv/version", ".pyenv/libexec/pyenv", 'exec "{program}" exec "$program" "$@"'),
    "rbenv": Manager(".rbenv/shims", ".rbenv/version", ".rbenv/libexec/rbenv", 'exec "{program}" exec "$program" "$@"'),
    "asdf": Manager(".asdf/shims", ".tool-versions", "bin/asdf", 'exec {program} exec "shout" "$@" # asdf_allow: \' asdf \''),
    "mise": Manager(".local/share/mise/shims", ".config/mise/config.toml", "bin/mise"),
    "volta": Manager(".volta/bin", ".volta/tools/user/platform.json", ".volta/bin/volta-shim"),
}


class Home:
    """A home with a manager and two versions of a program."""

    def __init__(self, folder: Path, manager: Manager) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.decision = folder / manager.decision
        self._asked = folder / "asked"
        self._asked.touch()
        for version in ("1.0", "2.0"):
            self.program(f"versions/{version}/bin/shout", f'[ "$1" = where ] && echo $0 || echo {version}')
        program = self.program(
            manager.program,
            f"""echo asked >> {self._asked}
            [ "$1" = exec ] && shift 2
            exec {folder}/versions/$(cat {self.decision})/bin/shout "$@\"""",
        )
        self.shim = folder / manager.folder / "shout"
        if manager.script:
            self.program(f"{manager.folder}/shout", 'program="${0##*/}"\n' + manager.script.replace("{program}", str(program)))
        else:
            self.shim.parent.mkdir(parents=True, exist_ok=True)
            self.shim.symlink_to(program)
        self.folders = [self.shim.parent, folder / "more", "/usr/bin", "/bin"]
        self.decide("1.0")

    def program(self, name: str, body: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
        return file

    def decide(self, version: str) -> None:
        self.decision.parent.mkdir(parents=True, exist_ok=True)
        self.decision.write_text(version)

    @property
    def path(self) -> str:
        return ":".join(map(str, self.folders))

    def scan(self) -> HostScan:
        return scan_host(self.path, [WHERE], data_folder=self.data)

    def version(self) -> str:
        return the_only_one(self.scan()).version

    def times_asked(self) -> int:
        return len(self._asked.read_text().splitlines())


@pytest.fixture(params=MANAGERS)
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Home(tmp_path, MANAGERS[request.param])


def add_to_path(home: Home) -> None:
    home.program("more/anything", "true")


def make_shim_anew(home: Home) -> None:
    """Write another shim; for a symlink, its target."""
    home.shim.write_text(home.shim.read_text().replace("#!/bin/sh\n", "#!/bin/sh\n\n"))


def change_path(home: Home) -> None:
    home.folders.append("/usr/local/bin")


def test_a_shim_runs_once(home: Home) -> None:
    assert [home.version(), home.version(), home.times_asked()] == ["1.0.0", "1.0.0", 1]


def test_another_version_that_is_chosen_is_found(home: Home) -> None:
    assert home.version() == "1.0.0"
    home.decide("2.0")
    assert [home.version(), home.version(), home.times_asked()] == ["2.0.0", "2.0.0", 2]


def test_a_shim_without_a_target_runs_once_too(home: Home) -> None:
    home.decide("3.0")
    first, second = home.scan(), home.scan()
    assert first.runtimes == second.runtimes == []
    assert first.problems == second.problems != []
    assert home.times_asked() == 1
    home.decide("1.0")
    assert [home.version(), home.times_asked()] == ["1.0.0", 2]


def test_a_shim_that_fails_otherwise_runs_again(home: Home) -> None:
    home.program("versions/1.0/bin/shout", "exit 1")
    assert [home.scan().runtimes, home.scan().runtimes, home.times_asked()] == [[], [], 2]


@pytest.mark.parametrize("change", [add_to_path, make_shim_anew, change_path])
def test_a_shim_runs_again_after_a_change(home: Home, change: Callable[[Home], None]) -> None:
    home.version()
    change(home)
    assert [home.version(), home.times_asked()] == ["1.0.0", 2]


def test_another_environment_is_another_answer(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.version()
    monkeypatch.setenv("PYENV_VERSION", "1.0")
    assert [home.version(), home.times_asked()] == ["1.0.0", 2]


def test_another_build_at_the_same_path_is_asked_for_its_version(home: Home) -> None:
    assert home.version() == "1.0.0"
    home.program("versions/1.0/bin/shout", '[ "$1" = where ] && echo $0 || echo 1.0.9')
    assert [home.version(), home.times_asked()] == ["1.0.9", 1]


def test_scripts_of_unknown_managers_are_not_cached(home: Home) -> None:
    script = home.program("shims/shout", "exec something")
    assert target_digest(script, home.path, environment_of_tools(home.path)) is None
