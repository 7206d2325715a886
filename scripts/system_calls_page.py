"""The page docs/system-calls.md, from the table in src/firebox/sandbox/plan/seccomp.py."""

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
from scripts.attacks_page import list_item

HEAD = """\
# System calls

<!-- Written by `make docs` from src/firebox/sandbox/plan/seccomp.py: change it there. -->

The system calls that a program may make. A seccomp filter enforces this table, see [decision 4](decisions/0004-one-filter.md).
A call through a foreign ABI (32-bit `int 0x80`, x32) kills the process. Calls that are not in this table fail with `ENOSYS`, so
that libraries fall back to older ones, and so do names that an architecture does not have.
"""

NETLINK = """
## Netlink

Programs may create `AF_NETLINK` sockets with the protocol `NETLINK_ROUTE` only. Listing network interfaces needs them
(`getifaddrs`, `socket.if_nameindex()`, `os.networkInterfaces()`, `net.Interfaces()`, `ip addr`). They are safe because

* the network namespace is the sandbox's own and contains only `lo`, so there is nothing to learn;
* every message but a query (`RTM_GET...`) needs `CAP_NET_ADMIN`, which the kernel checks first: nothing is changed, and no module
  is loaded for a kind of link, queue or rule. Queries load none either;
* messages to another program's socket or to a multicast group need a capability too, so two runs cannot communicate;
* data queued in such a socket is charged to no cgroup. PID 1 therefore decides each `socket` call of this family
  (`SECCOMP_RET_USER_NOTIF`): with 16 open sockets in a sandbox it fails with `ENOBUFS`. `SO_RCVBUF` cannot enlarge them.

In a container whose own filter already has a listener (such as LXD), PID 1 cannot decide, and the family is refused.
"""

MACHINE = """
## Resources with one limit for the machine or a user

One run must not use up what another needs. Kernel memory is charged to the cgroup, with these exceptions and further limits:

| resource | bounded by |
| --- | --- |
| compiled filters (`net.core.bpf_jit_limit`) | programs cannot load filters, see above |
| AIO contexts, keys, fanotify groups, eBPF, huge pages, flow labels | refused, see above |
| netlink buffers | 16 sockets in a sandbox |
| process numbers | the limit on processes |
| open files of the machine | the limits on processes and on open files; charged |
| inotify instances and watches | 16 and 8,192 in the sandbox's user namespace, and the host's limit for its uid |
| pending signals and POSIX timers | 4,096, by RLIMIT_SIGPENDING |
| POSIX queues | 819,200 bytes, by RLIMIT_MSGQUEUE |
| System V segments, queues, semaphores | those of its own IPC namespace; charged |
| locked memory | 64 MiB, by RLIMIT_MEMLOCK; charged |
| terminals | 64, by the devpts |
| pipe pages, epoll watches, file descriptors in flight | counted by uid, and each sandbox has its own; charged |
| namespaces, mounts, loop devices | cannot be created |
| TCP and UDP buffers | charged (version 1: separately, with the same limit) |
| TCP connections closed with data unsent (`net.ipv4.tcp_max_orphans`) | the limits on processes and on open files |
| Landlock rulesets, file locks, watches, mappings | charged |

## Without a memory cgroup

PID 1 samples memory every 10 ms. What it could not see is refused, or counts with its maximum:

| what | effect |
| --- | --- |
| {uncounted} | ENOSYS: their pages belong to no process |
| `mmap` of shared anonymous memory | PID 1 decides: the whole length counts at once; `ENOMEM` beyond the memory limit |
| `/dev/zero` | is `/dev/full`, which reads the same and cannot be mapped |
| `prctl(PR_SET_DUMPABLE)`, `setsockopt(SO_SNDBUF)` | succeed and are ignored |
| `shmget` | PID 1 decides: `ENOMEM` if the total size of all segments would exceed the memory limit |
| `msgget` `semget` | PID 1 decides: {queues} queues and {queues} sets of at most {semaphores} semaphores, then `ENOSPC` |
| `fcntl(F_SETPIPE_SZ)` | EPERM; a pipe counts as full, 64 KiB |
| Unix and netlink sockets | 256 KiB each, wherever they are open |
| TCP and UDP sockets | twice their queued data |
| page tables, swapped memory, System V queues and semaphores | counted |

Not counted: the kernel's records of mappings, file locks and watches. When the host runs out of memory, programs die first.
"""


def system_calls_page() -> str:
    """Return docs/system-calls.md: what is allowed, what is refused and why, and the rules about arguments."""
    parts = [
        HEAD,
        "\n## Allowed\n\n",
        *_rows(ALLOWED),
        "\n## Refused with EPERM\n\n",
        *_rows(DENIED),
        "\n## Ignored: they succeed and do nothing\n\n",
        *_rows(IGNORED),
        "\n## Absent on purpose: ENOSYS\n\n",
        *(list_item(f"{_code(names)}: {why}") for names, why in ABSENT.items()),
        "\n## Rules about arguments\n\nOnly the bits that the kernel uses are compared.\n\n",
        list_item("`clone` with a new namespace: EPERM"),
        list_item(f"`socket`, `socketpair` of a family other than {_list(SOCKET_FAMILIES)}: EAFNOSUPPORT"),
        list_item("`socket` of `AF_NETLINK` that is not `NETLINK_ROUTE`: EPROTONOSUPPORT or ESOCKTNOSUPPORT, see below"),
        list_item(f"internet sockets that are not {', '.join(PROTOCOLS)}: EPROTONOSUPPORT, ESOCKTNOSUPPORT or ENOSYS"),
        list_item(f"`personality` other than {_list(PERSONALITIES)}: ENOSYS"),
        *(list_item(f"`ioctl` {_list(requests)}: EPERM; {why}") for why, requests in REFUSED_IOCTLS.items()),
        *(
            list_item(f"`setsockopt` {_list(options)}: {errno.errorcode[number]}; {why}")
            for why, (number, options) in REFUSED_SOCKET_OPTIONS.items()
        ),
        *(list_item(f"`{what}`: {answer}") for what, answer in OTHER_RULES.items()),
        NETLINK,
        MACHINE.replace("{uncounted}", _code(UNCOUNTED))
        .replace("{queues}", str(SYSTEM_V_QUEUES))
        .replace("{semaphores}", str(SEMAPHORES_A_SET)),
    ]
    return "".join(parts)


def _rows(table: Mapping[str, str]) -> Iterable[str]:
    return (list_item(f"**{group}**: {_code(names)}") for group, names in table.items())


def _code(names: str) -> str:
    return " ".join(f"`{name}`" for name in names.split())


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" if name.isupper() or "_" in name else name for name in names)
