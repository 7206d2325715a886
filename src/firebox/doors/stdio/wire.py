"""One request on standard input, one response on standard output: their types, and conversion to and from the model.

In:  {"language", "files": [{"name", "content"}, ...], "stdin"?, "command"?}
Out: {"stdout","stderr","error"}

Source: docs/reference/rce-runner.md.
"""

from __future__ import annotations

import json
import os
import select

import msgspec
from msgspec import Struct

from firebox.domain.errors import InvalidRequest
from firebox.domain.model import File, Job, Result, Verdict
from firebox.doors.http.json_body import convert, parse
from firebox.doors.http.json_size import check
from firebox.service.validation import check_job, encode_text

READ_BYTES = 1 << 20


class FileBody(Struct):
    """A file; neither part may be empty. The first one is the main file."""

    name: str
    content: str


class RequestBody(Struct):
    """A request. Unknown keys are ignored, and null counts as a missing key, as in the reference."""

    language: str
    files: list[FileBody]
    stdin: str | None = None
    command: str | None = None


class Answer(Struct):
    """The response. error: "" on success, `Exit code: N`, or a message."""

    stdout: str = ""
    stderr: str = ""
    error: str = ""


def read_request(descriptor: int, at_most_bytes: int) -> bytes:
    """Read one JSON object, up to its end: the sender may keep the connection open. Raises: InvalidRequest for a larger one."""
    read = bytearray()
    while piece := os.read(descriptor, READ_BYTES):
        read += piece
        if len(read) > at_most_bytes:
            raise InvalidRequest(
                f"the request is larger than {at_most_bytes} bytes", hint="FIREBOX_MAX_BODY_BYTES sets how much it may be"
            )
        if read.rstrip().endswith(b"}") and not select.select([descriptor], [], [], 0)[0] and _is_complete(read):
            break
    return bytes(read)


def to_job(request: bytes) -> Job:
    """Convert a request to a job, and check it. Raises: InvalidRequest; `where` is the field as the client wrote it."""
    body = convert(parse(check(request)), RequestBody)
    if not body.files:
        raise InvalidRequest("at least one file is needed", where="files")
    for index, file in enumerate(body.files):
        if not file.name:
            raise InvalidRequest("the name is empty", where=f"files[{index}].name")
        if not file.content:
            raise InvalidRequest("the file is empty", where=f"files[{index}].content")
    files = [File(file.name, encode_text(file.content, where=f"files[{index}].content")) for index, file in enumerate(body.files)]
    job = Job(
        language=body.language, files=tuple(files), stdin=encode_text(body.stdin or "", where="stdin"), command=body.command or ""
    )
    check_job(job)
    return job


def from_result(result: Result) -> Answer:
    """Convert a result: the output of the program or, if it did not start, of the stage that failed."""
    stage = result.run or result.compile
    if stage is None:
        return Answer(error=result.reason or result.verdict.value)
    cut = [name for name, is_cut in (("stdout", stage.stdout_truncated), ("stderr", stage.stderr_truncated)) if is_cut]
    failed = result.verdict in (Verdict.RUNTIME_ERROR, Verdict.COMPILE_ERROR) and stage.exit_code is not None
    return Answer(
        stdout=stage.stdout.decode(errors="replace"),
        stderr=stage.stderr.decode(errors="replace"),
        error=f"Exit code: {stage.exit_code}" if failed else result.reason or (f"{' and '.join(cut)} was cut" if cut else ""),
    )


def encode(answer: Answer) -> bytes:
    """Encode a response as the reference does: these three keys in this order, no spaces."""
    return msgspec.json.encode(answer)


def _is_complete(read: bytearray) -> bool:
    """Return whether a whole JSON document was read. What is wrong with an invalid one is reported at the end of the input."""
    try:
        json.loads(read)
    except (ValueError, RecursionError):
        return False
    return True
