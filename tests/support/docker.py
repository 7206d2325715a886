"""A Docker Engine for tests."""

from __future__ import annotations

import json
import os
import socket
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.conftest import missing, require_tool
from tests.support.guarded import Guarded, ServiceFailed

NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--propagation", "private"]


class DockerEngine(Guarded):
    """A Docker Engine of one's own, without any network. `url`: its socket. Its containers outlive it when it is killed."""

    kind = "docker"

    def namespaces(self) -> list[str]:
        # What it mounts, its containers and their minders end with the namespaces, even if the guardian is killed.
        return NAMESPACES

    def recipe(self, folder: Path) -> dict[str, Any]:
        if os.getuid() != 0:
            missing("a Docker Engine for tests needs root")
        dockerd = require_tool("dockerd")
        require_tool("containerd")
        (folder / "daemon.json").write_text("{}\n")
        cgroup = folder.name
        return {
            "command": [
                dockerd,
                f"--config-file={folder}/daemon.json",
                f"--data-root={folder}/data",
                f"--exec-root={folder}/exec",
                f"--pidfile={folder}/pid",
                f"--host=unix://{folder}/docker.sock",
                f"--cgroup-parent=/{cgroup}",
                "--exec-opt=native.cgroupdriver=cgroupfs",
                "--iptables=false",
                "--ip6tables=false",
                "--bridge=none",
            ],
            "ready": "API listen on ",
            "orphans": True,
            "cgroup": cgroup,
            "hide": ["/run/containerd", "/run/docker", "/etc/docker"],
            "environment": {"XDG_RUNTIME_DIR": "/nonexistent"},
            "facts": {"folder": str(folder), "socket": f"{folder}/docker.sock"},
        }

    @property
    def socket(self) -> Path:
        """The path of the engine's socket."""
        return Path(self.facts["socket"])

    @property
    def url(self) -> str:
        """The address of the engine, as `FIREBOX_DOCKER_URL` takes it."""
        return f"unix://{self.socket}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the engine's API; return its JSON, or its text. body: bytes, or what becomes JSON.

        Raises: OSError when it does not answer; ServiceFailed when it refuses.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.socket))
            http = HTTPConnection("docker")
            http.sock = connection
            if isinstance(body, bytes):
                http.request(method, path, body)
            else:
                text = None if body is None else json.dumps(body)
                http.request(method, path, text, {"Content-Type": "application/json"})
            answer = http.getresponse()
            text = answer.read().decode(errors="replace")
            if answer.status >= 400:
                raise ServiceFailed(f"{method} {path}: {answer.status} {text}")
        return json.loads(text) if answer.headers.get_content_type() == "application/json" and text.count("\n") <= 1 else text

    def get(self, path: str) -> Any:
        """Ask the engine's API, say `/containers/json?all=true`; return the JSON."""
        return self.call("GET", path)
