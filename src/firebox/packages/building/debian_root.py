"""Debian root filesystems, created by mmdebstrap from the apt sources of this machine, and the hooks of package builds in them.

Those are shell scripts that get the root as `$1`, passed in environment variables: mmdebstrap logs every hook command and would
print whole scripts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from firebox.domain.errors import BuildFailed
from firebox.files.checksum import file_checksum
from firebox.packages.building.build_tools import require
from firebox.packages.building.layer import BUILDING

SOURCES = Path("/etc/apt")
PROXY_OPTIONS = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::https::CaInfo")
ROLLING = ("sid", "forky", "unstable", "testing")
"""Releases without an updates suite; a mirror may serve an old snapshot with an expired date."""

_LEFT_OUT = ("man", "info", "locale", "doc-base", "lintian", "bug")
"""Folders of /usr/share to exclude, besides doc except for copyright files: documentation is useless in a sandbox."""
_SAID_TO_DPKG = [
    *(f"path-exclude=/usr/share/{name}/*" for name in (*_LEFT_OUT, "doc")),
    "path-include=/usr/share/doc/*/copyright",
]
_LEAVE_OUT = (
    '--setup-hook=mkdir -p "$1/etc/dpkg/dpkg.cfg.d"',
    f"""--setup-hook=printf '%s\\n' {shlex.join(_SAID_TO_DPKG)} > "$1/etc/dpkg/dpkg.cfg.d/98firebox\"""",
    f"""--extract-hook=for name in {" ".join(_LEFT_OUT)}; do rm -rf "$1/usr/share/$name"/*; done""",
    """--extract-hook=test ! -d "$1/usr/share/doc" || find "$1/usr/share/doc" ! -type d ! -name copyright -delete""",
)
"""Deletes the same files among those that mmdebstrap extracts itself, before dpkg is configured. `--dpkgopt=path-exclude` would
filter that extraction too, which takes a third of the time of a base."""

_LINES_SHOWN = 8
_OWN_WORDS = ("I: ", "E: setup failed: ", "E: mmdebstrap failed ")
"""Prefixes of mmdebstrap's own messages around those of the tool that failed."""

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
"""Hook that installs the packages given to `hook_variables`."""
KEEP_ARCHIVES = "--customize-hook=sync-out /var/cache/apt/archives {}"
"""Hook that copies the archives out of a root under construction."""


def run_mmdebstrap(
    suite: str,
    target: Path,
    arguments: Sequence[str],
    progress: Callable[[str], None],
    variables: Mapping[str, str] | None = None,
) -> None:
    """Create a root as a tar. progress: called with each output line. variables: for the hooks. Raises: BuildFailed."""
    require("mmdebstrap")
    command = ["mmdebstrap", "--mode=auto", '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"]
    command += [f"--aptopt={option}" for option in _apt_options()]
    if suite in ROLLING:
        command.append('--aptopt=Acquire::Check-Valid-Until "false"')
    command += [*_LEAVE_OUT, *arguments, suite, str(target), *sources(suite)]
    environment = {**os.environ, **(variables or {}), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    said: deque[str] = deque(maxlen=_LINES_SHOWN)
    own: deque[str] = deque(maxlen=_LINES_SHOWN)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as made:
        assert made.stderr is not None  # noqa: S101 - asked for above
        for line in made.stderr:
            words = line.decode(errors="replace").strip()
            if words:
                (own if words.startswith(_OWN_WORDS) else said).append(words)
                progress(words)
    if made.returncode != 0:
        raise BuildFailed(f"mmdebstrap failed with status {made.returncode}", hint="\n        ".join(said or own))


def sources(suite: str) -> list[str]:
    """Return sources.list lines for a release, based on the mirror of this machine; none if it has no mirror.

    mmdebstrap then defaults to Debian's own mirror. Source: mmdebstrap(1), "MIRROR".
    """
    mirror, security = "", ""
    for address, suites in _sources_here():
        if any(name.endswith("-security") for name in suites):
            security = security or address
        elif address.rstrip("/").endswith("/debian"):
            mirror = address
            break
    if not mirror:
        return []
    lines = [f"deb {mirror} {suite} main"]
    if suite not in ROLLING:
        lines.append(f"deb {mirror} {suite}-updates main")
        lines.append(f"deb {security or mirror.rstrip('/') + '-security'} {suite}-security main")
    return lines


def _sources_here() -> Iterator[tuple[str, list[str]]]:
    """Yield the URL and suites of every apt source of this machine, in either format."""
    for file in [SOURCES / "sources.list", *sorted((SOURCES / "sources.list.d").glob("*"))]:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if file.suffix == ".sources":
            for paragraph in text.split("\n\n"):
                fields = dict(line.split(":", 1) for line in paragraph.splitlines() if ":" in line and line[0] not in "# ")
                for address in fields.get("URIs", "").split():
                    yield address, fields.get("Suites", "").split()
        else:
            for line in text.splitlines():
                words = [word for word in line.split() if not word.startswith(("[", "arch=", "signed-by=")) and word != "]"]
                if words[:1] == ["deb"] and len(words) > 2:
                    yield words[1], [words[2]]


def _apt_options() -> list[str]:
    """Return the apt options for reaching the mirror; mmdebstrap starts from apt's defaults."""
    program = shutil.which("apt-config")
    if program is None:
        return []
    done = subprocess.run([program, "dump", *PROXY_OPTIONS], capture_output=True, text=True, check=False)
    return [line.rstrip(";") for line in done.stdout.splitlines() if line.startswith(PROXY_OPTIONS)]


def hook_variables(packages: Sequence[str], kept: Path, epoch: int) -> Mapping[str, str]:
    """Return the environment variables of `INSTALL` and `chrooted`. kept: folder of cached archives. epoch: SOURCE_DATE_EPOCH."""
    return {
        "FIREBOX_INSTALL": _INSTALL.format(packages=" ".join(map(shlex.quote, packages)), kept=shlex.quote(str(kept))),
        "FIREBOX_CHROOTED": _CHROOTED.format(building=BUILDING, epoch=epoch),
    }


def chrooted(script: str) -> str:
    """Return the hook that runs a script of the build folder in the root, without network, and stops at the first error."""
    return f'--customize-hook=sh -c "$FIREBOX_CHROOTED" run "$1" {script}'


def keep_archives(archives: Path, kept: Path) -> list[str]:
    """Move archives to the cache, each atomically. Return the packages as `deb NAME VERSION SHA256`, sorted by name."""
    kept.mkdir(parents=True, exist_ok=True)
    inputs: list[str] = []
    for file in sorted(archives.glob("*.deb")):
        name, version, _ = unquote(file.name).removesuffix(".deb").split("_")
        inputs.append(f"deb {name} {version} {file_checksum(file)}")
        if not (kept / file.name).exists():
            unfinished = kept / f".{os.getpid()}-{file.name}"
            shutil.move(file, unfinished)
            unfinished.chmod(0o644)
            unfinished.replace(kept / file.name)
    return inputs
