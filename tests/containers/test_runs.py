"""What a program in a container gets, what comes back, and what holds it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from firebox.domain.errors import ContainerError, NotFound, QueueFull
from firebox.domain.limits import OutputMode
from firebox.domain.model import Job, Verdict
from firebox.engine.event_buffer import BUFFERED_BYTES
from tests.containers.conftest import (
    MEMORY_BYTES,
    Containers,
    containers_at,
    name_of,
    output_of,
    own_containers,
    python,
    run,
    wait_for,
)
from tests.support.guarded import free_port
from tests.support.images import glot_image
from tests.support.services import DockerEngine


async def test_both_streams_and_the_exit_code_come_back(containers: Containers) -> None:
    outcome = await run(containers, python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"))
    assert (outcome.stdout, outcome.stderr, outcome.exit_code) == (b"out\n", b"err\n", 7)
    assert outcome.verdict is Verdict.RUNTIME_ERROR
    assert not outcome.is_truncated


async def test_output_arrives_while_the_program_runs(containers: Containers) -> None:
    spec = python("import sys; print('first', flush=True); sys.stdin.read(); print('last')", stdin=b" ")
    endless = python("import time; print('first', flush=True); time.sleep(1000)")
    async with containers.submit(endless) as started:
        first = await anext(output_of(started))
        assert (first.stream, first.data) == ("stdout", b"first\n")
    assert (await run(containers, spec)).stdout == b"first\nlast\n"


async def test_input_of_megabytes_is_fed_to_its_end(containers: Containers) -> None:
    size_bytes = 5_000_000
    outcome = await run(containers, python("import sys; print(len(sys.stdin.buffer.read()))", stdin=b"x" * size_bytes))
    assert outcome.stdout == b"%d\n" % size_bytes


async def test_input_that_nobody_reads_holds_nothing_up(containers: Containers) -> None:
    outcome = await run(containers, python("print('done')", stdin=b"x" * 5_000_000))
    assert (outcome.stdout, outcome.exit_code) == (b"done\n", 0)


async def test_without_input_there_is_nothing_to_read(containers: Containers) -> None:
    assert (await run(containers, python("import sys; print(repr(sys.stdin.read()))"))).stdout == b"''\n"


async def test_a_megabyte_of_output_arrives_whole(containers: Containers) -> None:
    code = "import sys; sys.stdout.write('0123456789' * 100000); sys.stderr.write('e' * 1000)"
    outcome = await run(containers, python(code, output_bytes=2_000_000))
    assert outcome.stdout == b"0123456789" * 100_000
    assert outcome.stderr == b"e" * 1000


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_too_much_output_kills(containers: Containers, stream: str) -> None:
    outcome = await run(containers, python(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)", output_bytes=10_000))
    assert outcome.is_truncated
    assert outcome.exit_code is None
    assert getattr(outcome, stream) == b"x" * 10_000


async def test_too_much_output_can_be_cut_instead(containers: Containers) -> None:
    code = "import sys; sys.stdout.write('x' * 200000); sys.stderr.write('still here'); sys.exit(3)"
    outcome = await run(containers, python(code, output_bytes=1000, output_mode=OutputMode.CUT))
    assert outcome.is_truncated
    assert (outcome.stdout, outcome.stderr, outcome.exit_code) == (b"x" * 1000, b"still here", 3)


@pytest.mark.parametrize(
    "code",
    [
        "import time\nwhile True: print('drip', flush=True); time.sleep(0.01)",
        "import time; time.sleep(1000)",
        "import os, time; os.close(1); os.close(2); time.sleep(1000)",
        "while True: pass",
    ],
    ids=["dripping", "silent", "streams closed", "busy"],
)
async def test_the_wall_clock_ends_every_program(containers: Containers, code: str) -> None:
    outcome = await run(containers, python(code, wall_ms=500))
    assert outcome.verdict is Verdict.WALL_TIME
    assert outcome.exit_code is None


async def test_the_wall_clock_ends_a_program_whose_output_nobody_reads(
    containers: Containers, docker_engine: DockerEngine
) -> None:
    flood = python("import sys\nwhile True: sys.stdout.write('x' * 1000)", wall_ms=500, output_bytes=1 << 40)
    async with containers.submit(flood) as started:
        output = output_of(started)
        await anext(output)
        await asyncio.to_thread(wait_for, docker_engine, name_of(started), "removed")
        rest = [chunk async for chunk in output]
        assert (await started.result()).verdict is Verdict.WALL_TIME
    assert sum(len(chunk.data) for chunk in rest) < 2 * BUFFERED_BYTES


async def test_what_a_program_may_do_is_bounded(containers: Containers) -> None:
    code = """
import json, os, resource, socket
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
    reached = "reached"
except OSError as error:
    reached = error.errno
files = []
try:
    while True: files.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    pass
for file in files: os.close(file)
children = 0
try:
    while children < 1000:
        if os.fork() == 0:
            import signal; signal.pause()
        children += 1
except OSError:
    pass
print(json.dumps({
    "capabilities": [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privileges": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
    "interfaces": sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line),
    "reached": reached, "files": len(files), "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
    "stack": resource.getrlimit(resource.RLIMIT_STACK), "children": children, "user": os.getuid(), "host": socket.gethostname(),
    "devices": os.path.exists("/dev/kmsg"),
}))
"""
    outcome = await run(containers, python(code, processes=20, open_files=50, user="glot", hostname="glot-runner"))
    found = json.loads(outcome.stdout)
    assert found["capabilities"] == ["0" * 16] * 5
    assert found["no_new_privileges"] == "1"
    assert found["seccomp"] == "2"
    assert found["interfaces"] == ["lo"]
    assert found["reached"] != "reached"
    assert 0 < found["files"] < 50
    assert 0 < found["children"] < 20
    assert found["core"] == 0
    assert found["stack"] == [MEMORY_BYTES, MEMORY_BYTES]
    assert found["user"] != 0
    assert found["host"] == "glot-runner"
    assert not found["devices"]


async def test_memory_is_bounded(containers: Containers) -> None:
    outcome = await run(containers, python("data = b'x' * (300 << 20); print(len(data))", memory_bytes=64 << 20))
    assert outcome.stdout == b""
    assert outcome.exit_code not in (0, None)


async def test_a_read_only_root_has_a_tmp_only(containers: Containers) -> None:
    code = """
def try_to_write(path):
    try:
        open(path, "w").write("x")
        return "written"
    except OSError as error:
        return error.strerror
print(try_to_write("/tmp/x"), try_to_write("/home/x"), try_to_write("/x"), sep=",")
"""
    assert (await run(containers, python(code, read_only=True, user="0"))).stdout.split(b",")[0] == b"written"
    outcome = await run(containers, python(code, read_only=True, user="0"))
    assert outcome.stdout == b"written,Read-only file system,Read-only file system\n"


async def test_an_unknown_image_is_named(containers: Containers) -> None:
    with pytest.raises(NotFound, match="nobody/has-this:1"):
        await run(containers, python("", image="nobody/has-this:1"))


@pytest.mark.parametrize(
    ("field", "words"),
    [({"user": "nobody-at-all"}, "nobody-at-all"), ({"hostname": "x" * 300}, "name")],
    ids=["user", "host name"],
)
async def test_a_container_that_cannot_start_says_why(containers: Containers, field: dict[str, Any], words: str) -> None:
    with pytest.raises(ContainerError, match=words):
        await run(containers, python("", **field))


class TcpDockerEngine(DockerEngine):
    """An engine that listens on a port of loopback too."""

    def recipe(self, folder: Path) -> dict[str, Any]:
        recipe = super().recipe(folder)
        port = free_port(folder)
        recipe["command"].append(f"--host=tcp://127.0.0.1:{port}")
        recipe["facts"]["tcp"] = f"tcp://127.0.0.1:{port}"
        recipe["ready"] = "API listen on 127.0.0.1"
        return recipe


@pytest.mark.slow
async def test_an_engine_over_tcp_is_the_same() -> None:
    with TcpDockerEngine() as engine:
        glot_image(engine.url)
        async with containers_at(engine.facts["tcp"]) as containers:
            echo = python("import sys; print(sys.stdin.read(), end='')", stdin=b"x" * 300_000, output_bytes=400_000)
            assert (await run(containers, echo)).stdout == b"x" * 300_000
            assert (await run(containers, python("import time; time.sleep(1000)", wall_ms=300))).verdict is Verdict.WALL_TIME
            with pytest.raises(NotFound):
                await run(containers, python("", image="nobody/has-this:1"))
        assert own_containers(engine) == []


async def test_runs_at_once_do_not_mix(containers: Containers) -> None:
    specs = [python(f"import sys; print({number}); sys.exit({number})") for number in range(8)]
    outcomes = await asyncio.gather(*(run(containers, spec) for spec in specs))
    assert [(outcome.stdout, outcome.exit_code) for outcome in outcomes] == [(b"%d\n" % number, number) for number in range(8)]


async def test_each_run_takes_a_slot_and_gives_it_back(image: str, docker_engine: DockerEngine) -> None:
    async with containers_at(docker_engine.url, slots=1, queue_length=0) as containers:
        async with containers.submit(python("import time; time.sleep(1000)")):
            assert containers.in_flight == 1
            with pytest.raises(QueueFull):
                await run(containers, python("print(1)"))
        assert containers.in_flight == 0
        with pytest.raises(NotFound):
            await run(containers, python("", image="nobody/has-this:1"))
        assert containers.in_flight == 0
        assert (await run(containers, python("print(2)"))).stdout == b"2\n"


async def test_the_end_of_the_server_ends_every_run(image: str, docker_engine: DockerEngine) -> None:
    async with containers_at(docker_engine.url) as containers:
        spec = python("import time; print('first', flush=True); time.sleep(1000)")
        arrived = [asyncio.Event() for _ in range(2)]
        reading = [asyncio.create_task(_read(containers, spec, each)) for each in arrived]
        for each in arrived:
            await each.wait()
    assert [await task for task in reading] == [Verdict.CANCELLED] * 2
    assert own_containers(docker_engine) == []


async def _read(containers: Containers, job: Job, arrived: asyncio.Event) -> Verdict:
    async with containers.submit(job) as started:
        async for _ in output_of(started):
            arrived.set()
        return (await started.result()).verdict
