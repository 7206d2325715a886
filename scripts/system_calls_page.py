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
from scripts.attacks_page import list_item

HEAD = """\
# System calls

<!-- Written by `make docs` from src/firebox/sandbox/plan/seccomp.py: change it there. -->

The system calls a sandboxed program can make. One seccomp filter enforces the table
([decision 4](../decisions/0004-one-filter.md)).
A call through a foreign ABI (32-bit `int 0x80`, x32) kills the process. A call that this table does not name fails with `ENOSYS`,
so libraries fall back to older calls. So does a call that this processor does not have.
"""

NETLINK = """
## Netlink

Programs can create `AF_NETLINK` sockets with the protocol `NETLINK_ROUTE` only. Listing network interfaces needs them
(`getifaddrs`, `socket.if_nameindex()`, `os.networkInterfaces()`, `net.Interfaces()`, `ip addr`). They are safe because

* the network namespace belongs to the sandbox and contains only `lo`;
* every message except queries (`RTM_GET...`) needs `CAP_NET_ADMIN`, which the kernel checks first: nothing can be changed, and no
  kernel module is loaded. Queries load none either;
* sending to another program's socket or to a group needs a capability as well, so two runs cannot communicate;
* the kernel charges the queue of such a socket to no cgroup, so PID 1 decides each `socket` call of this family
  (`SECCOMP_RET_USER_NOTIF`) and returns `ENOBUFS` once 16 are open in a sandbox. `SO_RCVBUF` cannot enlarge the queue.

In a container whose own filter already has a listener (LXD, for example) PID 1 cannot decide calls; the family is then refused.
"""

MACHINE = """
## Kernel resources counted per machine or per user

One run must not exhaust what another needs. Kernel memory is charged to the cgroup. Exceptions and further limits:

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
| pipe pages, epoll watches, descriptors in flight | counted per uid, and each sandbox has its own; charged |
| namespaces, mounts, loop devices | cannot be created |
| TCP and UDP buffers | charged (cgroup v1: separately, up to the same limit) |
| TCP connections closed with data unsent (`net.ipv4.tcp_max_orphans`) | the limits on processes and on open files |
| Landlock rulesets, file locks, watches, mappings | charged |

## Where no cgroup counts memory

PID 1 then samples memory every 10 ms. What it cannot see is refused or counted at its maximum:

| what | effect |
| --- | --- |
| {uncounted} | ENOSYS: their pages belong to no process |
| `mmap` of shared anonymous memory | PID 1 decides: its full length counts, and `ENOMEM` past the memory limit |
| `/dev/zero` | is `/dev/full`, which reads the same but cannot be mapped |
| `prctl(PR_SET_DUMPABLE)`, `setsockopt(SO_SNDBUF)` | answered with success and ignored |
| `shmget` | PID 1 decides: `ENOMEM` if all segments together would exceed the memory limit |
| `msgget` `semget` | PID 1 decides: {queues} queues and {queues} sets of at most {semaphores} semaphores, then `ENOSPC` |
| `fcntl(F_SETPIPE_SZ)` | EPERM; a pipe counts as full, 64 KiB |
| Unix and netlink sockets | 256 KiB each |
| TCP and UDP sockets | twice the data queued in them |
| page tables, swap, System V queues and semaphores | counted |

Not counted: the kernel's records of mappings, file locks and watches. When the host runs out of memory, the kernel kills programs
first.
"""


def system_calls_page() -> str:
    """Return docs/reference/system-calls.md: what is allowed, refused and why, and what depends on arguments."""
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
