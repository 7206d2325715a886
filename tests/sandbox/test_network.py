"""The only network is the sandbox's own loopback, and that works."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.conftest import Box
from tests.sandbox.raw_calls import raw_files

UNREACHABLE = {"ENETUNREACH", "EADDRNOTAVAIL", "EACCES", "EPERM", "EHOSTUNREACH", "ECONNREFUSED"}


async def told(box: Box, code: str, *names: str, **command: Any) -> Any:
    outcome = await box.python("from raw import *\nimport socket\n" + code, files=raw_files(*names), **command)
    assert outcome.text, (outcome.error_text, outcome.exit)
    return json.loads(outcome.text.splitlines()[-1])


async def test_attack_85_only_loopback_is_there(box: Box) -> None:
    answers = await told(
        box,
        """
tell(routes=read("/proc/net/route").splitlines()[1:],
    devices=sorted(line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]),
     addresses=read("/proc/net/if_inet6").split()[-1:], neighbours=read("/proc/net/arp").splitlines()[1:])
""",
    )
    # Some kernels create fallback tunnels in every namespace; they are down, and programs cannot bring them up.
    assert [name for name in answers["devices"] if not name.startswith(("tunl", "sit", "gre", "erspan", "ip_vti", "ip6"))] == [
        "lo"
    ]
    assert answers["routes"] == []
    assert answers["addresses"] in (["lo"], [])
    assert answers["neighbours"] == []


async def test_attack_85_names_are_not_looked_up_anywhere(box: Box) -> None:
    answers = await told(
        box,
        """
def find(name):
    try:
        return sorted({each[4][0] for each in socket.getaddrinfo(name, 80)})
    except socket.gaierror as error:
        return "unknown"
tell(found={name: find(name) for name in ("example.com", "localhost", "firebox", "metadata.google.internal",
    "host.docker.internal", "gateway.docker.internal", "127.0.0.1")},
     resolver=read("/etc/resolv.conf"), hosts=read("/etc/hosts"), back=attempt(lambda: socket.getfqdn("127.0.0.1")))
""",
    )
    local = {"localhost", "firebox", "127.0.0.1"}
    assert {name: found for name, found in answers["found"].items() if name not in local} == dict.fromkeys(
        answers["found"].keys() - local, "unknown"
    )
    for name in local:
        assert set(answers["found"][name]) <= {"127.0.0.1", "::1"}
    assert answers["resolver"] == ""


async def test_attack_85_no_packet_of_any_kind_leaves(box: Box) -> None:
    """TCP, UDP and ICMP, version 4 and 6, unicast, broadcast and multicast."""
    answers = await told(
        box,
        """
def tcp(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(5)
        return attempt(lambda: link.connect((address, 80)) or "reached")
def udp(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as link:
        attempt(lambda: link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1))
        return attempt(lambda: link.sendto(b"x", (address, 53)) and "sent")
def ping(family, protocol, address):
    return attempt(lambda: socket.socket(family, socket.SOCK_DGRAM, protocol).sendto(b"\\x08\\0\\0\\0\\0\\0\\0\\0", (address,
        0)) and "sent")
four = ["192.0.2.1", "198.51.100.7", "10.0.0.1", "172.17.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200",
    "255.255.255.255", "224.0.0.1"]
six = ["2001:db8::1", "fd00:ec2::254", "fe80::1", "ff02::1", "64:ff9b::c000:201"]
tell(tcp={each: tcp(socket.AF_INET, each) for each in four} | {each: tcp(socket.AF_INET6, each) for each in six},
     udp={each: udp(socket.AF_INET, each) for each in four} | {each: udp(socket.AF_INET6, each) for each in six},
     icmp=[ping(socket.AF_INET, socket.IPPROTO_ICMP, four[0]), ping(socket.AF_INET6, socket.IPPROTO_ICMPV6, six[0])],
     fast=attempt(lambda: socket.socket().sendto(b"x", 0x20000000, (four[0], 80)) and "sent"),
     raw=[attempt(lambda: socket.socket(family, socket.SOCK_RAW, 1) and "made") for family in (socket.AF_INET, socket.AF_INET6)])
""",
    )
    for kind in ("tcp", "udp"):
        assert {address: said for address, said in answers[kind].items() if said not in UNREACHABLE | {"EINVAL"}} == {}
    assert set(answers["icmp"]) <= {"EACCES", "EPERM", "ENETUNREACH"}
    assert answers["fast"] in UNREACHABLE
    assert set(answers["raw"]) <= {"EPERM", "EPROTONOSUPPORT"}


@contextmanager
def listener(family: int, address: str) -> Generator[tuple[int, list[bytes]]]:
    """Listen on the host, like our own server or a database. Yields the port and what arrived."""
    arrived: list[bytes] = []
    with closing(socket.socket(family, socket.SOCK_STREAM)) as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    link, _address = server.accept()
                except OSError:
                    return
                arrived.append(b"a connection")
                link.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield port, arrived
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")]
)
async def test_attack_86_what_listens_on_the_host_is_out_of_reach(box: Box, family: int, address: str) -> None:
    """Our own port, a database, a metadata service: by every name and address of the host."""
    if family == socket.AF_INET6 and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this host has no IPv6")
    own = own_addresses()
    with listener(family, address) as (port, arrived):
        with socket.create_connection((address if address != "0.0.0.0" else "127.0.0.1", port)):
            pass  # it does listen
        answers = await told(
            box,
            f"""
targets = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost", "firebox", "::1", "::", "::ffff:127.0.0.1", *{own!r}]
def reach(target):
    try:
        socket.create_connection((target, {port}), 5)
        return "reached"
    except OSError as error:
        return errno.errorcode.get(error.errno, "unknown")
tell(reached={{target: reach(target) for target in targets}},
     listening=[line.split()[1] for name in ("tcp", "tcp6") for line in read(f"/proc/net/{{name}}").splitlines()[1:]])
""",
        )
    assert {target: said for target, said in answers["reached"].items() if said == "reached"} == {}
    assert answers["listening"] == []
    assert len(arrived) <= 1  # our own


def own_addresses() -> list[str]:
    """The addresses of this machine's host name, if any."""
    try:
        return sorted({str(each[4][0]) for each in socket.getaddrinfo(socket.gethostname(), None)})
    except OSError:
        return []


async def test_attack_86_unix_sockets_of_the_host_are_not_there(box: Box) -> None:
    answers = await told(
        box,
        """
known = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/systemd/private",
    "/run/dbus/system_bus_socket",
         "/run/systemd/notify", "/dev/log", "/tmp/.X11-unix/X0", "/run/user/0/bus", "/var/run/postgresql/.s.PGSQL.5432", "/run/mysqld/mysqld.sock"]
import stat
found = []
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/usr/share", "/usr/include", "/usr/lib")]
    for name in names:
        mode = attempt(lambda: os.lstat(os.path.join(folder, name)).st_mode)
        if isinstance(mode, int) and stat.S_ISSOCK(mode): found.append(os.path.join(folder, name))
tell(known=[path for path in known if os.path.lexists(path)], found=found)
""",
    )
    assert answers == {"known": [], "found": []}


async def test_no_interface_can_be_added_or_raised(box: Box) -> None:
    answers = await told(
        box,
        """
import fcntl, struct
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def ioctl(number, data):
    return attempt(lambda: fcntl.ioctl(control, number, data) and "done")
tell(down=ioctl(0x8914, struct.pack("16sh22x", b"lo", 0)), address=ioctl(0x8916, struct.pack("16sHH4s16x", b"lo", 2, 0,
    bytes((10, 0, 0, 1)))),
     route=ioctl(0x890B, bytes(120)), name=ioctl(0x8923, struct.pack("16s16s", b"lo", b"eth0")), tunnel=ioctl(0x89F1,
         struct.pack("16s24x", b"tunl0")),
     bind=attempt(lambda: control.setsockopt(socket.SOL_SOCKET, socket.SO_MARK,
         1)), transparent=attempt(lambda: control.setsockopt(0, 19, 1)),
     netlink=attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW,
         16) and "made"), forward=write("/proc/sys/net/ipv4/ip_forward", "1"))
""",
    )
    assert set(answers.values()) <= {"EPERM", "EACCES", "EROFS", "EPROTONOSUPPORT", "ENOENT", "ENODEV"}, answers
    assert answers["netlink"] == "EPROTONOSUPPORT"  # NETLINK_GENERIC; what NETLINK_ROUTE may do is tried below


async def test_loopback_works_within_one_run(box: Box) -> None:
    """Servers and clients of one program, of every ordinary kind, except low ports."""
    code = """
import threading, urllib.request, http.server
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
page = urllib.request.urlopen(f"http://localhost:{server.server_port}/note.txt").read().decode()
six = socket.create_server(("::1", 0), family=socket.AF_INET6)
socket.create_connection(six.getsockname()[:2]).sendall(b"six")
mixed = socket.create_server(("", 0)); socket.create_connection(("127.0.0.77", mixed.getsockname()[1]))
left, right = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
left.bind(("127.0.0.1", 0)); right.sendto(b"udp", left.getsockname())
unix = socket.socket(socket.AF_UNIX); unix.bind("/tmp/socket"); unix.listen()
socket.socket(socket.AF_UNIX).connect("/tmp/socket")
tell(page=page, six=six.accept()[0].recv(3).decode(), udp=left.recv(3).decode(),
    low=attempt(lambda: socket.create_server(("127.0.0.1", 80)) and "bound"))
"""
    outcome = await box.python("from raw import *\nimport socket\n" + code, files={**raw_files(), "note.txt": "hello"})
    answers = json.loads(outcome.text)
    assert answers == {"page": "hello", "six": "six", "udp": "udp", "low": "EACCES"}


async def test_no_descriptor_of_the_network_of_the_host_is_left(box: Box) -> None:
    """The namespace is a different one, for PID 1 too."""
    own = os.readlink("/proc/self/ns/net")
    outcome = await box.shell("readlink /proc/self/ns/net; readlink /proc/self/ns/net | grep -c .")
    assert outcome.text.split()[0] != own


async def test_network_interfaces_can_be_listed(box: Box) -> None:
    """By netlink, as if_nameindex(3), getifaddrs(3), Node, Go, Java and .NET do."""
    answers = await told(
        box,
        """
import fcntl, struct, subprocess, shutil
class Address(ctypes.Structure): pass
Address._fields_ = [("next", ctypes.POINTER(Address)), ("name", ctypes.c_char_p)]
first, names = ctypes.POINTER(Address)(), set()
assert libc.getifaddrs(ctypes.byref(first)) == 0
each = first
while each: names.add(each.contents.name.decode()); each = each.contents.next
node = "console.log(Object.keys(require('os').networkInterfaces()).join())"
tell(index=[name for _, name in socket.if_nameindex()], addresses=sorted(names),
     ip=subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True).stdout if shutil.which("ip") else "lo 127.0.0.1/8",
     node=subprocess.run(["node", "-e", node], capture_output=True, text=True).stdout if shutil.which("node") else "lo\\n")
""",
    )
    assert "lo" in answers["index"]
    assert "lo" in answers["addresses"]
    assert "127.0.0.1/8" in answers["ip"]
    assert "lo" in answers["node"].strip().split(",")


async def test_attack_68_netlink_reveals_and_changes_nothing(box: Box) -> None:
    """Every NETLINK_ROUTE message but a query needs a capability, which is checked first."""
    modules = Path("/proc/modules").read_text() if os.path.exists("/proc/modules") else ""
    answers = await told(
        box,
        """
import errno, struct
route = socket.socket(16, socket.SOCK_RAW, 0)
route.bind((0, 0))
def ask(kind, body, flags=0x605):  # NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    route.send(struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    answer = route.recv(65536)
    (what,), (number,) = struct.unpack_from("H", answer, 4), struct.unpack_from("i", answer, 16)
    return errno.errorcode.get(-number, number) if what == 2 else "an answer"
info = lambda name: struct.pack("HH8s", 12, 1, name)  # IFLA_INFO_KIND
link = struct.pack("BBHiII", 0, 0, 0, 0, 0, 0)
made = {name.decode(): ask(16, link + struct.pack("HH", 16, 18) + info(name)) for name in (b"dummy", b"vlan", b"bridge", b"wireguar")}
changes = {kind: ask(kind, bytes(32)) for kind in range(16, 120) if kind % 4 != 2}
down = ask(19, struct.pack("BBHiII", 0, 0, 0, 1, 0, 1))  # lo, without IFF_UP
other = socket.socket(16, socket.SOCK_DGRAM, 0)
other.bind((0, 0))
sent = attempt(lambda: route.sendto(b"x" * 32, other.getsockname()) and "sent")
group = attempt(lambda: route.sendto(b"x" * 32, (0, 1)) and "sent")
tell(made=made, changes=changes, down=down, sent=sent, group=group, names=[name for _, name in socket.if_nameindex()])
""",
    )
    assert set(answers["made"].values()) == {"EPERM"}
    assert set(answers["changes"].values()) == {"EPERM"}
    assert (answers["down"], answers["sent"], answers["group"]) == ("EPERM", "EPERM", "EPERM")
    assert not {"dummy0", "bridge0"} & set(answers["names"])
    if modules:
        assert Path("/proc/modules").read_text() == modules
