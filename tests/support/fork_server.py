"""Start commands of `firebox` as forks of one process that has loaded them: most of a short command's time is its imports.

Usage: python -m tests.support.fork_server DESCRIPTOR

DESCRIPTOR is a socket of type SOCK_SEQPACKET. Each message is a JSON object, {"module": ..., "arguments": [...], "env": {...},
"folder": ..., "new_session": ...}, with four descriptors beside it: standard input, output and error, and a pipe. A fork
becomes the process that `python -m module arguments...` would be. Its process id is written to the pipe, then, when it has
ended, its status as wait(2) returns it, a line each.

Ends when the other end of the socket is closed. Forks that still run are then asked to end: their parent is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
from importlib import import_module
from typing import Any

from firebox.cli.command_table import COMMANDS

LOADED = ("run", "serve", "stdio", "packages", "runtimes", "users", "doctor", "db", "settings")
"""The commands that tests start often."""
MAX_MESSAGE_BYTES = 1 << 20
PR_SET_PDEATHSIG = 1


def wait_for_work(control: socket.socket) -> dict[str, Any]:
    """Start a fork for each message; return the message in the fork."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    pid, pipe = key.data
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _tell(pipe, os.waitpid(pid, 0)[1])
                    os.close(pipe)
                    continue
                message, descriptors, _flags, _address = socket.recv_fds(control, MAX_MESSAGE_BYTES, 4)
                if not message:
                    sys.exit()
                pid = os.fork()
                if not pid:
                    for number, descriptor in enumerate(descriptors[:3]):
                        os.dup2(descriptor, number)
                    return dict(json.loads(message))
                pipe = descriptors.pop()
                for descriptor in descriptors:
                    os.close(descriptor)
                _tell(pipe, pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, pipe))


def _tell(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the test has lost interest
        os.write(pipe, b"%d\n" % number)


def load() -> None:
    """Import what the commands need, and check that a fork has all of it."""
    for name in LOADED:
        COMMANDS[name].load()
    for module in (
        "firebox.cli.one_request.rce_runner",
        "firebox.cli.run.run_program",
        "firebox.cli.run.run_files",
        "firebox.cli.run.session",
    ):
        import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1, "an import starts a thread, which a fork would not have"
    # What is shared stays shared: the collector would write to every object.
    gc.collect()
    gc.freeze()


def become(wanted: dict[str, Any]) -> None:
    """Do what `python -m module arguments...` does, in its environment."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.closerange(3, 1 << 20)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    if wanted["new_session"]:
        os.setsid()
    # Opened anew, since whether it is a terminal decides how Python writes to it.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    module = import_module(wanted["module"])
    sys.argv = [str(module.__file__), *wanted["arguments"]]
    module.main()


if __name__ == "__main__":
    load()
    control = socket.socket(fileno=int(sys.argv[1]))
    work = wait_for_work(control)
    control.detach()
    become(work)
