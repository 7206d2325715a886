"""The virtual machine has the properties that the sandbox tests in it need."""

import os
import pwd
import subprocess
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def own_group() -> Path:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    assert [line for line in lines if not line.startswith("0::")] == [], "a version 1 hierarchy is mounted"
    return CGROUPS / lines[0].removeprefix("0::/")


def test_runs_as_the_requested_user() -> None:
    assert pwd.getpwuid(os.geteuid()).pw_name == os.environ["FIREBOX_VM_USER"]


def test_has_only_the_unified_hierarchy() -> None:
    assert (CGROUPS / "cgroup.controllers").is_file()
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup"]


def test_own_cgroup_is_delegated_with_the_required_controllers() -> None:
    group = own_group()
    assert group != CGROUPS
    assert {"cpu", "memory", "pids"} <= set((group / "cgroup.controllers").read_text().split())
    child = group / "probe"
    child.mkdir()
    assert (child / "cgroup.kill").exists()
    child.rmdir()


def test_unprivileged_users_may_create_user_namespaces() -> None:
    subprocess.run(["unshare", "--user", "true"], check=True)
