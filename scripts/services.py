"""PostgreSQL, Redis and a Docker Engine on this machine, for developers: `make services-up`, `make services-down`.

    eval "$(make -s services-up)"
    .venv/bin/firebox serve

They are Debian's programs, as the tests start them: on loopback, with passwords, apart from any that the system runs. Their data
is in the user's cache and stays there between `up` and `down`. Doing either twice does no harm, and only what `up` started ends.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.docker import DockerEngine
from tests.support.guarded import Guarded, ServiceFailed
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer

KINDS: tuple[type[Guarded], ...] = (PostgresServer, RedisServer, DockerEngine)


def cache_folder() -> Path:
    """Where the data is. PostgreSQL runs as a user of its own under root, who cannot enter root's home.

    Source: XDG Base Directory Specification, "XDG_CACHE_HOME".
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        cache = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return cache / "firebox" / "services"


def service_of(kind: type[Guarded]) -> Guarded:
    folder = cache_folder() / kind.kind
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return kind(shared=f"services-{os.geteuid()}-{name}", stay=True, folder=folder)


def up() -> bool:
    """Start what does not run yet; print the settings that lead to the services, for a shell to read."""
    complete = True
    for kind in KINDS:
        service = service_of(kind)
        try:
            with service:
                name, value = setting_of(service)
        except (pytest.skip.Exception, pytest.fail.Exception) as absent:
            say(f"no {kind.kind}: {absent}")
        except ServiceFailed as failure:
            say(f"no {kind.kind}: {failure}")
            complete = False
        else:
            print(f"export {name}={shlex.quote(value)}", flush=True)
    return complete


def setting_of(service: Guarded) -> tuple[str, str]:
    """The variable that leads Firebox to a service, and its value."""
    match service:
        case PostgresServer():
            if not service.sql("SELECT 1 FROM pg_database WHERE datname = 'firebox'"):
                service.sql("CREATE DATABASE firebox")
            return "FIREBOX_DATABASE_URL", service.url_of("firebox")
        case RedisServer():
            return "FIREBOX_REDIS_URL", service.url
        case DockerEngine():
            return "FIREBOX_DOCKER_URL", service.url
        case _:
            raise TypeError(service)


def down() -> bool:
    """Stop what `up` started."""
    for kind in KINDS:
        say(f"{kind.kind}: {'stopped' if service_of(kind).end() else 'was not running'}")
    say(f"data stays in {cache_folder()}")
    return True


def say(words: str) -> None:
    print(f"firebox: {words}", file=sys.stderr, flush=True)


def main() -> None:
    try:
        action = {"up": up, "down": down}[sys.argv[1]]
    except (KeyError, IndexError):
        sys.exit("usage: python -m scripts.services up|down")
    sys.exit(0 if action() else 1)


if __name__ == "__main__":
    main()
