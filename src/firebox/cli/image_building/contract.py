"""The two image contracts: the user, the program, its input and its output.

| contract | user and program                      | input                    | output                                       |
| -------- | ------------------------------------- | ------------------------ | -------------------------------------------- |
| glot     | user `glot`, `/home/glot/runner`      | JSON on standard input   | one JSON object on standard output           |
| grounds  | user `grounds`, `/usr/local/bin/exec` | code as its one argument | the program's own output and its exit status |

Source: docs/operate/images.md.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

INSTALL_FOLDER = "opt/firebox"
"""Location of our code in an image, relative to /."""
LABEL_CONTRACT = "firebox.contract"
LABEL_LANGUAGE = "firebox.language"
DATA = f"/{INSTALL_FOLDER}/data"
SETUP_PROGRAM = f"/{INSTALL_FOLDER}/make-ready"

_PROGRAM = """\
#!/usr/bin/python3 -IS
import os
import sys

sys.path.insert(0, "/{place}")
os.environ["FIREBOX_DATA_DIR"] = "{data}"

from firebox.cli.{module} import main

main({arguments})
"""


@dataclass(frozen=True, slots=True)
class Contract:
    """user and uid: run the program and own its home folder; program: the entry point; takes_language: passed as an argument."""

    name: str
    user: str
    uid: int
    program: str
    takes_language: bool
    default_tag: str

    def tag(self, language: str) -> str:
        return self.default_tag.format(language=language)

    def changes(self, language: str) -> list[str]:
        """Return the image's settings, as lines of a Dockerfile."""
        words = [self.program, language] if self.takes_language else [self.program]
        return [
            f"USER {self.user}",
            f"WORKDIR /home/{self.user}",
            f"ENTRYPOINT {json.dumps(words)}",
            "ENV PATH=/usr/local/bin:/usr/bin:/bin",
            "ENV LANG=C.UTF-8",
            f"LABEL {LABEL_CONTRACT}={self.name} {LABEL_LANGUAGE}={language}",
        ]


GLOT = Contract("glot", "glot", 1000, "/home/glot/runner", takes_language=False, default_tag="glot/{language}:latest")
GROUNDS = Contract(
    "grounds", "grounds", 1001, "/usr/local/bin/exec", takes_language=True, default_tag="grounds/exec-{language}:latest"
)
CONTRACTS = {contract.name: contract for contract in (GLOT, GROUNDS)}


def write_programs(target: Path) -> None:
    """Write a tar with the home folders and programs of both contracts, so that one root serves either."""
    with tarfile.open(target, "w") as tar:
        for contract in CONTRACTS.values():
            home = tarfile.TarInfo(f"home/{contract.user}")
            home.type, home.mode, home.uid, home.gid = tarfile.DIRTYPE, 0o755, contract.uid, contract.uid
            tar.addfile(home)
        for place, module, arguments in (
            (GLOT.program, "one_request.rce_runner", '["--no-sandbox", "--inside-container"]'),
            (GROUNDS.program, "one_request.exec_code", ""),
            (SETUP_PROGRAM, "image_building.root_setup", ""),
        ):
            text = _PROGRAM.format(place=INSTALL_FOLDER, data=DATA, module=module, arguments=arguments)
            add_file(tar, place.lstrip("/"), text.encode(), 0o755)


def add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))
