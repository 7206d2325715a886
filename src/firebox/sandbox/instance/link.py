"""The message link between the server and PID 1 of one sandbox."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Exceeded, Exited, Kind, Phase, StartFlag
from firebox.sandbox.spec import Command, CommandRefused, SandboxFailure

_REFUSED_STEPS: dict[int, str] = {Phase.FILES: "files", Phase.TERMINAL: "terminal"}
_EXCEEDED = frozenset(Exceeded)


class Running(NamedTuple):
    """The program runs. prestarted: it was waiting already. terminal: its master side, now the receiver's; -1 without one."""

    prestarted: bool
    terminal: int = -1


class Hangup(NamedTuple):
    """PID 1 is gone: it exited, or it was killed by the kernel or by us."""


Reply = Running | Exited | CommandRefused | Hangup


class Link:
    """Sends commands to PID 1 and checks what it replies.

    PID 1 shares its sandbox with hostile code, so its messages are untrusted input. connection: non-blocking, becomes ours.
    """

    def __init__(self, watcher: Watcher, connection: socket.socket) -> None:
        self._watcher = watcher
        self._socket = connection
        self.is_open = True
        self._is_answered = False
        self._has_exited = False

    @property
    def is_dead(self) -> bool:
        """Whether PID 1 is gone, without reading anything."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def start(self, command: Command) -> None:
        """Send the command, and the contents of files by descriptor: a pack, and a memfd. Raises: CommandRefused, OSError."""
        descriptors: list[int] = []
        memory = -1
        try:
            if command.packed is not None:
                descriptors.append(command.packed.descriptor)
            if command.files:
                memory = os.memfd_create("files", os.MFD_CLOEXEC)
                for file in command.files:
                    messages.write_all(memory, file.content)
                descriptors.append(memory)
            messages.send(self._socket, start_message(command), descriptors)
        except ValueError as error:
            raise CommandRefused("start", errno.EINVAL, str(error)) from None
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise CommandRefused("start", errno.E2BIG, os.strerror(errno.E2BIG)) from None
            raise
        finally:
            if memory >= 0:
                os.close(memory)

    def signal(self, number: int) -> None:
        """Send a signal to the program's process group. Best effort: a full link drops it, as the kernel merges signals."""
        if self.is_open and not self._has_exited:
            self._try_to_send(messages.pack(messages.Signal(Kind.SIGNAL, number)))

    def stop(self) -> bool:
        """Have PID 1 kill the program. Returns False when the message cannot be sent."""
        return self._try_to_send(messages.pack(messages.Stop(Kind.STOP, 0)))

    def collect(self, patterns: Sequence[str], max_bytes: int, max_files: int, budget_ms: float) -> int:
        """Have PID 1 write the matching files to a pipe. Returns its read end. Raises: OSError, ValueError for a NUL."""
        text = messages.Text(patterns)
        head = messages.Collect(Kind.COLLECT, len(patterns), max_bytes, max_files, int(budget_ms), text.bytes)
        readable, writable = os.pipe()
        try:
            messages.send(self._socket, messages.pack(head) + text.encoded(), (writable,))
        except BaseException:
            os.close(readable)
            raise
        finally:
            os.close(writable)
        return readable

    def receive(self) -> Reply | None:
        """Return the next reply, None when there is none yet. Raises: SandboxFailure for a malformed or unexpected one."""
        try:
            data, descriptors = messages.receive(self._socket)
        except BlockingIOError:
            return None
        try:
            return self._parse(data, descriptors) if data else Hangup()
        except ValueError as error:
            raise SandboxFailure("message", detail=str(error)) from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back whenever there is something to receive."""
        self._watcher.add(self._socket.fileno(), callback)

    def hang_up(self) -> None:
        """Stop listening: PID 1 is gone, or what it sends is malformed."""
        self.is_open = False
        self._watcher.remove(self._socket.fileno())

    def close(self) -> None:
        self.hang_up()
        self._socket.close()

    def _parse(self, data: bytes, descriptors: list[int]) -> Reply:
        """Decode a message. What it keeps is removed from `descriptors`. Raises: SandboxFailure, ValueError."""
        kind = messages.kind_of(data)
        if self._is_answered:
            if kind == Kind.EXITED and not self._has_exited:
                message = messages.unpack(Exited, data)
                _check_exit(message)
                self._has_exited = True
                return message
        elif kind == Kind.STARTED:
            prestarted = messages.unpack(messages.Started, data).prestarted == 1
            self._is_answered = True
            return Running(prestarted, descriptors.pop() if descriptors else -1)
        elif kind == Kind.REFUSED:
            refused, about = messages.unpack_with_text(messages.Refused, data)
            self._is_answered = True
            reason = messages.error_text(refused.error)
            step = _REFUSED_STEPS.get(refused.phase, "start")
            return CommandRefused(step, refused.error, f"{reason}: {about}" if about else reason)
        elif kind == Kind.FAILED:
            failed, call = messages.unpack_with_text(messages.Failed, data)
            raise SandboxFailure("serve", failed.error, f"{messages.error_text(failed.error)}: {call}")
        raise SandboxFailure("message", detail="not expected now")

    def _try_to_send(self, message: bytes) -> bool:
        try:
            messages.send(self._socket, message)
        except OSError:
            return False
        return True


def start_message(command: Command) -> bytes:
    """Encode a command. Raises: CommandRefused, ValueError for a NUL in a string or an invalid variable name."""
    if any("=" in name or not name for name in command.env):
        raise ValueError("illegal name of an environment variable")
    resume = command.resume_words if command.capture is None else (command.capture,)
    variables = [f"{name}={value}" for name, value in command.env.items()]
    text = messages.Text((*command.argv, *variables, *(resume or ())))
    files, packs = _packed_files(command, text)
    rows, columns = command.terminal or (0, 0)
    head = messages.Start(
        kind=Kind.START,
        flags=(StartFlag.TERMINAL if command.terminal is not None else 0)
        | (StartFlag.CAPTURE if command.capture is not None else 0)
        | (StartFlag.OTHER_PID if command.other_pid else 0),
        rows=rows,
        columns=columns,
        cpu_ms=command.cpu_ms,
        memory_bytes=command.memory_bytes,
        stack_bytes=command.stack_bytes,
        file_size_bytes=command.file_size_bytes,
        processes=command.processes,
        open_files=command.open_files,
        words=len(command.argv),
        variables=len(command.env),
        resume_words=len(resume) if resume is not None else messages.NO_WORDS,
        packs=packs,
        files=len(files),
        text_bytes=text.bytes,
    )
    return b"".join((messages.pack(head), *files, text.encoded()))


def _packed_files(command: Command, text: messages.Text) -> tuple[list[bytes], int]:
    """Encode where the command's files lie. Returns them and the number of packs. Raises: CommandRefused."""
    layout = messages.layout(messages.PackedFile)
    files: list[bytes] = []
    packs = 0
    try:
        if command.packed is not None:
            files += [
                layout.pack(each.offset, each.size, each.mode, packs, text.add(each.name), 0) for each in command.packed.files
            ]
            packs += 1
        if command.files:
            offset = 0
            for file in command.files:
                files.append(layout.pack(offset, len(file.content), file.mode, packs, text.add(file.name), 0))
                offset += len(file.content)
            packs += 1
    except ValueError as error:
        raise CommandRefused("files", errno.EINVAL, str(error)) from None
    return files, packs


def _check_exit(message: Exited) -> None:
    """Validate an exit report. Raises: SandboxFailure for values that no process can have."""
    numbers = (message.cpu_us, message.memory_peak_bytes)
    if not -signal.NSIG < message.status < 256 or message.exceeded not in _EXCEEDED or max(numbers) >= 1 << 63:
        raise SandboxFailure("exit", detail="malformed report")
