"""Downloads: from a real web server that breaks off, changes its mind and lies, and from files of this machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest
import tenacity
from pysequoia import Tsk

from firebox.domain.errors import DownloadFailed, NotTrusted, WrongChecksum
from firebox.packages.download import download, transfer
from firebox.packages.download.download import fetch
from firebox.packages.entry import Entry, Progress, no_report
from firebox.packages.repository import network
from firebox.settings.settings import Settings, load_settings
from tests.conftest import ROOT, missing
from tests.support.repository import RepositoryServer, new_key, serving, signature_of, trust

CONTENT = bytes(range(256)) * 8192
"""2 MiB: several chunks, several progress reports."""
FILE = "/python.img"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PAUSE", tenacity.wait_none())
    monkeypatch.setattr(download, "BUSY_PAUSE_S", 0.02)


@pytest.fixture
def server(tmp_path: Path) -> Generator[RepositoryServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "python.img").write_bytes(CONTENT)
    with serving(folder) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "packages" / "downloads"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


def settings_of(tmp_path: Path, **more: Any) -> Settings:
    """An operator who asks for no signatures, unless `more` says otherwise."""
    flags: dict[str, object] = {
        "data_dir": tmp_path / "data",
        "repositories": "main=http://127.0.0.1/i",
        "allow_unsigned_packages": True,
    }
    return load_settings(flags | more, environ={})


def sums(content: bytes = CONTENT, *algorithms: str) -> dict[str, str]:
    return {name: hashlib.new(name, content).hexdigest() for name in algorithms or ("sha256",)}


def entry_of(server: RepositoryServer | str, **more: Any) -> Entry:
    address = server if isinstance(server, str) else server.url + FILE
    usual: dict[str, Any] = {
        "language": "python",
        "version": "3.13.5",
        "checksums": sums(),
        "download": address,
        "repository": "main",
    }
    return Entry(**(usual | more))


def left(folder: Path) -> list[str]:
    """What kinds of files are in the folder."""
    return sorted(path.suffix for path in folder.iterdir()) if folder.exists() else []


async def test_file_is_fetched_checked_and_reported(server: RepositoryServer, folder: Path, settings: Settings) -> None:
    told: list[Progress] = []
    path = await fetch(entry_of(server), folder, settings, told.append)
    assert path.read_bytes() == CONTENT
    assert path.parent == folder
    assert left(folder) == [".package"]
    downloaded = [each for each in told if each.step == "download"]
    assert [each.done for each in downloaded] == sorted(each.done for each in downloaded)
    assert (downloaded[-1].done, downloaded[-1].total, downloaded[-1].package) == (len(CONTENT), len(CONTENT), "python-3.13.5")
    assert len(downloaded) >= 2
    assert told[-1].step == "verify"
    assert told[-1].done == told[-1].total == len(CONTENT)
    assert server.asked[0].headers["accept-encoding"] == "identity"


async def test_file_that_is_there_already_is_checked_and_used(server: RepositoryServer, folder: Path, settings: Settings) -> None:
    first = await fetch(entry_of(server), folder, settings, no_report)
    assert await fetch(entry_of(server), folder, settings, no_report) == first
    assert server.times(FILE) == 1
    first.write_bytes(b"spoilt")
    again = await fetch(entry_of(server), folder, settings, no_report)
    assert again.read_bytes() == CONTENT
    assert server.times(FILE) == 2


@pytest.mark.parametrize("validators", ["strong", "weak", "date", "none"])
async def test_broken_connection_is_continued_where_it_broke(
    server: RepositoryServer, folder: Path, settings: Settings, validators: Any
) -> None:
    server.validators = validators
    server.on(FILE).cuts = [700_000, 500_000]
    path = await fetch(entry_of(server), folder, settings, no_report)
    assert path.read_bytes() == CONTENT
    assert [asked.range for asked in server.asked] == ["", "bytes=700000-", "bytes=1200000-"]
    assert all(asked.headers.get("if-range", "")[:1] != "W" for asked in server.asked), "a weak validator cannot be relied on"
    assert ("if-range" in server.asked[1].headers) == (validators != "none")


async def test_what_came_before_a_failure_is_continued_next_time(
    server: RepositoryServer, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "ATTEMPTS", 1)
    server.on(FILE).cuts = [700_000]
    with pytest.raises(DownloadFailed, match=r"python-3\.13\.5 cannot be fetched: 127") as refused:
        await fetch(entry_of(server), folder, settings, no_report)
    assert refused.value.hint == "what came so far is kept: try again"
    assert left(folder) == [".from", ".part"]
    path = await fetch(entry_of(server), folder, settings, no_report)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1].range == "bytes=700000-"
    assert left(folder) == [".package"]


@pytest.mark.parametrize("validators", ["strong", "date"])
async def test_file_that_changed_on_the_server_meanwhile_is_begun_again(
    server: RepositoryServer, folder: Path, settings: Settings, validators: Any
) -> None:
    server.validators = validators
    old = b"old" * 300_000
    path = server.folder / "python.img"
    path.write_bytes(old)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    server.on(FILE).cuts = [500_000]
    server.on(FILE).half_way = lambda: path.write_bytes(CONTENT)
    fetched = await fetch(entry_of(server), folder, settings, no_report)
    assert fetched.read_bytes() == CONTENT
    assert [asked.range for asked in server.asked] == ["", "bytes=500000-"]


@pytest.mark.parametrize("validators", ["strong", "none"])
async def test_server_that_joins_two_files_is_found_out(
    server: RepositoryServer, folder: Path, settings: Settings, validators: Any
) -> None:
    server.validators = validators
    server.checks_if_range = False
    path = server.folder / "python.img"
    path.write_bytes(b"old" * 300_000)
    server.on(FILE).cuts = [500_000]
    server.on(FILE).half_way = lambda: path.write_bytes(CONTENT)
    fetched = await fetch(entry_of(server), folder, settings, no_report)
    assert fetched.read_bytes() == CONTENT
    assert server.asked[-1].range == ""


async def test_server_without_ranges_is_fetched_from_the_beginning(
    server: RepositoryServer, folder: Path, settings: Settings
) -> None:
    server.ranges = False
    server.on(FILE).cuts = [500_000, 600_000]
    assert (await fetch(entry_of(server), folder, settings, no_report)).read_bytes() == CONTENT


async def test_whole_file_left_by_an_interruption_is_not_fetched_again(
    server: RepositoryServer, folder: Path, settings: Settings
) -> None:
    await _leave_part(folder, CONTENT, server, settings)
    assert (await fetch(entry_of(server), folder, settings, no_report)).read_bytes() == CONTENT
    assert server.asked[-1].range == f"bytes={len(CONTENT)}-"
    assert len(server.asked) == 2


async def test_more_than_the_server_has_is_thrown_away(server: RepositoryServer, folder: Path, settings: Settings) -> None:
    await _leave_part(folder, CONTENT + b"more", server, settings)
    assert (await fetch(entry_of(server), folder, settings, no_report)).read_bytes() == CONTENT


async def _leave_part(folder: Path, content: bytes, server: RepositoryServer, settings: Settings) -> None:
    """Leave a partial file with this content."""
    path = await fetch(entry_of(server), folder, settings, no_report)
    path.rename(path.with_suffix(".part"))
    path.with_suffix(".part").write_bytes(content)


async def test_overloaded_server_is_asked_again_and_given_up_in_the_end(
    server: RepositoryServer, folder: Path, settings: Settings
) -> None:
    server.on(FILE).statuses = [503, 502, 500, 429]
    assert (await fetch(entry_of(server), folder, settings, no_report)).read_bytes() == CONTENT
    server.on("/other").statuses = [503] * 20
    with pytest.raises(DownloadFailed, match="answers 503"):
        await fetch(entry_of(server.url + "/other", language="other"), folder, settings, no_report)
    assert server.times("/other") == network.ATTEMPTS
    assert left(folder) == [".package"]


async def test_connection_that_gets_further_every_time_is_not_given_up(
    server: RepositoryServer, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PROGRESS_BYTES", 100_000)
    server.on(FILE).cuts = [60_000] * 30
    assert (await fetch(entry_of(server), folder, settings, no_report)).read_bytes() == CONTENT
    assert len(server.asked) == 31


async def test_connection_that_hardly_moves_is_given_up(
    server: RepositoryServer, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on(FILE).cuts = [1] * 1000
    with pytest.raises(DownloadFailed):
        await fetch(entry_of(server), folder, settings, no_report)
    assert len(server.asked) == network.ATTEMPTS


async def test_trickle_counts_as_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "STALL_S", -1.0)

    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x"

    async def read() -> None:
        async for _ in transfer._not_stalling(trickle()):
            pass

    with pytest.raises(network.Unreachable, match="only 1 bytes came"):
        await read()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 206, 304])
async def test_refusal_is_reported_without_asking_again(
    server: RepositoryServer, folder: Path, settings: Settings, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "ATTEMPTS", 1)
    server.on(FILE).statuses = [status]
    with pytest.raises(DownloadFailed):
        await fetch(entry_of(server), folder, settings, no_report)
    assert len(server.asked) == 1
    assert left(folder) == []


async def test_redirect_is_followed_but_never_to_a_file(server: RepositoryServer, folder: Path, settings: Settings) -> None:
    server.on("/moved").redirect = server.url + FILE
    assert (await fetch(entry_of(server.url + "/moved"), folder, settings, no_report)).read_bytes() == CONTENT
    server.on("/sly").redirect = (server.folder / "python.img").as_uri()
    with pytest.raises(DownloadFailed, match="redirects to"):
        await fetch(entry_of(server.url + "/sly", language="sly"), folder, settings, no_report)


# Checksums and trust.


async def test_wrong_file_is_refused_and_not_kept(server: RepositoryServer, folder: Path, settings: Settings) -> None:
    with pytest.raises(WrongChecksum, match=r"python-3\.13\.5: what came has another sha256"):
        await fetch(entry_of(server, checksums=sums(b"other")), folder, settings, no_report)
    assert left(folder) == []


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
async def test_every_checksum_is_known(server: RepositoryServer, folder: Path, settings: Settings, algorithm: str) -> None:
    path = await fetch(entry_of(server, checksums=sums(CONTENT, algorithm)), folder, settings, no_report)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("strongest", "others"), [("sha512", ("md5", "sha1", "sha256")), ("sha256", ("md5", "sha1")), ("sha1", ("md5",))]
)
async def test_strongest_checksum_counts(
    server: RepositoryServer, folder: Path, settings: Settings, strongest: str, others: tuple[str, ...]
) -> None:
    wrong = sums(b"other", strongest) | sums(CONTENT, *others)
    with pytest.raises(WrongChecksum, match=f"another {strongest}"):
        await fetch(entry_of(server, checksums=wrong), folder, settings, no_report)
    right = sums(CONTENT, strongest) | sums(b"other", *others)
    assert (await fetch(entry_of(server, checksums=right), folder, settings, no_report)).read_bytes() == CONTENT


async def test_package_without_checksum_is_refused_unasked(server: RepositoryServer, folder: Path, settings: Settings) -> None:
    with pytest.raises(NotTrusted, match="has no checksum"):
        await fetch(entry_of(server, checksums={}), folder, settings, no_report)
    assert not server.asked


@pytest.fixture
def key() -> Tsk:
    return new_key()


async def test_package_signed_by_a_trusted_key_is_accepted(
    server: RepositoryServer, folder: Path, tmp_path: Path, key: Tsk
) -> None:
    settings = settings_of(tmp_path, allow_unsigned_packages=False)
    trust(settings.data_dir, "main", key)
    entry = entry_of(server, signature=signature_of(CONTENT, key))
    assert (await fetch(entry, folder, settings, no_report)).read_bytes() == CONTENT


@pytest.mark.parametrize("unsigned_allowed", [False, True])
async def test_with_a_trusted_key_an_unsigned_package_is_refused_unasked(
    server: RepositoryServer, folder: Path, tmp_path: Path, key: Tsk, unsigned_allowed: bool
) -> None:
    settings = settings_of(tmp_path, allow_unsigned_packages=unsigned_allowed)
    trust(settings.data_dir, "main", key)
    with pytest.raises(NotTrusted, match="is not signed"):
        await fetch(entry_of(server), folder, settings, no_report)
    assert not server.asked


async def test_package_with_anothers_signature_or_that_of_another_file_is_refused(
    server: RepositoryServer, folder: Path, settings: Settings, key: Tsk
) -> None:
    trust(settings.data_dir, "main", key)
    for signature in (signature_of(CONTENT, new_key()), signature_of(b"other", key)):
        with pytest.raises(NotTrusted, match=r"python-3\.13\.5 has no good signature"):
            await fetch(entry_of(server, signature=signature), folder, settings, no_report)
        assert left(folder) == []


async def test_key_of_another_repository_does_not_count(server: RepositoryServer, folder: Path, tmp_path: Path, key: Tsk) -> None:
    settings = settings_of(tmp_path, allow_unsigned_packages=False)
    trust(settings.data_dir, "other", key)
    with pytest.raises(NotTrusted, match="no key is trusted for repository main") as refused:
        await fetch(entry_of(server, signature=signature_of(CONTENT, key)), folder, settings, no_report)
    assert "firebox packages trust main KEY.asc" in refused.value.hint


async def test_without_a_key_the_network_is_not_trusted_unless_the_operator_says_so(
    server: RepositoryServer, folder: Path, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, allow_unsigned_packages=False)
    with pytest.raises(NotTrusted, match="no key is trusted") as refused:
        await fetch(entry_of(server), folder, settings, no_report)
    assert "FIREBOX_ALLOW_UNSIGNED_PACKAGES=true" in refused.value.hint
    assert "once it is signed, firebox packages trust main KEY.asc" in refused.value.hint
    for unknown in ("", "nowhere"):
        with pytest.raises(NotTrusted):
            await fetch(entry_of(server, repository=unknown), folder, settings, no_report)
    assert not server.asked


async def test_local_index_needs_no_key_even_for_what_it_has_elsewhere(
    server: RepositoryServer, folder: Path, tmp_path: Path, key: Tsk
) -> None:
    settings = settings_of(tmp_path, allow_unsigned_packages=False, repositories=f"main={tmp_path / 'index.yaml'}")
    assert (await fetch(entry_of(server), folder, settings, no_report)).read_bytes() == CONTENT
    trust(settings.data_dir, "main", key)
    with pytest.raises(NotTrusted, match="is not signed"):
        await fetch(entry_of(server), folder, settings, no_report)


# Bounds.


async def test_announced_size_is_a_bound(
    server: RepositoryServer, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SLACK_BYTES", 0)
    with pytest.raises(DownloadFailed, match="and 1000000 are announced"):
        await fetch(entry_of(server, size_bytes=1_000_000), folder, settings, no_report)
    assert left(folder) == []
    assert (await fetch(entry_of(server, size_bytes=2_000_000), folder, settings, no_report)).read_bytes() == CONTENT


async def test_operators_bound_holds_before_and_while_it_comes(server: RepositoryServer, folder: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, max_package_bytes=1 << 20)
    with pytest.raises(DownloadFailed, match="at most 1048576 are allowed"):
        await fetch(entry_of(server, size_bytes=1 << 21), folder, settings, no_report)
    assert not server.asked
    with pytest.raises(DownloadFailed, match="at most 1048576 are allowed"):
        await fetch(entry_of(server), folder, settings, no_report)
    assert left(folder) == []


async def test_server_that_says_less_than_it_sends_is_stopped(tmp_path: Path, folder: Path) -> None:
    """Without a length, what comes is all there is to go by."""
    settings = settings_of(tmp_path, max_package_bytes=1 << 20)
    sent = 0

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        try:
            while sent < 100 << 20:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except OSError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as endless:
        port = endless.sockets[0].getsockname()[1]
        with pytest.raises(DownloadFailed, match="at most 1048576 are allowed"):
            await fetch(entry_of(f"http://127.0.0.1:{port}/x"), folder, settings, no_report)
    assert sent < 50 << 20
    assert left(folder) == []


async def test_free_room_is_looked_at_first(server: RepositoryServer, folder: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, max_package_bytes=1 << 60)
    with pytest.raises(DownloadFailed, match=r"bytes, and [0-9]+ are free") as refused:
        await fetch(entry_of(server, size_bytes=1 << 59), folder, settings, no_report)
    assert refused.value.hint == "make room in the data folder"
    assert not server.asked
    assert left(folder) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of its own with little room: 1 MiB."""
    if os.geteuid() != 0:
        missing("only root mounts a small disk")
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False, capture_output=True
    ).returncode:
        missing("no small disk can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_full_disk_ends_in_words_and_leaves_nothing(
    server: RepositoryServer, small_disk: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DownloadFailed, match=r"python-3\.13\.5 needs 2097152 bytes"):
        await fetch(entry_of(server), small_disk, settings, no_report)
    monkeypatch.setattr(shutil, "disk_usage", _boundless)
    with pytest.raises(DownloadFailed, match="No space left on device"):
        await fetch(entry_of(server), small_disk, settings, no_report)
    assert left(small_disk) == []
    (server.folder / "python.img").write_bytes(CONTENT[:500_000])
    path = await fetch(entry_of(server, checksums=sums(CONTENT[:500_000])), small_disk, settings, no_report)
    assert path.stat().st_size == 500_000


def _boundless(_path: object) -> Any:
    """What a disk says that is filled by others a moment later."""
    return shutil._ntuple_diskusage(1 << 60, 0, 1 << 60)


# Files of this machine.


async def test_local_file_is_copied_and_checked(tmp_path: Path, folder: Path, settings: Settings) -> None:
    original = tmp_path / "a ü.img"
    original.write_bytes(CONTENT)
    told: list[Progress] = []
    path = await fetch(entry_of(original.as_uri()), folder, settings_of(tmp_path, repositories=f"main={tmp_path}"), told.append)
    assert path.read_bytes() == CONTENT
    assert path != original
    assert original.exists()
    assert any(each.done == each.total == len(CONTENT) for each in told if each.step == "download")


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "wrong", "enormous", "grows"])
async def test_local_file_that_is_not_what_it_should_be_is_refused(tmp_path: Path, folder: Path, kind: str) -> None:
    original = tmp_path / "python.img"
    expected: type[Exception] = DownloadFailed
    if kind == "folder":
        original.mkdir()
    elif kind == "fifo":
        os.mkfifo(original)
    elif kind == "device":
        original = Path("/dev/zero")
    elif kind == "wrong":
        original.write_bytes(b"wrong")
        expected = WrongChecksum
    elif kind == "enormous":
        original.write_bytes(CONTENT)
    elif kind == "grows":
        original = Path("/proc/self/mountinfo")
        expected = WrongChecksum
    settings = settings_of(tmp_path, repositories=f"main={tmp_path}", max_package_bytes=1 << 20)
    with pytest.raises(expected, match=r"python-3\.13\.5"):
        await fetch(entry_of(original.as_uri()), folder, settings, no_report)
    assert left(folder) == []


# Several at once, and interruptions.


async def test_two_at_once_fetch_it_once(server: RepositoryServer, folder: Path, settings: Settings) -> None:
    gate = threading.Event()
    server.on(FILE).half_way = lambda: gate.wait(60)
    waiting = asyncio.Event()

    def notice(progress: Progress) -> None:
        if "somebody else" in progress.words:
            waiting.set()

    both = [asyncio.ensure_future(fetch(entry_of(server), folder, settings, notice)) for _ in range(2)]
    await asyncio.wait_for(waiting.wait(), 60)
    gate.set()
    paths = await asyncio.gather(*both)
    assert [path.read_bytes() == CONTENT for path in paths] == [True, True]
    assert server.times(FILE) == 1
    assert left(folder) == [".package"]


async def test_cancelled_download_is_continued(server: RepositoryServer, folder: Path, settings: Settings) -> None:
    gate = threading.Event()
    came = asyncio.Event()
    server.on(FILE).half_way = lambda: gate.wait(60)
    task = asyncio.ensure_future(
        fetch(entry_of(server), folder, settings, lambda progress: came.set() if progress.done else None)
    )
    await asyncio.wait_for(came.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert left(folder) == [".from", ".part"]
    assert (await fetch(entry_of(server), folder, settings, no_report)).read_bytes() == CONTENT
    assert server.asked[-1].range.startswith("bytes=")


async def test_killed_download_is_continued_by_the_next_process(
    server: RepositoryServer, folder: Path, settings: Settings
) -> None:
    gate = threading.Event()
    reached = threading.Event()

    def hold() -> None:
        reached.set()
        gate.wait(120)

    server.on(FILE).half_way = hold
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom firebox.settings.settings import load_settings\n"
        "from firebox.packages.download.download import fetch\nfrom firebox.packages.entry import Entry\n"
        "address, digest, folder, data = sys.argv[1:]\n"
        "settings = load_settings({'data_dir': Path(data), 'allow_unsigned_packages': True}, environ={})\n"
        "entry = Entry(language='python', version='3.13.5', checksums={'sha256': digest}, download=address, repository='main')\n"
        "def report(progress):\n    print(progress.done, flush=True)\n"
        "asyncio.run(fetch(entry, Path(folder), settings, report))\n"
    )
    words = [server.url + FILE, sums()["sha256"], str(folder), str(settings.data_dir)]
    process = subprocess.Popen([sys.executable, "-c", program, *words], cwd=ROOT / "src", stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as lines:
        written = await asyncio.to_thread(lambda: next(line for line in lines if line.strip() != b"0"))
        process.kill()
        await asyncio.to_thread(process.wait, 60)
    gate.set()
    assert reached.is_set()
    assert int(written) > 0
    assert (await fetch(entry_of(server), folder, settings, no_report)).read_bytes() == CONTENT
    assert server.asked[-1].range.startswith("bytes=")


async def test_link_in_the_place_of_the_partial_file_is_not_followed(
    server: RepositoryServer, folder: Path, settings: Settings, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    path = await fetch(entry_of(server), folder, settings, no_report)
    path.unlink()
    path.with_suffix(".part").symlink_to(precious)
    with pytest.raises(DownloadFailed):
        await fetch(entry_of(server), folder, settings, no_report)
    assert precious.read_bytes() == b"precious"


async def test_password_of_the_repository_is_sent_for_its_files(server: RepositoryServer, folder: Path, tmp_path: Path) -> None:
    server.login = "user:hunter2"
    address = server.url.replace("http://", "http://user:hunter2@")
    settings = settings_of(tmp_path, repositories=f"main={address}/index.yaml")
    assert (await fetch(entry_of(server), folder, settings, no_report)).read_bytes() == CONTENT
    with pytest.raises(DownloadFailed, match="401") as refused:
        await fetch(entry_of(server, repository="other"), folder / "other", settings, no_report)
    assert "hunter2" not in refused.value.message
