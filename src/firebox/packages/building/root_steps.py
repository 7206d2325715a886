"""mmdebstrap hooks of a package build: shell scripts that get the root as `$1`.

They are passed in environment variables, because mmdebstrap logs every hook command and would print whole scripts.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
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
"""Cached archives are used if they match the checksum in the index. The manual folder must exist because Java packages create
symlinks there."""

_CHROOTED = """\
unshare --net chroot "$1" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
HOME=/{building}/home TMPDIR=/tmp LANG=C.UTF-8 LC_ALL=C.UTF-8 TZ=UTC SOURCE_DATE_EPOCH={epoch} \
sh -eu "/{building}/$2" >&2 && exit
echo "$2 failed with status $?" >&2
exit 1
"""

INSTALL = '--customize-hook=sh -c "$FIREBOX_INSTALL" install "$1"'
"""Hook that installs the packages given to `variables`."""


def variables(packages: Sequence[str], kept: Path, epoch: int) -> Mapping[str, str]:
    """Return the environment variables for these hooks.

    packages: of Debian. kept: folder of cached archives. epoch: SOURCE_DATE_EPOCH while scripts run.
    """
    return {
        "FIREBOX_INSTALL": _INSTALL.format(packages=" ".join(map(shlex.quote, packages)), kept=shlex.quote(str(kept))),
        "FIREBOX_CHROOTED": _CHROOTED.format(building=BUILDING, epoch=epoch),
    }


def chrooted(script: str) -> str:
    """Return the hook that runs a script of the build folder in the root, without network, and stops at the first error."""
    return f'--customize-hook=sh -c "$FIREBOX_CHROOTED" run "$1" {script}'
