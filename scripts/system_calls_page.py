"""The page docs/reference/system-calls.md, from the table in src/firebox/sandbox/plan/seccomp.py."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping

from firebox.sandbox.plan.seccomp import (
    ABSENT,
    ALLOWED,
    DENIED,
    IGNORED,
    OTHER_RULES,
    PERSONALITIES,
    PROTOCOLS,
    REFUSED_IOCTLS,
    REFUSED_SOCKET_OPTIONS,
    SOCKET_FAMILIES,
    UNCOUNTED,
)
from firebox.sandbox.protocol.messages import SEMAPHORES_A_SET, SYSTEM_V_QUEUES

HEAD = """\
# System calls

<!-- Written by `make docs` from src/firebox/sandbox/plan/seccomp.py: change it there. -->

What a program may ask of the kernel. A filter holds it, see [decision 4](../decisions/0004-one-filter.md); a call made through a
foreign ABI (32-bit `int 0x80`, x32) kills the process. A call that is new or unknown to this table fails with `ENOSYS`, so
that libraries use what they used before. A name that a processor does not have needs no rule and fails likewise.
"""

NETLINK = """
## Netlink

A program may make sockets of `AF_NETLINK` with the protocol `NETLINK_ROUTE`, and of no other: listing network interfaces needs
it (`getifaddrs`, `socket.if_nameindex()`, `os.networkInterfaces()`, `net.Interfaces()`, `ip addr`). It is safe here because

* the network namespace is the sandbox's own and holds `lo`, so there is nothing to learn;
* every message that is not a question (`RTM_GET...`) needs `CAP_NET_ADMIN`, which the kernel checks before it looks at the rest:
  nothing is changed, and no module is loaded for a kind of link, queue or rule. No question loads one;
* what goes to another program's socket or to a group needs a capability as well, so two runs cannot talk, and groups stay silent;
* the kernel charges what waits in such a socket to no control group. PID 1 therefore decides each `socket` call of this family
  (`SECCOMP_RET_USER_NOTIF`): with 16 of them alive in a sandbox the answer is `ENOBUFS`. `SO_RCVBUF` cannot make one hold more.

In a container whose own filter has a listener already (LXD, for one), PID 1 cannot be asked; the family is then refused.
"""

MACHINE = """
## What the kernel counts for the machine or for a user

One run must not take what another needs. Memory of the kernel is charged to the control group; what is not, or has another limit:

| what | held by |
| --- | --- |
| compiled filters (`net.core.bpf_jit_limit`) | no filter of a program is taken, see above |
| AIO contexts, keys, fanotify groups, eBPF, huge pages, flow labels | refused, see above |
| netlink buffers | 16 sockets in a sandbox |
| process numbers | the limit on processes |
| open files of the machine | the limits on processes and on open files; charged |
| inotify instances and watches | 16 and 8,192 in the sandbox's user namespace; of the host's, those of its uid |
| pending signals and POSIX timers | 4,096, by RLIMIT_SIGPENDING |
| POSIX queues | 819,200 bytes, by RLIMIT_MSGQUEUE |
| System V segments, queues, semaphores | those of its own IPC namespace; charged |
| locked memory | 64 MiB, by RLIMIT_MEMLOCK; charged |
| terminals | 64, by the devpts |
| pipe pages, epoll watches, descriptors on their way | counted for each uid, of which a sandbox has its own; charged |
| namespaces, mounts, loop devices | cannot be made |
| TCP and UDP buffers | charged (version 1: apart, up to the same limit) |
| TCP connections closed with data unsent (`net.ipv4.tcp_max_orphans`) | the limits on processes and on open files |
| Landlock rulesets, file locks, watches, mappings | charged |

## Where no control group counts memory

PID 1 then adds it up every 10 ms. What it could not see is refused, or counts as the most that it can be:

| what | instead |
| --- | --- |
| {uncounted} | ENOSYS: pages that they hold belong to no process |
| `mmap` of shared anonymous memory | PID 1 decides: its length counts from the start, and `ENOMEM` past the memory limit |
| `/dev/zero` | is `/dev/full`, which reads the same and cannot be mapped |
| `prctl(PR_SET_DUMPABLE)`, `setsockopt(SO_SNDBUF)` | answered with success and ignored |
| `shmget` | PID 1 decides: `ENOMEM` where the sizes of all segments would pass the memory limit |
| `msgget` `semget` | PID 1 decides: {queues} queues and {queues} sets of at most {semaphores} semaphores, then `ENOSPC` |
| `fcntl(F_SETPIPE_SZ)` | EPERM; a pipe counts as full, 64 KiB |
| Unix and netlink sockets | 256 KiB each, in whoever's hands they are |
| TCP and UDP sockets | twice what waits in them |
| page tables, what lies in swap, System V queues and semaphores | counted |

Not counted: the kernel's own records of mappings, file locks and watches. When the host runs out of memory, it takes programs
first.
"""


def system_calls_page() -> str:
    """Write docs/reference/system-calls.md, as Markdown: what passes, what is refused and why, what is held by its arguments."""
    parts = [
        HEAD,
        "\n## Allowed\n\n| for | calls |\n| --- | --- |\n",
        *_rows(ALLOWED),
        "\n## Refused with EPERM\n\n| why | calls |\n| --- | --- |\n",
        *_rows(DENIED),
        "\n## Ignored: success, and nothing is done\n\n| why | calls |\n| --- | --- |\n",
        *_rows(IGNORED),
        "\n## Absent on purpose: ENOSYS\n\n| | why |\n| --- | --- |\n",
        *(f"| {_code(names)} | {why} |\n" for names, why in ABSENT.items()),
        "\n## Held by their arguments\n\nOnly the bits that the kernel looks at are compared.\n\n",
        "| what | answer |\n| --- | --- |\n",
        "| `clone` with a new namespace | EPERM |\n",
        f"| `socket`, `socketpair` of another family than {_list(SOCKET_FAMILIES)} | EAFNOSUPPORT |\n",
        "| `socket` of `AF_NETLINK` that is not `NETLINK_ROUTE`, see below | EPROTONOSUPPORT, ESOCKTNOSUPPORT |\n",
        f"| internet sockets that are not {', '.join(PROTOCOLS)} | EPROTONOSUPPORT, ESOCKTNOSUPPORT or ENOSYS |\n",
        f"| `personality` other than {_list(PERSONALITIES)} | ENOSYS |\n",
        *(f"| `ioctl` {_list(requests)}: {why} | EPERM |\n" for why, requests in REFUSED_IOCTLS.items()),
        *(
            f"| `setsockopt` {_list(options)}: {why} | {errno.errorcode[number]} |\n"
            for why, (number, options) in REFUSED_SOCKET_OPTIONS.items()
        ),
        *(f"| `{what}` | {answer} |\n" for what, answer in OTHER_RULES.items()),
        NETLINK,
        MACHINE.replace("{uncounted}", _code(UNCOUNTED))
        .replace("{queues}", str(SYSTEM_V_QUEUES))
        .replace("{semaphores}", str(SEMAPHORES_A_SET)),
    ]
    return "".join(parts)


def _rows(table: Mapping[str, str]) -> Iterable[str]:
    return (f"| {group} | {_code(names)} |\n" for group, names in table.items())


def _code(names: str) -> str:
    return " ".join(f"`{name}`" for name in names.split())


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" if name.isupper() or "_" in name else name for name in names)
