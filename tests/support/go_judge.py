"""Stands in for go-judge: its flags and the part of its REST API that `firebox bench` uses, and no isolation at all.

Run with flags it is the server. Source: docs.goj.ac, "API"; `Result` of go-judge v1.11.3, cmd/go-judge/model.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VERSION = "v0.0.0-stand-in"


def install_go_judge(folder: Path, pids: Path) -> Path:
    """Write a command `go-judge` into a folder. pids: a file to which each of its processes adds its number."""
    tool = folder / "go-judge"
    words = shlex.join([sys.executable, "-m", "tests.support.go_judge"])
    tool.write_text(f'#!/bin/sh\necho $$ >> {shlex.quote(str(pids))}\nPYTHONPATH={shlex.quote(str(ROOT))} exec {words} "$@"\n')
    tool.chmod(0o755)
    return tool


class _Requests(BaseHTTPRequestHandler):
    """Answers with JSON as go-judge spells it: no spaces, names of files in order."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, kept: dict[str, bytes], numbers: count[int], *connection: Any) -> None:
        self._kept = kept
        self._numbers = numbers
        super().__init__(*connection)

    def do_GET(self) -> None:
        self._answer({"/version": {"buildVersion": VERSION}, "/file": dict.fromkeys(self._kept, "")}.get(self.path))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer([self._run(command) for command in request["cmd"]] if self.path == "/run" else None)

    def do_DELETE(self) -> None:
        del self._kept[self.path.removeprefix("/file/")]
        self._answer({})

    def log_message(self, format: str, *_args: object) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing: the flag -silent."""

    def _run(self, command: Mapping[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            for name, file in command["copyIn"].items():
                path = Path(folder, name)
                path.write_bytes(self._kept[file["fileId"]] if "fileId" in file else file["content"].encode())
                path.chmod(0o755)
            stdin, stdout, stderr = command["files"]
            done = subprocess.run(
                command["args"],
                cwd=folder,
                env=dict(word.split("=", 1) for word in command["env"]),
                input=stdin["content"].encode(),
                capture_output=True,
                check=False,
            )
            kept: dict[str, str] = {}
            for name in command.get("copyOutCached", []) if done.returncode == 0 else []:
                kept[name] = f"FILE{next(self._numbers)}"
                self._kept[kept[name]] = Path(folder, name).read_bytes()
        status = "Nonzero Exit Status" if done.returncode else "Accepted"
        files = dict(sorted({stdout["name"]: done.stdout.decode(), stderr["name"]: done.stderr.decode()}.items()))
        return {"status": status, "exitStatus": done.returncode, "time": 1, "files": files, **({"fileIds": kept} if kept else {})}

    def _answer(self, body: object) -> None:
        data = json.dumps(body, separators=(",", ":")).encode()
        self.send_response(404 if body is None else 200)
        self.send_header("content-type", "application/json; charset=utf-8")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serve until SIGTERM; an unknown flag is an error, as for the real one."""
    flags = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("http-addr", "cgroup-prefix", "dir", "mount-conf"):
        flags.add_argument(f"-{name}", required=True)
    for name in ("silent", "no-fallback"):
        flags.add_argument(f"-{name}", action="store_true")
    chosen = flags.parse_args()
    json.loads(Path(chosen.mount_conf).read_text())
    host, _, port = chosen.http_addr.rpartition(":")
    os.mkdir(chosen.dir)
    with ThreadingHTTPServer((host, int(port)), partial(_Requests, {}, count())) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.daemon_threads = True
        server.serve_forever()


if __name__ == "__main__":
    main()
