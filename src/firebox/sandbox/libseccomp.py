"""The few calls of libseccomp that compile a filter.

Source: seccomp_init(3), seccomp_rule_add(3), seccomp_attr_set(3), seccomp_export_bpf(3).
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

KILL_PROCESS = 0x80000000
NOTIFY = 0x7FC00000
ALLOW = 0x7FFF0000

CMP_NE, CMP_EQ, CMP_MASKED_EQ = 1, 4, 7
ATTR_ACT_BADARCH, ATTR_CTL_OPTIMIZE = 2, 8

_LIBRARY = "libseccomp.so.2"
_UNKNOWN_CALL = -1


def errno_action(number: int) -> int:
    """Return the action that fails a call with this error; 0 is success."""
    return 0x00050000 | number


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`. For CMP_MASKED_EQ `datum_a` is the mask, `datum_b` the value; else `datum_a` is the value."""

    _fields_ = [
        ("position", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


class SystemCallFilter:
    """A filter that grows rule by rule. default: the action where no rule matches. Raises: OSError without libseccomp."""

    def __init__(self, default: int) -> None:
        self._library = _library()
        self._context = self._library.seccomp_init(default)
        if not self._context:
            raise RuntimeError("seccomp_init failed")

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.seccomp_release(self._context)

    def set(self, attribute: int, value: int) -> None:
        """Set an attribute. Raises: OSError, for one that this libseccomp does not know too."""
        _check(self._library.seccomp_attr_set(self._context, attribute, value), "seccomp_attr_set")

    def add(self, action: int, name: str, *comparisons: Comparison) -> None:
        """Add a rule for a system call; all comparisons must hold. Raises: OSError, for a name that is not known here too."""
        number = _number_of(name)
        if number == _UNKNOWN_CALL:
            raise OSError(f"no system call {name}")
        array = (Comparison * len(comparisons))(*comparisons)
        _check(self._library.seccomp_rule_add_array(self._context, action, number, len(comparisons), array), name)

    def compiled(self) -> bytes:
        """Return the program, instructions of BPF as the kernel takes them. Raises: OSError."""
        with os.fdopen(os.memfd_create("firebox-filter", os.MFD_CLOEXEC), "rb") as file:
            _check(self._library.seccomp_export_bpf(self._context, file.fileno()), "seccomp_export_bpf")
            file.seek(0)
            return file.read()


def interface_version() -> int:
    """Return which of the kernel's features this libseccomp can use. Source: seccomp_api_get(3)."""
    return int(_library().seccomp_api_get())


def system_call_number(name: str) -> int:
    """Return the number of a system call on this machine. Raises: KeyError for one that is not known."""
    number = _number_of(name)
    if number < 0:
        raise KeyError(name)
    return number


@cache
def _library() -> Any:
    library = ctypes.CDLL(_LIBRARY)
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    return library


@cache
def _number_of(name: str) -> int:
    return int(_library().seccomp_syscall_resolve_name(name.encode()))


def _check(returned: int, what: str) -> None:
    """Libseccomp returns the negative number of an error."""
    if returned < 0:
        raise OSError(-returned, f"{what}: {os.strerror(-returned)}")
