"""The page docs/system-calls.md, from the table in src/firebox/sandbox/seccomp.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from firebox.sandbox.seccomp import (
    ABSENT,
    ALLOWED,
    DENIED,
    IGNORED,
    OTHER_RULES,
    PERSONALITIES,
    PROTOCOLS,
    REFUSED_IOCTLS,
    SOCKET_FAMILIES,
)

HEAD = """\
# System calls

<!-- Written by `make docs` from src/firebox/sandbox/seccomp.py: change it there. -->

What a program may ask of the kernel. Two filters hold it, see [decision 4](decisions/0004-two-filters.md); a call made through
a foreign ABI (32-bit `int 0x80`, x32) kills the process. A call that is new or unknown to this table fails with `ENOSYS`, so
that libraries use what they used before. A name that a processor or libseccomp does not know needs no rule and fails likewise.
"""


def system_calls_page() -> str:
    """Write docs/system-calls.md, as Markdown: what passes, what is refused and why, what is held by its arguments."""
    parts = [
        HEAD,
        "\n## Allowed\n\n| for | calls |\n| --- | --- |\n",
        *_rows(ALLOWED),
        "\n## Refused with EPERM\n\n| why | calls |\n| --- | --- |\n",
        *_rows(DENIED),
        "\n## Ignored: success, and nothing is done\n\n| why | calls |\n| --- | --- |\n",
        *_rows(IGNORED),
        "\n## Absent on purpose: ENOSYS\n\n| | why |\n| --- | --- |\n",
        *(f"| `{name}` | {why} |\n" for name, why in ABSENT.items()),
        "\n## Held by their arguments\n\nOnly the bits that the kernel looks at are compared.\n\n",
        "| what | answer |\n| --- | --- |\n",
        "| `clone` with a new namespace | EPERM |\n",
        f"| `socket`, `socketpair` of another family than {_list(SOCKET_FAMILIES)} | EAFNOSUPPORT |\n",
        f"| internet sockets that are not {', '.join(PROTOCOLS)} | EPROTONOSUPPORT, ESOCKTNOSUPPORT or ENOSYS |\n",
        f"| `personality` other than {_list(PERSONALITIES)} | ENOSYS |\n",
        *(f"| `ioctl` {_list(requests)}: {why} | EPERM |\n" for why, requests in REFUSED_IOCTLS.items()),
        *(f"| `{what}` | {answer} |\n" for what, answer in OTHER_RULES.items()),
    ]
    return "".join(parts)


def _rows(table: Mapping[str, str]) -> Iterable[str]:
    return (f"| {group} | {' '.join(f'`{name}`' for name in names.split())} |\n" for group, names in table.items())


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" if name.isupper() or "_" in name else name for name in names)
