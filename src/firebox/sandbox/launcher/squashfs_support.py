"""Whether this host can mount squashfs images as layers of a sandbox's root.

The launcher mounts an image in its own mount namespace, on a loop device with autoclear: however the launcher ends, the kernel
removes both, and the host's mount table never shows them. An unprivileged user cannot mount; packages are unpacked then.
"""

from __future__ import annotations

import base64
import os
import select
from functools import lru_cache

from firebox.sandbox.launcher.launcher_start import start_launcher
from firebox.sandbox.plan import steps
from firebox.sandbox.plan.mounts import HOST
from firebox.sandbox.plan.plans import Preparation
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Kind
from firebox.sandbox.spec import SandboxFailure

PROBE_TIMEOUT_S = 20.0

_UID_BASE = 210_000
_BLOCK_BYTES = 4096
"""A loop device ignores an incomplete last sector, so images are padded to whole blocks."""
_PROBE_IMAGE = base64.b85decode(
    "XmfFM0ssI200000000620RR911^^KNzybjP1ONa4AOHXW00000>i_@%00000;{X5v00000|NsC0|NsC0V*mgE00000j{pDw00000y8r+H00000)c^nh"
    "00000Z)*xF04TLD{UAUM0RWQ01PbsuKhb|w3Z#@Nzy4)({2GHN1OTrQAUi-}7ia+(fB*mh00000009610000000IC50BB`$We|X10000000003000310001"
    "~000000000GfB*mh0000003ZMW000000K)(P0000000e*l0002p000000000"
)
"""A minimal image, compressed with zstd like real ones: one file of two bytes."""


@lru_cache(maxsize=1)
def cannot_mount() -> str:
    """Return why images cannot be mounted here, "" when they can. A launcher really mounts one."""
    if os.geteuid() != 0:
        return "only root can mount images"
    image = os.memfd_create("firebox-probe", os.MFD_CLOEXEC)
    try:
        os.write(image, _PROBE_IMAGE)
        os.ftruncate(image, _BLOCK_BYTES)
        return _mount(f"/proc/{os.getpid()}/fd/{image}")
    except (OSError, SandboxFailure, ValueError) as error:
        return f"the attempt to mount an image failed: {error}"
    finally:
        os.close(image)


def _mount(image: str) -> str:
    """Return why a launcher could not mount an image, or "". Raises: OSError, SandboxFailure, ValueError."""
    step = steps.mount_image(HOST + image, "/images/probe", ".")
    launcher = start_launcher()
    try:
        launcher.configure(uid_base=_UID_BASE, hooks={})
        messages.send(launcher.link, Preparation(1, (step,)).message())
        poll = select.poll()
        poll.register(launcher.link, select.POLLIN)
        while poll.poll(PROBE_TIMEOUT_S * 1000):
            data, _descriptors = messages.receive(launcher.link)
            if not data:
                return "the launcher ended"
            if messages.kind_of(data) == Kind.PREPARED:
                return ""
            if messages.kind_of(data) == Kind.FAILED:
                failed, call = messages.unpack_with_text(messages.Failed, data)
                return f"{call}: {messages.error_text(failed.error)}"
        launcher.kill()
        return "the launcher does not answer"
    finally:
        launcher.end()
