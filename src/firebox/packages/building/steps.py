"""What mmdebstrap is asked to do in a root on the way, as shell lines it runs with the root as `$1`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from firebox.packages.building.layer import BUILDING

_INSTALL = """\
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
mkdir -p "$1/var/cache/apt/archives/partial" "$1/var/log/apt" "$1/usr/share/man/man1"
apt-get --quiet=2 --yes --print-uris install {packages} > "$1/tmp/wanted"
while read -r _ file _ sum; do
    case $sum in SHA256:*) ;; *) continue ;; esac
    kept={kept}/"$file"
    target="$1/var/cache/apt/archives/$file"
    [ -r "$kept" ] || continue
    cp "$kept" "$target"
    echo "${{sum#SHA256:}}  $target" | sha256sum --check --status || rm "$target"
done < "$1/tmp/wanted"
exec apt-get --quiet=2 --yes -o APT::Sandbox::User=root -o Dir::Bin::dpkg=env -o DPkg::Options::=--unset=TMPDIR \
-o DPkg::Options::=dpkg -o DPkg::Options::=--force-confnew -o DPkg::Chroot-Directory="$1" install {packages} >&2
"""
"""Archives that were kept are used when they are the ones that the index means. The folder for manuals: Java's packages put links
there and fail when it is missing."""

_CHROOTED = """\
set -eu
exec unshare --net chroot "$1" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
HOME=/{building}/home TMPDIR=/tmp LANG=C.UTF-8 LC_ALL=C.UTF-8 TZ=UTC SOURCE_DATE_EPOCH={epoch} \
sh -eu /{building}/{script} >&2
"""


def install_hook(packages: Sequence[str], kept: Path) -> str:
    """Install packages into the root with the machine's own apt. kept: a folder of archives from earlier."""
    script = _INSTALL.format(packages=" ".join(map(shlex.quote, packages)), kept=shlex.quote(str(kept)))
    return f"--customize-hook={script.strip()}"


def chrooted_hook(script: str, epoch: int) -> str:
    """Run a script of the building folder inside the root, without a network, stopping at the first thing that fails."""
    return f"--customize-hook={_CHROOTED.format(building=BUILDING, script=script, epoch=epoch).strip()}"
