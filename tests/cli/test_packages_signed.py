"""Signed packages from end to end: keys, signatures, trust, and a network repository."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.package_commands import PackageCommands, filled_folder
from tests.support.package_folder import FileServer, PackageFolder, serving

USER_ID = "Ann Author <ann@example.com>"


@pytest.fixture
def folder(tmp_path: Path) -> PackageFolder:
    return filled_folder(tmp_path / "repository")


@pytest.fixture
def published(tmp_path: Path) -> Iterator[FileServer]:
    place = tmp_path / "published"
    place.mkdir()
    with serving(place) as server:
        yield server


@pytest.fixture
def packages(tmp_path: Path, published: FileServer) -> PackageCommands:
    return PackageCommands(tmp_path / "data", f"{published.url}/index.yaml")


def make_key(packages: PackageCommands, file: Path) -> str:
    """Create a key. Return its fingerprint."""
    return str(packages.json("keygen", USER_ID, "--output", str(file))["fingerprint"])


def publish(packages: PackageCommands, folder: PackageFolder, published: FileServer, key: Path) -> None:
    packages.json("publish", str(folder.path), str(published.folder), "--key", str(key))


def test_a_published_folder_installs_where_its_key_is_trusted(
    packages: PackageCommands, folder: PackageFolder, published: FileServer, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    fingerprint = make_key(packages, key)
    publish(packages, folder, published, key)
    refused = packages("install", "greet")
    assert refused.returncode == 125
    assert packages.installed() == []
    assert packages.json("trust", "main", f"{key}.asc")["trusted"][0]["fingerprint"] == fingerprint
    assert [each["id"] for each in packages.json("install", "polite")] == ["greet-1.2.0", "polite-3.1.0"]
    (seen,) = packages.json("repos")
    assert seen["trusted"][0]["user_ids"] == [USER_ID]
    assert seen["signed_at"] is not None
    assert all(each["signed"] for each in packages.json("list", "--available"))


def test_another_key_is_not_trusted(
    packages: PackageCommands, folder: PackageFolder, published: FileServer, tmp_path: Path
) -> None:
    make_key(packages, tmp_path / "key")
    make_key(packages, tmp_path / "other")
    publish(packages, folder, published, tmp_path / "key")
    packages.json("trust", "main", str(tmp_path / "other.asc"))
    done = packages("install", "greet")
    assert done.returncode == 125
    assert packages.installed() == []


def test_a_secret_key_is_private_and_never_overwritten(packages: PackageCommands, tmp_path: Path) -> None:
    key = tmp_path / "key"
    make_key(packages, key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "PRIVATE" not in (tmp_path / "key.asc").read_text()
    before = key.read_bytes()
    assert packages("keygen", USER_ID, "-o", str(key)).returncode == 2
    assert key.read_bytes() == before
    key.unlink()
    assert packages("keygen", USER_ID, "-o", str(key)).returncode == 2
    assert not key.exists()


def test_trust_shows_the_key_and_stores_only_its_public_part(packages: PackageCommands, tmp_path: Path) -> None:
    fingerprint = make_key(packages, tmp_path / "key")
    done = packages("trust", "main", str(tmp_path / "key"))
    assert done.returncode == 0
    assert fingerprint.upper() in done.stdout.replace(" ", "")
    assert USER_ID in done.stdout
    assert "secret key" in done.stderr
    assert "PRIVATE" not in (packages.data / "trusted-keys" / "main.asc").read_text()


def test_keys_are_trusted_and_untrusted_individually(packages: PackageCommands, tmp_path: Path) -> None:
    first, second = (make_key(packages, tmp_path / name) for name in ("first", "second"))
    packages.json("trust", "main", str(tmp_path / "first.asc"))
    both = packages.json("trust", "main", "-", stdin=(tmp_path / "second.asc").read_text())
    assert [each["fingerprint"] for each in both["trusted"]] == [first, second]
    again = packages.json("trust", "main", str(tmp_path / "first.asc"))
    assert len(again["trusted"]) == 2
    assert packages("untrust", "main", first[-4:]).returncode == 2
    assert [each["fingerprint"] for each in packages.json("untrust", "main", first[-16:].upper())["trusted"]] == [second]
    assert packages.json("untrust", "main")["trusted"] == []
    assert not (packages.data / "trusted-keys" / "main.asc").exists()
    assert packages("untrust", "main").returncode == 2


@pytest.mark.parametrize("name", ["../main", "all", "Main", "", "a b"])
def test_an_invalid_repository_name_is_rejected(packages: PackageCommands, tmp_path: Path, name: str) -> None:
    make_key(packages, tmp_path / "key")
    assert packages("trust", name, str(tmp_path / "key.asc")).returncode == 2
    assert not (packages.data / "trusted-keys").exists()


def test_an_invalid_certificate_is_rejected(packages: PackageCommands, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nnonsense\n")
    for name in (str(file), str(tmp_path / "missing")):
        done = packages("trust", "main", name)
        assert (done.returncode, "a bug" in done.stderr) == (2, False)
    assert packages("trust", "main", "-", stdin="x" * (1 << 21)).returncode == 2


def test_an_unconfigured_repository_causes_a_warning(packages: PackageCommands, tmp_path: Path) -> None:
    make_key(packages, tmp_path / "key")
    done = packages("trust", "mian", str(tmp_path / "key.asc"))
    assert done.returncode == 0
    assert "mian is not in the setting" in done.stderr


def test_sign_creates_a_missing_index(packages: PackageCommands, folder: PackageFolder, tmp_path: Path) -> None:
    make_key(packages, tmp_path / "key")
    (folder.path / "index.yaml").unlink()
    entries = packages.json("index", str(folder.path))
    assert [(each["package"], each["version"]) for each in entries] == [
        ("greet", "1.0.0"), ("greet", "1.2.0"), ("greet", "2.0.0"), ("picture", "0.5.0"), ("polite", "3.1.0"),
    ]  # fmt: skip
    assert all(each["signed"] for each in packages.json("sign", str(folder.path), "--key", str(tmp_path / "key")))
    packages.env["FIREBOX_REPOSITORIES"] = f"main={folder.path}"
    packages.json("trust", "main", str(tmp_path / "key.asc"))
    assert [each["id"] for each in packages.json("install", "picture")] == ["picture-0.5.0"]


def test_a_signing_failure_is_reported(packages: PackageCommands, folder: PackageFolder, tmp_path: Path) -> None:
    make_key(packages, tmp_path / "key")
    assert packages("sign", str(folder.path), "--key", str(tmp_path / "key.asc")).returncode == 2
    assert packages("sign", str(tmp_path / "missing"), "--key", str(tmp_path / "key")).returncode == 2
    assert packages("index", str(tmp_path / "missing")).returncode == 2


def test_a_bundle_transfers_packages_to_an_offline_machine(
    packages: PackageCommands, folder: PackageFolder, published: FileServer, tmp_path: Path
) -> None:
    key, bundle = tmp_path / "key", tmp_path / "languages.tar"
    make_key(packages, key)
    publish(packages, folder, published, key)
    packages.json("trust", "main", f"{key}.asc")
    packages.json("install", "greet@1.0.0")
    written = packages.json("export", "polite", "greet@1.0.x", "picture", "--output", str(bundle))
    assert written["packages"] == ["greet-1.2.0", "polite-3.1.0", "greet-1.0.0", "picture-0.5.0"]
    assert packages.installed() == ["greet-1.0.0"]

    far = PackageCommands(tmp_path / "far")
    far.json("trust", "main", f"{key}.asc")
    taken = far.json("import", str(bundle))
    assert (sorted(taken["imported"]), taken["installed"]) == (sorted(written["packages"]), [])
    assert [each["id"] for each in far.json("install", "polite")] == ["greet-1.2.0", "polite-3.1.0"]

    further = PackageCommands(tmp_path / "further")
    assert len(further.json("import", str(bundle), "--install")["installed"]) == 4
    assert further.installed() == ["greet-1.0.0", "greet-1.2.0", "picture-0.5.0", "polite-3.1.0"]


def test_an_unsigned_bundle_is_rejected_where_a_key_is_trusted(
    packages: PackageCommands, folder: PackageFolder, tmp_path: Path
) -> None:
    make_key(packages, tmp_path / "key")
    packages.env["FIREBOX_REPOSITORIES"] = f"main={folder.path}"
    packages.json("export", "greet", "--output", str(tmp_path / "bundle"))
    far = PackageCommands(tmp_path / "far")
    far.json("trust", "main", str(tmp_path / "key.asc"))
    done = far("import", str(tmp_path / "bundle"), "--install")
    assert (done.returncode, done.stdout) == (125, "")
    assert far.installed() == []


def test_an_invalid_bundle_is_reported(packages: PackageCommands, folder: PackageFolder, tmp_path: Path) -> None:
    assert packages("import", str(tmp_path / "missing")).returncode == 2
    done = packages("import", str(folder.path / "picture-0.5.0.squashfs"))
    assert (done.returncode, "a bug" in done.stderr) == (125, False)
    assert packages("export", "--output", str(tmp_path / "bundle")).returncode == 2
    assert packages("export", "greet", "--installed", "--output", str(tmp_path / "bundle")).returncode == 2
    assert packages("export", "greet", "--output", str(tmp_path / "missing" / "bundle")).returncode == 2
