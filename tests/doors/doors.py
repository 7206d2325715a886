"""Every door as seen by a client of its protocol: runs a program and returns its outcome in a common form."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import grpc
import httpx
import socketio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from firebox.doors.runner.proto.runner_pb2 import CodeRequest, CodeResponse
from tests.doors.outcome import Ending, Outcome, Program
from tests.support.server import RunningServer, data_folder, environment, unused_uid_base

SECONDS = 120
ADMIN_TOKEN = "token-of-the-operator"
JOB_COMPLETED = 4999


class Door(ABC):
    """One protocol. takes: which parts of a program it supports beside one file of code."""

    name: str
    takes: frozenset[str] = frozenset()

    def __init__(self, server: RunningServer, limits: Mapping[str, str]) -> None:
        """limits: those of the server, for a door that is a process of its own."""
        self.server = server
        self.limits = limits

    @abstractmethod
    def run(self, program: Program) -> Outcome:
        """Run a program through the door. Return its outcome."""

    def expected(self, outcome: Outcome) -> Outcome:
        """Reduce an outcome to what this door can report."""
        return outcome

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, timeout=SECONDS, trust_env=False)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body, headers=headers)


def files_of(program: Program) -> list[dict[str, str]]:
    return [{"name": name, "content": content} for name, content in program.files]


class Native(Door):
    name = "native"
    takes = frozenset({"stdin", "files"})
    endings: Mapping[str, Ending] = {
        "ok": "ok",
        "runtime_error": "failed",
        "compile_error": "compile error",
        "wall_time": "too slow",
        "cpu_time": "too slow",
        "output": "too much output",
    }

    def run(self, program: Program) -> Outcome:
        body = {"language": program.language, "files": files_of(program), "stdin": program.stdin}
        answer = self.post("/api/v1/runs", body)
        if answer.status_code == 400:
            assert answer.json()["error"]["code"] == "request.unknown_runtime"
            return Outcome("refused")
        assert answer.status_code == 200, answer.text
        result = answer.json()
        stage: dict[str, Any] = result["run"] or {"stdout": "", "stderr": None, "exit_code": None}
        return Outcome(self.endings[result["verdict"]], stage["stdout"], stage["stderr"], stage["exit_code"])


class Piston(Door):
    name = "piston"
    takes = frozenset({"stdin", "files"})

    def run(self, program: Program) -> Outcome:
        body = {"language": program.language, "version": "*", "files": files_of(program), "stdin": program.stdin}
        answer = self.post("/api/v2/execute", body)
        if answer.status_code == 400:
            assert "runtime is unknown" in answer.json()["message"]
            return Outcome("refused")
        assert answer.status_code == 200, answer.text
        result = answer.json()
        compiled = result.get("compile")
        if compiled is not None and compiled["code"] != 0:
            return Outcome("compile error", "")
        stage = result["run"]
        return Outcome(piston_ending(stage), stage["stdout"], stage["stderr"], stage["code"])


def piston_ending(stage: Mapping[str, Any]) -> Ending:
    match stage["status"]:
        case "TO":
            return "too slow"
        case "OL" | "EL":
            return "too much output"
        case "RE":
            return "failed"
        case status:
            assert status is None, stage
            return "ok"


class PistonLive(Door):
    """Piston's WebSocket, which reports an exit code or a signal only."""

    name = "piston-websocket"
    takes = frozenset({"stdin", "files"})

    def run(self, program: Program) -> Outcome:
        output = {"stdout": "", "stderr": ""}
        exits: dict[str, Any] = {}
        url = self.server.url.replace("http://", "ws://") + "/api/v2/connect"
        with connect(url, proxy=None, max_size=None) as connection:
            files = files_of(program)
            connection.send(json.dumps({"type": "init", "language": program.language, "version": "*", "files": files}))
            sent = False
            try:
                while True:
                    message = json.loads(connection.recv(timeout=SECONDS))
                    match message["type"]:
                        case "stage" if message["stage"] == "run" and program.stdin and not sent:
                            sent = True
                            connection.send(json.dumps({"type": "data", "stream": "stdin", "data": program.stdin}))
                        case "data":
                            output[message["stream"]] += message["data"]
                        case "exit":
                            exits[message["stage"]] = message
                        case "error":
                            return Outcome("refused")
                        case _:
                            pass
            except ConnectionClosed:
                assert connection.close_code == JOB_COMPLETED
        if exits.get("compile", {"code": 0})["code"] != 0:
            return Outcome("compile error", "")
        ended = exits["run"]
        if ended["signal"] is not None:
            return Outcome(None)
        return Outcome("failed" if ended["code"] else "ok", output["stdout"], output["stderr"], ended["code"])

    def expected(self, outcome: Outcome) -> Outcome:
        return replace(outcome, ending=None) if outcome.ending in {"too slow", "too much output"} else outcome


def glot_user(server: RunningServer) -> str:
    """Create a user as a glot-run operator. Return the token for runs."""
    token = secrets.token_urlsafe()
    headers = {"Authorization": f"Token {ADMIN_TOKEN}"}
    answer = httpx.post(f"{server.url}/admin/users", json={"token": token}, headers=headers, trust_env=False, timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    return token


class Glot(Door):
    """glot-run, where a failed compiler is an exit code like any other."""

    name = "glot-run"
    takes = frozenset({"stdin", "files"})
    words: Mapping[str, Ending] = {
        "Code exceeded the maximum allowed running time": "too slow",
        "Output exceeded the maximum allowed size": "too much output",
    }

    def run(self, program: Program) -> Outcome:
        body = {"files": files_of(program), "stdin": program.stdin}
        token = glot_user(self.server)
        path = f"/languages/{names_of_others(program.language)}/latest"
        answer = self.post(path, body, Authorization=f"Token {token}")
        if answer.status_code == 404:
            return Outcome("refused")
        if answer.status_code == 400:
            return Outcome(self.words[answer.json()["message"]])
        assert answer.status_code == 200, answer.text
        return exit_code_in_words(answer.json())

    def expected(self, outcome: Outcome) -> Outcome:
        return compiler_is_a_program(outcome)


def names_of_others(language: str) -> str:
    """glot-run's and rce-runner's name for python3."""
    return {"python3": "python"}.get(language, language)


def exit_code_in_words(answer: Mapping[str, str]) -> Outcome:
    """Parse `{"stdout", "stderr", "error"}`."""
    if not answer["error"]:
        return Outcome("ok", answer["stdout"], answer["stderr"], 0)
    assert answer["error"].startswith("Exit code: "), answer
    code = int(answer["error"].removeprefix("Exit code: "))
    return Outcome("failed", answer["stdout"], answer["stderr"], code)


def limit_in_words(words: str) -> Ending | None:
    """Return the limit that ended a program, for doors that pass on the engine's reason."""
    if re.match(r"(wall|CPU) time limit: ", words):
        return "too slow"
    return "too much output" if words.startswith("output limit: ") else None


def compiler_is_a_program(outcome: Outcome) -> Outcome:
    return Outcome("failed", "", None, 1) if outcome.ending == "compile error" else outcome


class Grounds(Door):
    """grounds-exec: output as it arrives, and the exit code as a signed byte."""

    name = "grounds-exec"
    words: Mapping[str, Ending] = {"Timeout exceeded.": "too slow", "Output limit exceeded.": "too much output"}

    def run(self, program: Program) -> Outcome:
        return asyncio.run(self._run(program))

    async def _run(self, program: Program) -> Outcome:
        output = {"stdout": "", "stderr": ""}
        async with socketio.AsyncSimpleClient() as client:
            await client.connect(self.server.url, transports=["websocket"])
            await client.emit("run", {"language": program.language, "code": program.code})
            while True:
                event, reply = await client.receive(timeout=SECONDS)
                assert event == "run"
                stream, chunk = reply["stream"], reply["chunk"]
                if stream in output:
                    output[stream] += chunk
                elif stream == "status":
                    code = chunk % 256
                    return Outcome("failed" if code else "ok", output["stdout"], output["stderr"], code)
                elif stream == "error":
                    return Outcome(self.words.get(chunk, "refused"))
                else:
                    assert stream == "start"

    def expected(self, outcome: Outcome) -> Outcome:
        return compiler_is_a_program(outcome)


class Stdio(Door):
    """rce-runner, a command. A program ended by a limit has a message in `error`."""

    name = "rce-runner"
    takes = frozenset({"stdin", "files"})

    def run(self, program: Program) -> Outcome:
        request = {"language": names_of_others(program.language), "files": files_of(program), "stdin": program.stdin}
        done = subprocess.run(
            [sys.executable, "-m", "firebox.cli.one_request.rce_runner"],
            input=json.dumps(request).encode(),
            env=environment({**self.limits, "FIREBOX_DATA_DIR": str(data_folder()), "FIREBOX_UID_BASE": str(unused_uid_base())}),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode == 1:
            assert done.stdout == b""
            assert done.stderr
            return Outcome("refused")
        assert done.returncode == 0, done.stderr
        answer = cast("dict[str, str]", json.loads(done.stdout))
        if ending := limit_in_words(answer["error"]):
            return Outcome(ending)
        return exit_code_in_words(answer)

    def expected(self, outcome: Outcome) -> Outcome:
        return compiler_is_a_program(outcome)


def run_code(channel: grpc.Channel) -> Any:
    """The call RunCode, for a synchronous client."""
    return channel.unary_unary(
        "/runner.Runner/RunCode",
        request_serializer=CodeRequest.SerializeToString,
        response_deserializer=CodeResponse.FromString,
    )


class Runner(Door):
    """Runner over gRPC: stderr is the program's error; its exit is not reported otherwise."""

    name = "runner-grpc"

    def run(self, program: Program) -> Outcome:
        request = CodeRequest(code=program.code, language=program.language)
        with grpc.insecure_channel(self.server.ready["grpc"]) as channel:
            future = run_code(channel).future(request, timeout=SECONDS)
            if future.exception(SECONDS) is not None:
                assert future.code() is grpc.StatusCode.INVALID_ARGUMENT, future
                return Outcome("refused")
            answer = future.result()
        return self.read(answer.output, answer.error)

    def read(self, output: str, error: str) -> Outcome:
        if not error:
            return Outcome("ok", output, "")
        if code := re.fullmatch(r"exit code (\d+)", error):
            return Outcome("failed", output, "", int(code[1]))
        if ending := limit_in_words(error):
            return Outcome(ending)
        return Outcome(None, output, error)

    def expected(self, outcome: Outcome) -> Outcome:
        if outcome.stderr or outcome.ending == "compile error":
            return replace(outcome, ending=None, exit_code=None)
        return replace(outcome, exit_code=None) if outcome.ending == "ok" else outcome


class RunnerGateway(Runner):
    """The same calls as JSON."""

    name = "runner-gateway"

    def run(self, program: Program) -> Outcome:
        answer = self.post("/run", {"code": program.code, "language": program.language})
        if answer.status_code == 400:
            assert answer.json()["code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            return Outcome("refused")
        assert answer.status_code == 200, answer.text
        return self.read(answer.json()["output"], answer.json()["error"])


DOORS: tuple[type[Door], ...] = (Native, Piston, PistonLive, Glot, Grounds, Stdio, Runner, RunnerGateway)
