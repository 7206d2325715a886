"""A package repository for tests: a real web server on loopback that serves a folder, and misbehaves when it is told to."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pysequoia import SignatureMode, Tsk, sign

CHUNK_BYTES = 8 << 10


@dataclass(frozen=True)
class Asked:
    """One request as it came. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass
class Behaviour:
    """What is to happen for one path. Counters go down with every request that they were used for."""

    statuses: list[int] = field(default_factory=list[int])
    """Answered instead of the file, one a request."""
    cuts: list[int] = field(default_factory=list[int])
    """After so many bytes of the body the connection is cut, one a request."""
    redirect: str = ""
    half_way: Callable[[], object] | None = None
    """Called once, when half of a body is sent; may change the file, or wait."""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """Sent besides, or instead of, the usual ones."""


class RepositoryServer:
    """Serves a folder with Range, If-Range, ETag and Last-Modified.

    validators: how files are told apart: "strong" ETag, "weak" ETag, only the "date", or "none" at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Asked] = []
        self.validators: Literal["strong", "weak", "date", "none"] = "strong"
        self.ranges = True
        self.checks_if_range = True
        self.login = ""
        """`user:password` that is wanted; "" for everybody."""
        self._behaviours: dict[str, Behaviour] = {}
        self._connections: set[socket.socket] = set()
        self._listen(0)

    def _listen(self, port: int) -> None:
        server = self

        class Handler(_Handler):
            repository = server

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            block_on_close = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: clients that go away in the middle are what is tested."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        """Where the folder is, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def on(self, path: str) -> Behaviour:
        """What is to happen for a path that begins with a slash; change it as needed."""
        return self._behaviours.setdefault(path, Behaviour())

    def times(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(1 for each in self.asked if each.path == path)

    def start(self) -> None:
        self._thread.start()

    def start_again(self) -> None:
        """Come back at the same address after `stop`."""
        self._listen(int(self._server.server_address[1]))
        self.start()

    def stop(self) -> None:
        self._server.shutdown()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.server_close()

    def file_of(self, path: str) -> Path | None:
        """The file that a path names, None when there is none below the folder."""
        found = (self.folder / unquote(urlsplit(path).path).lstrip("/")).resolve()
        return found if found.is_relative_to(self.folder.resolve()) and found.is_file() else None


class _Handler(BaseHTTPRequestHandler):
    repository: ClassVar[RepositoryServer]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def setup(self) -> None:
        super().setup()
        self.repository._connections.add(self.connection)

    def finish(self) -> None:
        self.repository._connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
        """Say nothing."""

    def do_GET(self) -> None:
        server = self.repository
        server.asked.append(Asked(self.path, {name.lower(): value for name, value in self.headers.items()}))
        behaviour = server.on(self.path)
        if behaviour.statuses:
            self._empty(behaviour.statuses.pop(0))
        elif behaviour.redirect:
            self._empty(302, Location=behaviour.redirect)
        elif server.login and self.headers.get("Authorization") != _basic(server.login):
            self._empty(401)
        elif (path := server.file_of(self.path)) is None:
            self._empty(404)
        else:
            self._file(path, behaviour)

    def _file(self, path: Path, behaviour: Behaviour) -> None:
        content = path.read_bytes()
        validators = self._validators(path, content)
        begin, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", "") in {"", *validators.values()} or not self.repository.checks_if_range
        if asked and self.repository.ranges and same:
            begin, status = int(asked[1]), 206
            if begin >= len(content):
                self._empty(416, **{"Content-Range": f"bytes */{len(content)}"})
                return
        body = content[begin:]
        headers = {"Content-Length": str(len(body)), **validators}
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self.send_response(status)
        for name, value in (headers | behaviour.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self._body(body, behaviour)

    def _body(self, body: bytes, behaviour: Behaviour) -> None:
        end = min(behaviour.cuts.pop(0), len(body)) if behaviour.cuts else None
        step = max(1, min(CHUNK_BYTES, len(body) // 4))
        for start in range(0, len(body) if end is None else end, step):
            if behaviour.half_way is not None and start >= len(body) // 2:
                called, behaviour.half_way = behaviour.half_way, None
                self.wfile.flush()
                called()
            self.wfile.write(body[start : min(start + step, len(body) if end is None else end)])
        self.wfile.flush()
        if end is not None:
            self.close_connection = True

    def _validators(self, path: Path, content: bytes) -> dict[str, str]:
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        date = email.utils.formatdate(path.stat().st_mtime, usegmt=True)
        return {
            "strong": {"ETag": tag, "Last-Modified": date},
            "weak": {"ETag": f"W/{tag}", "Last-Modified": date},
            "date": {"Last-Modified": date},
            "none": {},
        }[self.repository.validators]

    def _empty(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


@contextmanager
def serving(folder: Path) -> Generator[RepositoryServer]:
    """Serve a folder for a while."""
    server = RepositoryServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def new_key(name: str = "Firebox Tests <tests@example.org>") -> Tsk:
    """A fresh signing key."""
    return Tsk.generate(name)


def signature_of(content: bytes, key: Tsk) -> str:
    """An armored, detached signature."""
    return sign(key.signer(), content, mode=SignatureMode.DETACHED).decode()


def trust(folder: Path, repository: str, *keys: Tsk) -> None:
    """Put certificates where those are that may sign for a repository. folder: the data folder."""
    place = folder / "trusted-keys"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{repository}.asc").write_text("".join(str(key.extract_certificate()) for key in keys))


def announced(path: Path, language: str, version: str, key: Tsk | None = None, **more: Any) -> dict[str, Any]:
    """What an index says about a file beside it. more: keys of the index; None leaves one out."""
    content = path.read_bytes()
    package: dict[str, Any] = {
        "author": "Firebox Tests <tests@example.org>",
        "language": language,
        "version": version,
        "checksums": {"sha256": hashlib.sha256(content).hexdigest(), "sha512": hashlib.sha512(content).hexdigest()},
        "dependencies": {},
        "size": len(content),
        "download": path.name,
    }
    if key is not None:
        package["signature"] = signature_of(content, key)
    return {name: value for name, value in (package | more).items() if value is not None}


def write_index(folder: Path, packages: Sequence[Mapping[str, Any]], key: Tsk | None = None, **more: Any) -> Path:
    """Write `index.yaml`, and its signature where there is a key. more: of the index itself (`serial`, `baseurl`)."""
    path = folder / "index.yaml"
    # JSON is YAML, and leaves nothing to be quoted by hand.
    content = json.dumps({"schema": "ppman-repo-1", **more, "packages": list(packages)}, indent=1).encode()
    path.write_bytes(content)
    signature = path.with_name("index.yaml.asc")
    if key is not None:
        signature.write_text(signature_of(content, key))
    else:
        signature.unlink(missing_ok=True)
    return path
