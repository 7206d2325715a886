"""The words of the design as types: job, stage, event, result. Every floor above speaks them, no protocol spells them."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Iterable
from enum import StrEnum
from signal import Signals
from typing import TYPE_CHECKING, Literal, Protocol, Self

from msgspec import Struct, field

from firebox.domain.limits import Deadline, LimitRequest, StageName

if TYPE_CHECKING:
    from firebox.domain.errors import FireboxError

StreamName = Literal["stdout", "stderr"]
CacheLevel = Literal["none", "binary", "output"]
"""What may be kept of a job: nothing, what the compile stage made, or that and the outcome."""


class Verdict(StrEnum):
    """What became of a stage, or of a job: the first stage that is not `ok` decides.

    | verdict       | when                                                                              |
    | ------------- | --------------------------------------------------------------------------------- |
    | ok            | exit code 0                                                                       |
    | compile_error | the compiler exited non-zero or died on a signal (job only)                       |
    | runtime_error | exit code not 0                                                                   |
    | signal        | died on a signal that no limit sent                                               |
    | wall_time     | killed: lived longer than `wall_ms`                                               |
    | cpu_time      | killed: used more CPU time than `cpu_ms`                                          |
    | memory        | the whole tree reached `memory_bytes`                                             |
    | output        | killed: wrote more than `output_bytes` to one stream, in mode `kill`              |
    | cancelled     | the client asked, or went away                                                    |
    | internal      | our own failure; `reason` says which step                                         |
    """

    OK = "ok"
    COMPILE_ERROR = "compile_error"
    RUNTIME_ERROR = "runtime_error"
    SIGNAL = "signal"
    WALL_TIME = "wall_time"
    CPU_TIME = "cpu_time"
    MEMORY = "memory"
    OUTPUT = "output"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class File(Struct, frozen=True):
    """A file of a job. name: relative, may hold "/", never leaves the folder. source: False for data, not code to compile."""

    name: str
    content: bytes
    source: bool = True


class Terminal(Struct, frozen=True):
    """A PTY instead of pipes: stdout and stderr are then one stream, `stdout`."""

    rows: int = 24
    columns: int = 80


class Image(Struct, frozen=True, kw_only=True):
    """A container image as the runtime of a job. Empty fields: the image's own."""

    name: str
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    """Name or number."""
    hostname: str = ""
    read_only: bool = False
    """Keep the container from writing to its root; a /tmp in memory is then all that it can write."""


class Job(Struct, frozen=True, kw_only=True):
    """Runtime + files + stdin + args + limits."""

    id: str = ""
    """A ULID if the job was named when it was accepted; else the executor creates one."""
    language: str
    """Name or alias."""
    version: str = "*"
    """SemVer range as npm spells it; the newest match wins."""
    installed: str = ""
    """When not empty: the installed package whose runtime is meant, whatever else goes by that name (`Runtime.installed`)."""
    image: Image | None = None
    """When not None: run this in a container instead. It takes `args`, `stdin` and `run_limits`, and has no compile stage."""
    files: tuple[File, ...] = ()
    """The first file with `source` is the main file."""
    stdin: bytes = b""
    interactive: bool = False
    """True: after `stdin`, more comes by `Run.send(Stdin)` until `Run.send(Eof)`."""
    attended: bool = False
    """True: a person sits at the other end. Such a run has longer defaults, an idle time, and slots of its own."""
    args: tuple[str, ...] = ()
    compile_args: tuple[str, ...] = ()
    """Arguments of the compiler: those that the runtime allows, `Runtime.compile_args`."""
    env: dict[str, str] = field(default_factory=dict[str, str])
    command: str = ""
    """When not empty: replaces compile and run, by `sh -c` in the folder of the files."""
    compile_limits: LimitRequest = LimitRequest()
    run_limits: LimitRequest = LimitRequest()
    clamp_limits: bool = False
    """True: a limit above the operator's maximum is lowered to it; else it is refused."""
    deadline: Deadline | None = None
    """Of all stages together; None: each stage has its own limits only."""
    cache: CacheLevel | None = None
    """What may be kept of it and served again; None: what is usual for the runtime."""
    fresh: bool = False
    """True: its programs are started when it comes, none of them before, and none is restored from a template."""
    artifacts: tuple[str, ...] = ()
    """Globs, relative to the folder: files to hand back after the run."""
    terminal: Terminal | None = None
    client: str = ""
    """Whom fairness counts this job against: a user, a token, an address."""
    account: str = ""
    """Whom the job belongs to: a user or the operator; "" for a client without a token."""


class Chunk(Struct, frozen=True):
    """A piece of output, in arrival order."""

    stream: StreamName
    data: bytes


class StageResult(Struct, frozen=True, kw_only=True):
    """What one stage left. Times in milliseconds, memory in bytes."""

    stage: StageName
    verdict: Verdict
    """Never `compile_error`: a compiler that exits non-zero is `runtime_error` of the compile stage."""
    reason: str
    """Words with evidence ("memory limit: peak 256 MiB of 256 MiB"); "" when ok."""
    exit_code: int | None
    signal: str | None
    """Name ("SIGKILL", "SIG35" for a real-time one), or None."""
    chunks: tuple[Chunk, ...]
    stdout_truncated: bool
    stderr_truncated: bool
    wall_ms: float
    cpu_ms: float
    memory_peak_bytes: int

    @property
    def stdout(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks if chunk.stream == "stdout")

    @property
    def stderr(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks if chunk.stream == "stderr")

    @property
    def shell_status(self) -> int:
        """The exit status as a shell reports it: 128 + N for a program that signal N killed."""
        return self.exit_code if self.exit_code is not None else 128 + signal_number(self.signal or "SIGKILL")


def signal_number(name: str) -> int:
    """Return the number of a signal. Real-time signals are named by it ("SIG35")."""
    known = Signals.__members__.get(name)
    return int(name.removeprefix("SIG")) if known is None else int(known)


class RuntimeName(Struct, frozen=True):
    """Which runtime served: its language and its exact version."""

    language: str
    version: str


class Timings(Struct, frozen=True, kw_only=True):
    """Where the time of a job went, milliseconds."""

    queue_ms: float
    prepare_ms: float
    """Waiting for a sandbox and filling it, all stages together."""
    compile_ms: float
    run_ms: float


class LeftOut(Struct, frozen=True):
    """An artifact that was not handed back. name: of a file, printable and cut to a bearable length, or the pattern."""

    name: str
    reason: str


class Result(Struct, frozen=True, kw_only=True):
    """What is left of a job. compile: None for runtimes without that stage; run: None when compiling failed."""

    id: str
    runtime: RuntimeName
    verdict: Verdict
    reason: str
    compile: StageResult | None
    run: StageResult | None
    timings: Timings
    artifacts: tuple[File, ...]
    left_out: tuple[LeftOut, ...] = ()
    """What matched `Job.artifacts` and was not handed back, and patterns that nothing matched; the first hundred."""
    cache: CacheLevel = "none"
    """What it was served from: nothing, a compiled program that was kept, or an outcome that was kept. What was not done again
    took no time and no memory: zeros."""
    isolation: tuple[str, ...]
    """The layers that were on, by the names `firebox doctor` uses."""


class Queued(Struct, frozen=True, kw_only=True, tag="queued"):
    """The first event: the job is admitted and waits for a slot.

    This event and the next have no number: sequence numbers are part of protocols, which have no word for them.
    """

    sequence: int = 0


class Dispatched(Struct, frozen=True, kw_only=True, tag="dispatched"):
    """The job has a slot. It may come right after `Queued`, and never comes for a job that was cancelled before."""

    sequence: int = 0


class StageStarted(Struct, frozen=True, kw_only=True, tag="stage_started"):
    """A program is now running."""

    sequence: int
    stage: StageName


class Output(Struct, frozen=True, kw_only=True, tag="output"):
    """A piece of output, as it arrived; never empty."""

    sequence: int
    stage: StageName
    stream: StreamName
    data: bytes


class StageExited(Struct, frozen=True, kw_only=True, tag="stage_exited"):
    """The stage's whole tree is gone and its output is complete."""

    sequence: int
    result: StageResult


class Finished(Struct, frozen=True, kw_only=True, tag="finished"):
    """The last event, exactly once, whatever happened."""

    sequence: int
    result: Result


Event = Queued | Dispatched | StageStarted | Output | StageExited | Finished


class Stdin(Struct, frozen=True):
    """More input for an interactive job. Ignored once the program has closed its stdin or ended."""

    data: bytes


class Eof(Struct, frozen=True):
    """Close the program's stdin."""


class Signal(Struct, frozen=True):
    """Send a signal to the program's process group. name: "SIGINT" ..."""

    name: str


class Resize(Struct, frozen=True):
    """Resize the terminal of a job that has one."""

    rows: int
    columns: int


class Cancel(Struct, frozen=True):
    """Kill the job: verdict `cancelled`."""


Message = Stdin | Eof | Signal | Resize | Cancel

SIGNALS = (
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV",
    "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG",
    "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
)  # fmt: skip
"""The names that `Signal` takes."""


class Run(Protocol):
    """A job from its admission to its last event. Leaving its context cancels it and waits until nothing of it is left."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exception: object) -> None: ...

    @property
    def id(self) -> str:
        """A ULID: sorts by time."""
        ...

    @property
    def job(self) -> Job: ...

    @property
    def runtime(self) -> RuntimeName: ...

    @property
    def is_queued(self) -> bool:
        """Whether it waits for a slot."""
        ...

    @property
    def failure(self) -> FireboxError | OSError | None:
        """Why the verdict is `internal`, where an error class exists for it. OSError: a file of the job cannot be written."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """Every event from the first, in order, ending with `Finished`. To be iterated once."""
        ...

    async def result(self) -> Result:
        """Wait for the result. To be called instead of `events`, of which none are kept then."""
        ...

    async def send(self, message: Message) -> None:
        """Pass a message to the program. Ignored after the run has ended.

        Input is queued from admission on. Once it is queued, wait while much of it has not been read by the program.
        Raises: InvalidRequest for an unknown signal name or a terminal out of range.
        """
        ...


class Executor(Protocol):
    """Whatever can run a job: this machine's engine, or a fleet."""

    def submit(self, job: Job) -> Run:
        """Admit a job, which then runs or waits for a slot. The caller enters the run's context.

        Raises: UnknownRuntime, LimitTooHigh, LimitNotEnforceable, InvalidRequest, PartUnavailable, QueueFull, ShuttingDown.
        What goes wrong later is in the result (`internal`), never raised.
        """
        ...


def interleave(chunks: Iterable[Chunk]) -> str:
    """Decode both streams as UTF-8 into one text in arrival order.

    A character split over two chunks of one stream survives even when the other stream wrote in between; it then stands
    where its last byte arrived. Undecodable bytes become U+FFFD.
    """
    chunks = list(chunks)
    if len({chunk.stream for chunk in chunks}) == 1:
        return b"".join(chunk.data for chunk in chunks).decode(errors="replace")
    decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
    parts = [decoders[chunk.stream].decode(chunk.data) for chunk in chunks]
    parts += [decoder.decode(b"", final=True) for decoder in decoders.values()]
    return "".join(parts)
