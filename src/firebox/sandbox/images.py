"""Squashfs images as layers of a sandbox's root, mounted where nobody else sees them.

The launcher mounts an image in its own mount namespace, by a loop device that clears itself: however the launcher ends, the
kernel takes both away, and the host's own table of mounts never shows them. An ordinary user cannot do that; packages are
unpacked for it instead.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import os
import stat
import struct
import sys
from functools import lru_cache

from firebox.sandbox import kernel
from firebox.sandbox.mounts import HOST

TREE = "root"
"""The folder of an image that is stacked; what lies beside it is about the package."""

PROBE_TIMEOUT_S = 20.0

_FOLDER = "/images"
_LOOP_MAJOR = 7
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LOOP_CONFIG = struct.Struct("II 40x III I 160x 16x 64x")
"""`struct loop_config`: descriptor and block size, then of `struct loop_info64` only the flags, all else zero."""
_ATTEMPTS = 20
_BLOCK_BYTES = 4096
"""A loop device leaves out what does not fill a sector; images end at such a border."""
_SHOWN = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV

_PROBE_IMAGE = base64.b85decode(
    "XmfFM0ssI200000000620RR911^^KNzybjP1ONa4AOHXW00000>i_@%00000;{X5v00000|NsC0|NsC0V*mgE00000j{pDw00000y8r+H00000)c^nh"
    "00000Z)*xF04TLD{UAUM0RWQ01PbsuKhb|w3Z#@Nzy4)({2GHN1OTrQAUi-}7ia+(fB*mh00000009610000000IC50BB`$We|X10000000003000310001"
    "~000000000GfB*mh0000003ZMW000000K)(P0000000e*l0002p000000000"
)
"""The smallest image there is, compressed with zstd as real ones are: one file of two letters."""

_PROBE = "import sys; sys.path.insert(0, sys.argv[1]); from firebox.sandbox.images import probe; probe()"


class Images:
    """The images that one launcher has mounted. Layers are named by their absolute paths on the host."""

    def __init__(self) -> None:
        self._mounted: dict[str, str] = {}
        self._next_number = 0

    def tree(self, layer: str) -> str:
        """Give the folder, as the launcher sees it, that a layer adds to a root; an image is mounted first.

        Raises: OSError when there is no such layer, or the kernel refuses it.
        """
        if os.path.isdir(HOST + layer):
            return HOST + layer
        if layer not in self._mounted:
            self._mounted[layer] = self._mount(layer)
        return f"{self._mounted[layer]}/{TREE}"

    def forget(self, layer: str) -> None:
        """Let go of an image; what runs on it keeps it for itself."""
        folder = self._mounted.pop(layer, None)
        if folder is not None:
            kernel.umount(folder)
            os.rmdir(folder)

    def _mount(self, layer: str) -> str:
        image = os.open(HOST + layer, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._next_number += 1
            folder = f"{_FOLDER}/{self._next_number}"
            os.makedirs(folder, 0o755)
            try:
                mount_image(image, folder, HOST + "/dev")
                if not os.path.isdir(f"{folder}/{TREE}"):
                    kernel.umount(folder)
                    raise OSError(errno.ENOTDIR, f"the image has no folder {TREE}", layer)
            except OSError:
                os.rmdir(folder)
                raise
            return folder
        finally:
            os.close(image)


def mount_image(image: int, folder: str, devices: str) -> None:
    """Mount the squashfs image that is open as `image`. devices: where /dev is. Raises: OSError.

    Source: loop(4), LOOP_CTL_GET_FREE and LOOP_CONFIGURE.
    """
    control = os.open(f"{devices}/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for attempt in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            # A node of our own: inside a container /dev has only those that were there when it began.
            node = f"{folder}.loop"
            os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(_LOOP_MAJOR, number))
            try:
                with contextlib.closing(_Device(node)) as device:
                    configuration = _LOOP_CONFIG.pack(image, 0, 0, 0, 0, _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR)
                    fcntl.ioctl(device.descriptor, _LOOP_CONFIGURE, configuration)
                    kernel.mount(node, folder, "squashfs", _SHOWN)
                return
            except OSError as error:
                if error.errno != errno.EBUSY or attempt == _ATTEMPTS - 1:  # somebody else took that device
                    raise
            finally:
                os.unlink(node)
    finally:
        os.close(control)


class _Device:
    def __init__(self, node: str) -> None:
        self.descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.descriptor)


@lru_cache(maxsize=1)
def cannot_mount() -> str:
    """Say why images cannot be mounted here, by mounting one in a process of its own; "" when they can."""
    if os.geteuid() != 0:
        return "only root can mount images"
    import subprocess  # the launcher, which never asks, starts sooner without

    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    try:
        done = subprocess.run(
            [os.path.realpath(sys.executable), "-I", "-S", "-c", _PROBE, source],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the attempt to mount an image failed: {error}"
    words = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else words[-1] if words else f"the attempt to mount an image ended with {done.returncode}"


def probe() -> None:
    """Mount the smallest image in a mount namespace of this process's own, and read it. Raises: OSError."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    image = os.memfd_create("firebox-probe")
    os.write(image, _PROBE_IMAGE)
    os.ftruncate(image, _BLOCK_BYTES)
    kernel.mount("firebox", "/mnt", "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m")
    os.mkdir("/mnt/image")
    mount_image(image, "/mnt/image", "/dev")
    with open("/mnt/image/here", "rb") as file:
        if file.read() != b"ok\n":
            raise OSError(errno.EIO, "the image does not hold what was put into it")
