"""Bundles: a round trip preserves packages, and any modification is detected."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firebox.domain.errors import Conflict, FireboxError, NotTrusted, UnusablePackage, WrongChecksum
from firebox.packages.entry import Entry
from firebox.packages.publishing.bundle import export_bundle, import_bundle
from firebox.packages.publishing.publishing import publish
from firebox.packages.repository.sources import BUILT
from tests.packages.making import Bench, image, runtime
from tests.packages.test_publishing import key, packages, trusting

Contents = dict[str, Any]


async def exported(folder: Path, *, signed: bool = False, install: bool = False) -> Path:
    """Publish three packages, and export one of them with its dependencies from a machine with that repository."""
    served = folder / "served"
    await asyncio.to_thread(publish, packages(folder / "public"), served, key(folder) if signed else None)
    bench = Bench(folder / "source", repositories=f"main={served / 'index.yaml'}")
    if install:
        await bench.install("tiny")
    entry = await bench.repositories.find("tiny")
    target = folder / "bundle.tar"
    found = await export_bundle([entry], target, bench.settings, bench.repositories, bench.store)
    assert [each.name for each in found] == ["base-1.0.0", "tiny-1.2.3"]
    return target


@pytest.mark.parametrize("install", [False, True])
async def test_an_exported_bundle_installs_on_a_machine_without_a_repository(install: bool, tmp_path: Path) -> None:
    file = await exported(tmp_path, install=install)
    bench = Bench(tmp_path / "machine")
    imported = await import_bundle(file, bench.settings)
    assert [each.name for each in imported] == ["base-1.0.0", "tiny-1.2.3"]
    assert bench.repositories.names() == [BUILT]
    assert await bench.install("tiny") == ["base-1.0.0", "tiny-1.2.3"]
    assert [each.name for each in await import_bundle(file, bench.settings)] == ["base-1.0.0", "tiny-1.2.3"]  # once more


async def test_a_failed_export_leaves_no_partial_file(tmp_path: Path) -> None:
    file = await exported(tmp_path)
    bench = Bench(tmp_path / "machine")
    changed(file, lambda contents: contents["entries"][1]["checksums"].update(sha256="0" * 64))
    with pytest.raises(WrongChecksum, match=r"tiny-1\.2\.3"):
        await import_bundle(file, bench.settings)
    assert os.listdir(bench.settings.data_dir / "packages" / BUILT) == []
    assert bench.repositories.names() == []


def changed(file: Path, change: Callable[[Contents], object], *more: tarfile.TarInfo) -> None:
    """Rewrite a bundle with a modified manifest and extra members."""
    with tarfile.open(file) as tar:
        members = [(member, content.read()) for member in tar if (content := tar.extractfile(member))]
    contents = json.loads(members[0][1])
    change(contents)
    with tarfile.open(file, "w") as tar:
        for member, data in [(members[0][0], json.dumps(contents).encode()), *members[1:], *((each, b"") for each in more)]:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def other(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


GONE = {"language": "gone", "download": "gone-1.0.0.squashfs"}
TINA = {"language": "tina", "download": "tina-1.2.3.squashfs"}

HOSTILE: dict[str, tuple[Callable[[list[Contents]], object], str]] = {
    "a download elsewhere": (lambda entries: entries[0].update(download="../x"), "has an invalid file name, '../x'"),
    "a package of another name": (lambda entries: entries[1].update(TINA), "unexpected file"),
    "a version that is none": (lambda entries: entries[0].update(version="../1"), "is not a valid version"),
    "a weak checksum": (lambda entries: entries[0].update(checksums={"md5": "0" * 32}), "no SHA-256 checksum"),
    "a repository with a path": (lambda entries: entries[0].update(repository="../x"), "has an invalid repository name"),
    "one that is missing": (lambda entries: entries.append({**entries[0], **GONE}), "gone-1.0.0 is missing"),
    "one that is there twice": (lambda entries: entries.append(entries[0]), "each once"),
    "a name that is no text": (lambda entries: entries[0].update(language=7), "cannot be read"),
    "other dependencies": (lambda entries: entries[1].update(dependencies={"else": "*"}), "announces the dependencies"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_rejects_a_bundle_with(what: str, tmp_path: Path) -> None:
    change, words = HOSTILE[what]
    file = await exported(tmp_path)
    changed(file, lambda contents: change(contents["entries"]))
    bench = Bench(tmp_path / "machine")
    with pytest.raises(FireboxError, match=words):
        await import_bundle(file, bench.settings)
    assert os.listdir(bench.settings.data_dir / "packages" / BUILT) == []


@pytest.mark.parametrize("name", ["extra", "../../etc/passwd", "/etc/passwd"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
async def test_rejects_a_bundle_with_extra_members(name: str, kind: bytes, tmp_path: Path) -> None:
    file = await exported(tmp_path)
    changed(file, lambda _: None, other(name, kind))
    with pytest.raises(UnusablePackage, match="unexpected file"):
        await import_bundle(file, Bench(tmp_path / "machine").settings)


@pytest.mark.parametrize("content", [b"", b"junk" * 500, b"\0" * 10240])
async def test_rejects_files_that_are_not_bundles(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bundle.tar").write_bytes(content)
    with pytest.raises(UnusablePackage, match=r"is not a (valid )?bundle"):
        await import_bundle(tmp_path / "bundle.tar", Bench(tmp_path).settings)


async def test_a_truncated_bundle_is_rejected(tmp_path: Path) -> None:
    file = await exported(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 11_000])
    with pytest.raises((UnusablePackage, WrongChecksum)):
        await import_bundle(file, Bench(tmp_path / "machine").settings)


async def test_a_package_under_a_false_name_is_rejected(tmp_path: Path) -> None:
    file = await exported(tmp_path)

    def rename(contents: Contents) -> None:
        contents["entries"][1].update(language="bash", download="bash-1.2.3.squashfs")

    with tarfile.open(file) as tar:
        data = tar.extractfile("tiny-1.2.3.squashfs")
        assert data is not None
        content = data.read()
    changed(file, rename)
    with tarfile.open(file) as tar:
        members = [(member, found.read()) for member in tar if (found := tar.extractfile(member))]
    with tarfile.open(file, "w") as tar:
        for member, each in members:
            if member.name == "tiny-1.2.3.squashfs":
                member.name, each = "bash-1.2.3.squashfs", content
            tar.addfile(member, io.BytesIO(each))
    with pytest.raises(UnusablePackage, match=r"bash-1\.2\.3: the file contains a different package, tiny-1\.2\.3"):
        await import_bundle(file, Bench(tmp_path / "machine").settings)


async def test_with_a_trusted_key_only_signed_packages_are_imported(tmp_path: Path) -> None:
    file = await exported(tmp_path, signed=True)
    with tarfile.open(file) as tar:
        assert tar.next() is not None
    bench = trusting(tmp_path / "machine", tmp_path / "served", tmp_path / "key.asc")
    assert len(await import_bundle(file, bench.settings)) == 2
    stranger = trusting(tmp_path / "stranger", tmp_path / "served", key(tmp_path, "another").with_suffix(".asc"))
    with pytest.raises(NotTrusted):
        await import_bundle(file, stranger.settings)
    # A false origin does not help: then the signature of any trusted key is required.
    changed(file, lambda contents: [each.update(repository="elsewhere", signature="") for each in contents["entries"]])
    fresh = trusting(tmp_path / "fresh", tmp_path / "served", tmp_path / "key.asc")
    with pytest.raises(NotTrusted, match="is not signed"):
        await import_bundle(file, fresh.settings)


async def test_an_existing_version_is_never_replaced_by_different_content(tmp_path: Path) -> None:
    file = await exported(tmp_path)
    bench = Bench(tmp_path / "machine")
    (tmp_path / "mine").mkdir()
    mine = image(tmp_path / "mine", "tiny", "1.2.3", [runtime("tiny", "1.2.3")], author="me")
    served = bench.settings.data_dir / "packages" / BUILT
    mine.with_suffix(".tree").rename(tmp_path / "tree")
    await asyncio.to_thread(publish, mine.parent, served)
    with pytest.raises(Conflict, match="already exists with different content"):
        await import_bundle(file, bench.settings)
    entries: list[Entry] = await bench.repositories.entries(BUILT)
    assert [each.name for each in entries] == ["tiny-1.2.3"]
