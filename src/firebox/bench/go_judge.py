"""go-judge as a contender: its server on a free loopback port, used over its REST API.

It creates its containers once and empties their folders after each run, so runs share namespaces and mounts.
Source: docs.goj.ac, "API", "Configuration" and "File System Mount".
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec
from msgspec import Struct, field

from firebox.bench.contender import BenchmarkFailed
from firebox.bench.http_client import Exchange, post_request, stdout_mark
from firebox.bench.programs import Program
from firebox.bench.serving import Served
from firebox.sandbox.plan.mounts import DEVICE_NODES, USRMERGE_LINKS

GO_JUDGE = "go-judge"
INSTALL = "go install github.com/criyle/go-judge/cmd/go-judge@latest"
CONTROL_GROUPS = Path("/sys/fs/cgroup")
SYSTEMD = Path("/run/systemd/system")
_WORK = "/w"
_START_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.002
_PATIENCE_S = 120.0
_LIMIT_NS = 60_000_000_000
_MEMORY_BYTES = 2 << 30
_PROCESSES = 256
_OUTPUT_BYTES = 1 << 20
_ACCEPTED = "Accepted"
_DESCRIPTOR_LINKS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

Files = Mapping[str, Mapping[str, str]]
"""Files to copy in, by name: `{"content": ...}`, or `{"fileId": ...}` for a file stored by the server."""


class _Outcome(Struct, frozen=True, rename="camel"):
    """An element of the response to `POST /run`, as far as it is used here."""

    status: str
    error: str = ""
    files: dict[str, str] = field(default_factory=dict[str, str])
    file_ids: dict[str, str] = field(default_factory=dict[str, str])


def find_go_judge(search_path: str | None = None) -> tuple[str | None, str]:
    """Find the command. Return it, or None and why go-judge cannot be measured. search_path: None for PATH."""
    tool = shutil.which(GO_JUDGE, path=search_path)
    if tool is None:
        return None, f"it is not installed ({INSTALL})"
    if (CONTROL_GROUPS / "cgroup.controllers").exists() and not SYSTEMD.is_dir():
        return None, "without systemd it would move every process of this machine into its own cgroup"
    return tool, ""


class GoJudge(Served):
    """Its server with defaults: one run per CPU, no seccomp filter; without a log.

    folder: created for its files. mounts: folders of the host that programs need besides the standard ones.
    """

    def __init__(self, tool: str, folder: Path, mounts: Iterable[str]) -> None:
        folder.mkdir()
        (folder / "mount.yaml").write_text(json.dumps(_mount_plan(mounts)))  # JSON is YAML
        self._group = f"firebox-bench-{os.getpid()}"
        self._errors = folder / "errors"
        address = f"127.0.0.1:{_free_port()}"
        words = [tool, "-http-addr", address, "-silent", "-no-fallback", "-cgroup-prefix", self._group]
        words += ["-dir", str(folder / "kept"), "-mount-conf", "mount.yaml"]
        environment = {**os.environ, "TMPDIR": str(folder)}
        with self._errors.open("wb") as errors:
            super().__init__(words, f"http://{address}", cwd=folder, env=environment, stdout=errors, stderr=errors)
        self.version = ""
        self._client = httpx.Client(base_url=self.url, timeout=_PATIENCE_S, trust_env=False)

    def __enter__(self) -> Self:
        """Wait until it is ready. Raises: BenchmarkFailed, after cleaning up."""
        while not self.version:
            try:
                self.version = str(self._client.get("/version").raise_for_status().json()["buildVersion"])
            except httpx.HTTPError as failure:
                if self._process.poll() is not None or time.perf_counter() - self.started_s > _START_WITHIN_S:
                    self.__exit__()
                    words = self._errors.read_text(errors="replace").strip() or str(failure)
                    raise BenchmarkFailed(f"it exited with status {self._process.returncode}: {words}") from None
                time.sleep(_LOOK_EVERY_S)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.close()
        super().__exit__()
        for top in (CONTROL_GROUPS / self._group, *CONTROL_GROUPS.glob(f"*/{self._group}")):
            for folder, _folders, _files in os.walk(top, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()

    def prepare(self, program: Program, made: Sequence[str]) -> Files:
        """Compile a program, if its language has a compiler. Return the files for its runs.

        made: names of the compiler's output files, which the server stores until `forget`. Raises: BenchmarkFailed.
        """
        source = {program.runtime.main_name: {"content": program.source}} if program.source else {}
        if not program.runtime.compiled:
            return source
        [step] = program.steps()[:-1]
        command = {**_command(program, step, source, ""), "copyOutCached": list(made)}
        try:
            answer = self._client.post("/run", json={"cmd": [command]}).raise_for_status()
        except httpx.HTTPError as failure:
            raise BenchmarkFailed(f"{GO_JUDGE}: {failure}") from None
        return {name: {"fileId": kept} for name, kept in kept_files(answer.content).items()}

    def forget(self, files: Files) -> None:
        for file in files.values():
            if "fileId" in file:
                self._client.delete(f"/file/{file['fileId']}")

    def exchange(self, program: Program, files: Files, stdin: str = "") -> Exchange:
        """Return the request for a run with the files of `prepare`."""
        body = {"cmd": [_command(program, program.steps()[-1], files, stdin)]}
        mark = stdout_mark(program.expected) if program.expected else f'"status":"{_ACCEPTED}"'.encode()
        return Exchange(post_request(self.url, "/run", body), mark)


def kept_files(answer: bytes) -> dict[str, str]:
    """Return the identifiers of a compile step's output files, by name, from the JSON of `POST /run`. Raises: BenchmarkFailed."""
    [outcome] = msgspec.json.decode(answer, type=list[_Outcome])
    if outcome.status != _ACCEPTED:
        raise BenchmarkFailed(f"{GO_JUDGE}: {outcome.status}: {outcome.error or outcome.files.get('stderr', '')}")
    return outcome.file_ids


def _command(program: Program, words: Sequence[str], files: Files, stdin: str) -> dict[str, Any]:
    """Return an element of "cmd". Its limits are mandatory, but never reached."""
    environment = {**program.environment(_WORK), "TMPDIR": "/tmp"}  # noqa: S108 - the container's own
    return {
        "args": list(words),
        "env": [f"{name}={value}" for name, value in environment.items()],
        "files": [{"content": stdin}, *({"name": name, "max": _OUTPUT_BYTES} for name in ("stdout", "stderr"))],
        "cpuLimit": _LIMIT_NS,
        "clockLimit": _LIMIT_NS,
        "memoryLimit": _MEMORY_BYTES,
        "procLimit": _PROCESSES,
        "copyIn": files,
    }


def _mount_plan(mounts: Iterable[str]) -> dict[str, Any]:
    """Return the mounts of its containers: the same as for bubblewrap."""
    trees = ["/usr", "/etc", *mounts, *(link for link in USRMERGE_LINKS if Path(link).is_dir())]
    nodes = [f"/dev/{name}" for name in DEVICE_NODES if name != "tty"]
    return {
        "mount": [
            *({"type": "bind", "source": tree, "target": tree, "readonly": True} for tree in dict.fromkeys(trees)),
            *({"type": "bind", "source": node, "target": node} for node in nodes),
            *({"type": "tmpfs", "target": folder, "data": "size=128m,nr_inodes=4k"} for folder in (_WORK, "/tmp")),  # noqa: S108 - as above
        ],
        "symLink": [{"linkPath": f"/dev/{name}", "target": f"/proc/self/{target}"} for name, target in _DESCRIPTOR_LINKS.items()],
        "proc": True,
        "workDir": _WORK,
        "uid": 1000,
        "gid": 1000,
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
