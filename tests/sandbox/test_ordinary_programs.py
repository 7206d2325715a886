"""Ordinary programs that an over-strict sandbox breaks: they must simply work under the default limits."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.conftest import missing, require_tool
from tests.sandbox.conftest import ENVIRONMENT, PYTHON, Box
from tests.support.toolchains import prepare_go

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1 << 20


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import json; print(json.loads('[1]') == [1])", id="json"),
        pytest.param("import ssl; print(ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED)", id="ssl"),
        pytest.param(
            "import sqlite3; base = sqlite3.connect('file.db'); base.execute('pragma journal_mode=wal'); "
            "base.execute('create table t (n)'); base.executemany('insert into t values (?)', [(n,) for n in range(1000)]); "
            "base.commit(); print(base.execute('select sum(n) from t').fetchone()[0] == 499500)",
            id="sqlite3",
        ),
        pytest.param(
            "import multiprocessing\nif __name__ == '__main__':\n"
            "    with multiprocessing.Pool(4) as pool: print(pool.map(abs, range(-100, 0)) == list(range(100, 0, -1)))",
            id="multiprocessing pool",
        ),
        pytest.param(
            "import multiprocessing\n"
            "def child(queue, lock, number):\n    with lock: number.value += 1\n    queue.put(number.value)\n"
            "if __name__ == '__main__':\n    multiprocessing.set_start_method('spawn')\n"
            "    queue, lock, number = multiprocessing.Queue(), multiprocessing.Lock(), multiprocessing.Value('i', 0)\n"
            "    children = [multiprocessing.Process(target=child, args=(queue, lock, number)) for _ in range(3)]\n"
            "    for each in children: each.start()\n"
            "    for each in children: each.join()\n    print(number.value == 3)",
            id="multiprocessing spawn, queue, lock, value",
        ),
        pytest.param(
            "from concurrent.futures import ProcessPoolExecutor\nif __name__ == '__main__':\n"
            "    with ProcessPoolExecutor(2) as pool: print(list(pool.map(pow, [2, 3], [3, 2])) == [8, 9])",
            id="process pool executor",
        ),
        pytest.param(
            "import asyncio\nasync def main():\n"
            "    child = await asyncio.create_subprocess_exec('/bin/echo', 'x', stdout=-1)\n"
            "    out, _ = await child.communicate()\n    await asyncio.sleep(0.001)\n"
            "    print(out == b'x\\n', await asyncio.to_thread(lambda: 1) == 1)\nasyncio.run(main())",
            id="asyncio",
        ),
        pytest.param(
            "import subprocess; print(subprocess.run('echo a | tr a b', shell=True, capture_output=True, text=True).stdout == 'b\\n')",
            id="subprocess",
        ),
        pytest.param(
            "import threading\nlist(map(threading.Thread.start, [threading.Thread(target=int) for _ in range(50)]))\nprint(True)",
            id="threading",
        ),
        pytest.param(
            "import os, tempfile\nwith tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as file, "
            "tempfile.TemporaryFile() as hidden:\n    hidden.write(b'x'); print(os.path.dirname(folder) == '/tmp', file.name.startswith('/tmp/'))",
            id="tempfile",
        ),
        pytest.param(
            "import ctypes, uuid, decimal, zoneinfo; print(str(zoneinfo.ZoneInfo('Europe/Berlin')) != '')", id="zoneinfo"
        ),
        pytest.param("import ctypes; f = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7); print(f() == 7)", id="ctypes callbacks"),
        pytest.param(
            "import mmap; m = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC); m[0] = 1; print(m[0] == 1)",
            id="memory that is written and run, as just-in-time compilers have it",
        ),
        pytest.param(
            "import signal, time; signal.alarm(1); print(signal.sigtimedwait([14], 0) is None); signal.alarm(0)", id="alarm"
        ),
        pytest.param(
            "import resource, os, time; print(time.process_time() >= 0, os.times()[0] >= 0, os.cpu_count() >= 1)", id="times"
        ),
        pytest.param(
            "import fcntl; f = open('f', 'w'); fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX); print(True)",
            id="locks",
        ),
        pytest.param(
            "import secrets, random; print(len(secrets.token_bytes(32)) == 32, random.SystemRandom().random() < 1)", id="random"
        ),
        pytest.param("import os; print(os.urandom(8) != os.urandom(8), len(os.sched_getaffinity(0)) >= 1)", id="urandom"),
    ],
)
async def test_the_standard_library_of_python(box: Box, code: str) -> None:
    outcome = await box.python(code, memory_bytes=256 * MIB)
    assert set(outcome.text.split()) == {"True"}, (outcome.text, outcome.error_text, outcome.exit)
    assert outcome.exit.status == 0


async def test_numpy(box: Box) -> None:
    code = """
import json, os, sys
try: import numpy
except ImportError: raise SystemExit(77)
size = 300
ones = numpy.ones((size, size))
print(json.dumps([float((ones @ ones).sum()), float(numpy.linalg.norm(numpy.fft.fft(numpy.ones(8))))]))
"""
    outcome = await box.python(code, memory_bytes=256 * MIB)
    if outcome.exit.status == 77:
        pytest.skip(f"{PYTHON} has no numpy; the threads of its libraries are tried by the OpenMP test as well")
    assert json.loads(outcome.text) == [300.0**3, 8.0], outcome.error_text


async def test_openmp_threads(box: Box) -> None:
    gcc = require_tool("gcc")
    source = """
#include <omp.h>
#include <stdio.h>
int main(void) {
    long sum = 0;
    #pragma omp parallel for reduction(+:sum) num_threads(8)
    for (long i = 0; i < 1000000; i++) sum += i;
    printf("%ld %d\\n", sum, omp_get_max_threads() > 0);
    return 0;
}
"""
    script = f"{gcc} -O1 -fopenmp main.c -o main && exec ./main"
    outcome = await box.shell(script, files={"main.c": source}, memory_bytes=256 * MIB)
    if "libgomp" in outcome.error_text or "omp.h" in outcome.error_text:
        missing("OpenMP for gcc is not installed")
    assert outcome.text == "499999500000 1\n", (outcome.error_text, outcome.exit)


async def test_a_compiler_with_its_temporary_files(box: Box) -> None:
    gcc = require_tool("gcc")
    files: dict[str, bytes | str] = {
        "main.c": '#include <math.h>\n#include <stdio.h>\n#include "own.h"\nint main(void) { printf("%.1f\\n", sqrt(FOUR)); }',
        "own.h": "#define FOUR 4.0",
    }
    outcome = await box.shell(f"{gcc} -Wall -g -O2 main.c -o main -lm && ./main", files=files, memory_bytes=256 * MIB)
    assert outcome.text == "2.0\n", outcome.error_text


@pytest.mark.slow
async def test_go_with_less_than_256_mib(box: Box, tmp_path: Path) -> None:
    """Compiled outside. A Go program reserves far more memory than it uses."""
    cache = await asyncio.to_thread(prepare_go, tmp_path / "data")
    go = require_tool("go")
    lines = ["func main() {", "c := make(chan int)", "for i := 0; i < 100; i++ { go func() { c <- 1 }() }", "s := 0"]
    lines += ["for i := 0; i < 100; i++ { s += <-c }", "fmt.Println(s)", "}"]
    (tmp_path / "main.go").write_text("\n".join(["package main", 'import "fmt"', *lines]))
    environment = {**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0", "GOCACHE": str(cache)}
    building = await asyncio.create_subprocess_exec(go, "build", "-o", "main", "main.go", cwd=tmp_path, env=environment)
    assert await building.wait() == 0
    outcome = await box.shell("chmod +x main && ./main", files={"main": (tmp_path / "main").read_bytes()}, memory_bytes=256 * MIB)
    assert outcome.text == "100\n", (outcome.error_text, outcome.exit)


async def test_java_with_threads_and_less_than_256_mib(box: Box) -> None:
    require_tool("java")
    source = """
import java.util.stream.*;
public class Main {
    public static void main(String[] arguments) throws Exception {
        Thread[] threads = new Thread[20];
        for (int i = 0; i < 20; i++) { threads[i] = new Thread(() -> {}); threads[i].start(); }
        for (Thread thread : threads) thread.join();
        System.out.println(IntStream.range(0, 100000).parallel().sum());
        System.out.println(ProcessHandle.current().pid() > 0);
        System.out.println(new String(Runtime.getRuntime().exec(new String[] {"echo", "child"}).getInputStream().readAllBytes()).trim());
    }
}
"""
    outcome = await box.run(
        "/usr/bin/java", "-Xmx128m", "Main.java", files={"Main.java": source}, memory_bytes=256 * MIB, cpu_ms=0, wall_ms=60_000
    )
    assert outcome.text == "704982704\ntrue\nchild\n", (outcome.error_text, outcome.exit)


async def test_node_with_worker_threads_and_children(box: Box) -> None:
    require_tool("node")
    code = """
const { Worker } = require('worker_threads');
const { execFileSync } = require('child_process');
const fs = require('fs'), http = require('http'), os = require('os'), zlib = require('zlib');
const work = n => new Promise((ok, bad) => {
  const worker = new Worker('require("worker_threads").parentPort.postMessage(' + n + ' * 2)', { eval: true });
  worker.on('message', ok).on('error', bad);
});
(async () => {
  console.log((await Promise.all([1, 2, 3, 4].map(work))).join());
  console.log(execFileSync('echo', ['child']).toString().trim());
  fs.writeFileSync(os.tmpdir() + '/file', 'x'.repeat(1000));
  console.log((await fs.promises.readFile('/tmp/file')).length, zlib.gunzipSync(zlib.gzipSync('zip')).toString());
  const server = http.createServer((_, answer) => answer.end('web')).listen(0, '127.0.0.1', () => {
    http.get('http://localhost:' + server.address().port, { family: 4 }, answer => answer.on('data', data => {
      console.log(data.toString());
      server.close();
      process.exit(0);
    }));
  });
  fs.watch('/tmp', () => {}).unref();
})();
"""
    outcome = await box.run("/usr/bin/node", "main.js", files={"main.js": code}, memory_bytes=256 * MIB)
    assert outcome.text == "2,4,6,8\nchild\n1000 zip\nweb\n", (outcome.error_text, outcome.exit)


@pytest.mark.parametrize(
    ("tool", "argv", "wanted"),
    [
        ("perl", ("-e", 'use threads; use POSIX; print POSIX::floor(3.7), join(",", sort { $a <=> $b } 3, 1, 2), "\n"'), "31,2,3\n"),
        ("ruby", ("-e", "puts [Thread.new { 1 }.value, `echo 2`.to_i, fork { exit 3 }.then { Process.wait2(_1)[1].exitstatus }].join(',')"), "1,2,3\n"),
        ("php", ("-r", 'echo json_encode([1, proc_close(proc_open("exit 4", [], $pipes))]), "\n";'), "[1,4]\n"),
        ("lua", ("-e", "local file = io.popen('echo lua'); io.write(file:read('a'))"), "lua\n"),
        ("bash", ("-c", 'cat <(echo one) <<< two; shopt -s lastpipe; printf "%(%Z)T\n" 0; echo ${BASH_VERSION:+bash}'), "one\nUTC\nbash\n"),
        ("awk", ('BEGIN { "date +%Z" | getline zone; print zone, 6 * 7 }',), "UTC 42\n"),
    ],
)  # fmt: skip
async def test_other_interpreters(box: Box, tool: str, argv: tuple[str, ...], wanted: str) -> None:
    path = require_tool(tool)
    if not os.path.realpath(path).startswith(("/usr/", "/bin/")):
        pytest.skip(f"{tool} lies in {path}, which sandboxes do not show")
    outcome = await box.run(tool, *argv, env={"TZ": "UTC"})
    assert (outcome.text, outcome.exit.status) == (wanted, 0), outcome.error_text


async def test_pipes_and_children_of_children(box: Box) -> None:
    script = "seq 100000 | sort -rn | (read first; echo $first; cat > /dev/null); (sleep 0.01; echo later) & wait; echo $?"
    outcome = await box.shell(script)
    assert outcome.text == "100000\nlater\n0\n", outcome.error_text


async def test_sockets_on_loopback_inside_one_run(box: Box) -> None:
    code = """
import os, socket, tempfile, threading
def serve(server):
    peer, _ = server.accept()
    peer.sendall(peer.recv(100).upper())
    peer.close()
for family, address in ((socket.AF_INET, ('127.0.0.1', 0)), (socket.AF_INET6, ('::1', 0)), (socket.AF_UNIX, '/tmp/socket'), (socket.AF_UNIX, '\\0abstract')):
    server = socket.socket(family)
    server.bind(address)
    server.listen()
    threading.Thread(target=serve, args=(server,)).start()
    with socket.socket(family) as client:
        client.connect(server.getsockname())
        client.sendall(b'hello')
        print(client.recv(100).decode())
first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
first.bind(('127.0.0.1', 0))
second.sendto(b'datagram', first.getsockname())
print(first.recv(100).decode())
print(socket.gethostbyname('localhost'), socket.getaddrinfo('localhost', 80)[0][4][0] in ('127.0.0.1', '::1'))
"""
    outcome = await box.python(code)
    assert outcome.text.split() == ["HELLO"] * 4 + ["datagram", "127.0.0.1", "True"], outcome.error_text


async def test_devices_and_links_in_dev(box: Box) -> None:
    script = r"""
echo gone > /dev/null && echo null
test "$(head -c 4 /dev/zero | od -An -tx1 | tr -d ' ')" = 00000000 && echo zero
(echo x > /dev/full) 2>/dev/null || echo full
test "$(head -c 16 /dev/random | wc -c)" = 16 && echo random
test "$(head -c 16 /dev/urandom | wc -c)" = 16 && echo urandom
cat /dev/stdin
echo stdout > /dev/stdout
echo stderr > /dev/stderr
echo fd > /dev/fd/1
echo fd2 > /proc/self/fd/1
ls /dev/fd/ | head -3 | tr '\n' ' '
"""
    outcome = await box.shell(script, stdin=b"stdin\n")
    wanted = ["null", "zero", "full", "random", "urandom", "stdin", "stdout", "fd", "fd2", "0", "1", "2"]
    assert outcome.text.split() == wanted, outcome.error_text
    assert outcome.error_text == "stderr\n"


async def test_proc_shows_the_program_itself(box: Box) -> None:
    code = """
import os
print(os.readlink('/proc/self'), os.getpid(), os.readlink('/proc/self/cwd'), os.readlink('/proc/self/exe') == os.path.realpath('/usr/bin/python3'))
print('main.py' in open('/proc/self/cmdline').read(), 'VmRSS' in open('/proc/self/status').read(), len(open('/proc/self/maps').read()) > 0)
print(all(len(open(path).read()) > 0 for path in ('/proc/cpuinfo', '/proc/meminfo', '/proc/stat', '/proc/uptime', '/proc/loadavg', '/proc/version', '/proc/filesystems', '/proc/sys/kernel/osrelease')))
print(open('/proc/self/oom_score_adj').read().strip().lstrip('-').isdigit(), os.path.exists('/proc/self/task'), os.path.exists('/proc/mounts'))
"""
    outcome = await box.python(code)
    first, second, third, fourth = outcome.text.splitlines()
    own, pid, cwd, same = first.split()
    assert (own, cwd, same) == (pid, "/box", "True")
    assert {*second.split(), *third.split(), *fourth.split()} == {"True"}, outcome.text


async def test_folders_that_can_be_written(box: Box) -> None:
    script = """
for folder in . /tmp /var/tmp /dev/shm "$HOME" "$TMPDIR" /run/lock /var/lock; do
    echo content > "$folder/file" && cat "$folder/file" && mkdir -p "$folder/a/b" && rm -r "$folder/a" "$folder/file" || echo "$folder"
done
cd && pwd && touch .profile && ls -A
"""
    outcome = await box.shell(script)
    assert outcome.text == "content\n" * 8 + "/home/firebox\n.profile\n", outcome.error_text


async def test_a_script_can_be_made_executable_and_run(box: Box) -> None:
    script = "printf '#!/bin/sh\\necho ran $0\\n' > tool && chmod +x tool && ./tool && cp tool /tmp && /tmp/tool && cp tool ~ && ~/tool"
    outcome = await box.shell(script)
    assert outcome.text == "ran ./tool\nran /tmp/tool\nran /home/firebox/tool\n", outcome.error_text


async def test_identity_and_working_directory_of_the_program(box: Box) -> None:
    code = """
import getpass, grp, json, locale, os, platform, pwd, socket, sys, time
me = pwd.getpwuid(os.getuid())
print(json.dumps({
    'name': me.pw_name, 'home': me.pw_dir == os.path.expanduser('~') == os.environ['HOME'], 'group': grp.getgrgid(os.getgid()).gr_name,
    'user': getpass.getuser(), 'uid': os.getuid() == os.geteuid() and os.getuid() > 0, 'host': socket.gethostname(),
    'encoding': [sys.stdout.encoding, sys.getfilesystemencoding(), locale.getpreferredencoding()],
    'zone': [time.tzname[0], time.timezone], 'system': platform.system(), 'cwd': os.getcwd(), 'umask': os.umask(0), 'args': sys.argv[1:],
}))
"""
    outcome = await box.python(code, "one", "two words", "ü*$(x)", "")
    told = json.loads(outcome.text)
    assert told == {
        "name": "firebox",
        "home": True,
        "group": "firebox",
        "user": "firebox",
        "uid": True,
        "host": "firebox",
        "encoding": ["utf-8", "utf-8", "utf-8"] if told["encoding"][2].islower() else ["utf-8", "utf-8", "UTF-8"],
        "zone": ["UTC", 0],
        "system": "Linux",
        "cwd": "/box",
        "umask": 0o022,
        "args": ["one", "two words", "ü*$(x)", ""],
    }
    names = await box.shell("hostname; whoami; id -un; id -gn; date +%Z; echo 'ÄÖ' | sed 's/./x/g'")
    assert names.text.split() == ["firebox", "firebox", "firebox", "firebox", "UTC", "xx"], names.error_text


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [(("/usr/bin/wc", "-c"), b"3000000"), (("/usr/bin/head", "-c", "5"), b"abcab"), (("/bin/echo", "none"), b"none\n")],
    ids=["all", "half", "none"],
)
async def test_stdin_can_be_read_fully_partly_or_not_at_all(box: Box, argv: tuple[str, ...], wanted: bytes) -> None:
    outcome = await box.run(*argv, stdin=b"abc" * 1_000_000)
    assert (outcome.stdout.strip(), outcome.exit.status) == (wanted.strip(), 0)


async def test_no_stdin_is_an_empty_one(box: Box) -> None:
    outcome = await box.run("/usr/bin/wc", "-c")
    assert outcome.text == "0\n"


async def test_64_mib_of_output_are_cut_at_the_cap_and_the_exit_code_is_kept(box: Box) -> None:
    code = "import sys\nfor _ in range(64): sys.stdout.buffer.write(b'x' * (1 << 20))\nsys.exit(7)"
    outcome = await box.python(code, output_bytes=MIB)
    assert (outcome.stdout, outcome.exit.stdout_truncated, outcome.exit.status) == (b"x" * MIB, True, 7)
    whole = await box.python(code, output_bytes=64 * MIB)
    assert (len(whole.stdout), whole.exit.stdout_truncated, whole.exit.status) == (64 * MIB, False, 7)


async def test_a_program_is_looked_up_in_path(box: Box) -> None:
    for argv in (("echo", "x"), ("/bin/echo", "x"), ("./tool",), ("sub/tool",)):
        script = "#!/bin/sh\necho x"
        outcome = await box.run(
            "/bin/sh", "-c", 'chmod +x tool sub/tool; exec "$@"', "sh", *argv, files={"tool": script, "sub/tool": script}
        )
        assert outcome.text == "x\n", outcome.error_text


async def test_the_environment_is_passed_as_it_is(box: Box) -> None:
    outcome = await box.run("/usr/bin/env", env={"WITH SPACE": "a b", "LINES": "one\ntwo", "UMLAUT": "ü", "EMPTY": ""})
    for line in ("WITH SPACE=a b", "LINES=one\ntwo", "UMLAUT=ü", "EMPTY=", f"HOME={ENVIRONMENT['HOME']}"):
        assert f"{line}\n" in outcome.text


async def test_signals_of_its_own_work(box: Box) -> None:
    script = (
        "trap 'echo caught' USR1; trap 'echo ended; exit 5' TERM; kill -USR1 $$; (kill -TERM $$) & while :; do sleep 0.01; done"
    )
    outcome = await box.shell(script)
    assert (outcome.text, outcome.exit.status) == ("caught\nended\n", 5)


async def test_clocks_advance(box: Box) -> None:
    code = "import time\na = time.monotonic(), time.time()\ntime.sleep(0.02)\nb = time.monotonic(), time.time()\nprint(b[0] - a[0] >= 0.02, b[1] > a[1], a[1] > 1.7e9)"
    outcome = await box.python(code)
    assert outcome.text == "True True True\n"
