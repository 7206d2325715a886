"""Signature verification with real keys, created here and by GnuPG, valid and invalid."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pysequoia import Cert, Sig, SignatureMode, Tsk, sign
from pysequoia.packet import PacketPile, SignatureType, Tag

from firebox.domain.errors import NotTrusted
from firebox.packages.repository import signatures
from firebox.packages.repository.signatures import key_file, trusted_keys, verify_signature
from firebox.settings.settings import Settings, load_settings
from tests.conftest import require_tool
from tests.support.repository import new_key, signature_of, trust

CONTENT = b"what is signed"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"data_dir": tmp_path}, environ={})


@pytest.fixture
def key() -> Tsk:
    return new_key()


def certificate(key: Tsk) -> Cert:
    return key.extract_certificate()


def test_valid_signature_of_bytes_and_of_a_file_is_accepted(key: Tsk, tmp_path: Path) -> None:
    signature = signature_of(CONTENT, key).encode()
    found = verify_signature(CONTENT, signature=signature, keys=[certificate(key)], what="it")
    assert abs(found - datetime.now(UTC)) < timedelta(hours=1)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert verify_signature(path, signature=signature, keys=[certificate(new_key()), certificate(key)], what="it") == found


def test_changed_content_is_refused(key: Tsk, tmp_path: Path) -> None:
    signature = signature_of(CONTENT, key).encode()
    path = tmp_path / "file"
    path.write_bytes(CONTENT + b"\n")
    with pytest.raises(NotTrusted, match="it has no valid signature"):
        verify_signature(CONTENT + b"\n", signature=signature, keys=[certificate(key)], what="it")
    with pytest.raises(NotTrusted, match="it has no valid signature") as refused:
        verify_signature(path, signature=signature, keys=[certificate(key)], what="it")
    assert "backtrace" not in refused.value.message + refused.value.hint


def test_signature_by_an_untrusted_key_is_rejected_and_names_both_keys(key: Tsk) -> None:
    stranger = new_key("Stranger <stranger@example.org>")
    with pytest.raises(NotTrusted) as refused:
        verify_signature(CONTENT, signature=signature_of(CONTENT, stranger).encode(), keys=[certificate(key)], what="it")
    assert certificate(key).fingerprint in refused.value.hint


def test_untrusted_key_with_a_trusted_user_id_is_rejected(key: Tsk) -> None:
    with pytest.raises(NotTrusted):
        verify_signature(CONTENT, signature=signature_of(CONTENT, new_key()).encode(), keys=[certificate(key)], what="it")


@pytest.mark.parametrize(
    "signature", [b"", b" \n", b"nonsense", b"-----BEGIN PGP SIGNATURE-----\n\n\n-----END PGP SIGNATURE-----\n"]
)
def test_invalid_signature_data_is_rejected(key: Tsk, signature: bytes) -> None:
    with pytest.raises(NotTrusted):
        verify_signature(CONTENT, signature=signature, keys=[certificate(key)], what="it")


def test_message_with_a_signature_inside_is_no_detached_signature(key: Tsk) -> None:
    for mode in (SignatureMode.INLINE, SignatureMode.CLEAR):
        with pytest.raises(NotTrusted):
            verify_signature(CONTENT, signature=sign(key.signer(), CONTENT, mode=mode), keys=[certificate(key)], what="it")


def test_certificate_given_as_signature_is_refused(key: Tsk) -> None:
    with pytest.raises(NotTrusted):
        verify_signature(CONTENT, signature=str(certificate(key)).encode(), keys=[certificate(key)], what="it")


def test_revocation_given_as_signature_is_refused(key: Tsk) -> None:
    revocation = certificate(key).revoke(key.certifier())
    with pytest.raises(NotTrusted, match="not a signature of a file"):
        verify_signature(bytes(certificate(key)), signature=bytes(revocation), keys=[certificate(key)], what="it")


def test_overlong_signature_is_refused_unread(key: Tsk, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = signature_of(CONTENT, key).encode()
    monkeypatch.setattr(signatures, "MAX_SIGNATURE_BYTES", len(signature) - 1)
    with pytest.raises(NotTrusted, match="too long"):
        verify_signature(CONTENT, signature=signature, keys=[certificate(key)], what="it")


def test_revoked_key_is_refused_even_for_what_it_signed_before(key: Tsk) -> None:
    signature = signature_of(CONTENT, key).encode()
    revoked = Cert.from_bytes(bytes(certificate(key)) + bytes(certificate(key).revoke(key.certifier())))
    with pytest.raises(NotTrusted, match="is revoked"):
        verify_signature(CONTENT, signature=signature, keys=[revoked], what="it")
    with pytest.raises(NotTrusted):
        verify_signature(CONTENT, signature=signature, keys=[revoked, certificate(new_key())], what="it")


def test_expired_key_is_refused_even_for_what_it_signed_before(key: Tsk, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = signature_of(CONTENT, key).encode()
    until = datetime.now(UTC) + timedelta(days=30)
    expiring = certificate(key).set_expiration(until, key.certifier())
    verify_signature(CONTENT, signature=signature, keys=[expiring], what="it")
    monkeypatch.setattr(signatures, "_now", lambda: until + timedelta(seconds=1))
    with pytest.raises(NotTrusted, match="has expired"):
        verify_signature(CONTENT, signature=signature, keys=[expiring], what="it")


def test_several_certificates_in_one_file_are_all_trusted(settings: Settings, key: Tsk) -> None:
    other = new_key("Other <other@example.org>")
    trust(settings.data_dir, "main", key, other)
    keys = trusted_keys(settings, "main")
    assert [each.fingerprint for each in keys] == [certificate(key).fingerprint, certificate(other).fingerprint]
    verify_signature(CONTENT, signature=signature_of(CONTENT, other).encode(), keys=keys, what="it")
    key_file(settings, "main").write_bytes(bytes(certificate(key)) + bytes(certificate(other)))
    assert len(trusted_keys(settings, "main")) == 2


def test_missing_key_file_means_no_keys_and_a_corrupt_one_is_an_error(settings: Settings, key: Tsk) -> None:
    assert trusted_keys(settings, "main") == []
    trust(settings.data_dir, "main", key)
    assert trusted_keys(settings, "other") == []
    for content in (b"", b"nonsense", signature_of(CONTENT, key).encode(), str(certificate(key)).encode()[:300]):
        key_file(settings, "main").write_bytes(content)
        with pytest.raises(NotTrusted):
            trusted_keys(settings, "main")
    key_file(settings, "main").unlink()
    key_file(settings, "main").mkdir()
    with pytest.raises(NotTrusted, match="cannot be read"):
        trusted_keys(settings, "main")


def test_oversized_key_file_is_rejected(settings: Settings, key: Tsk, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(settings.data_dir, "main", key)
    monkeypatch.setattr(signatures, "MAX_KEY_BYTES", 100)
    with pytest.raises(NotTrusted, match="larger than 100 bytes"):
        trusted_keys(settings, "main")


class GnuPG:
    """GnuPG with a separate home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *words: str, text: str = "", asks: bool = False) -> bytes:
        """Run gpg. asks: it is interactive, and `text` has the answers."""
        talking = ["--no-tty", "--command-fd", "0"] if asks else ["--batch"]
        command = [require_tool("gpg"), *talking, "--yes", "--pinentry-mode", "loopback", "--passphrase", "", *words]
        environment = {**os.environ, "GNUPGHOME": str(self.home)}
        return subprocess.run(command, env=environment, input=text.encode(), capture_output=True, check=True, timeout=120).stdout

    def new_key(self, algorithm: str, usage: str = "sign", expires: str = "never") -> str:
        """Create a key and return its fingerprint."""
        self("--quick-generate-key", "Gnu <gnu@example.org>", algorithm, usage, expires)
        lines = self("--list-keys", "--with-colons").decode().splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))


@pytest.fixture
def gnupg() -> Generator[GnuPG]:
    require_tool("gpg")
    # The path of the agent's socket must be short.
    home = Path(tempfile.mkdtemp(prefix="gnupg-"))
    try:
        yield GnuPG(home)
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": str(home)}, check=False, timeout=60)
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("algorithm", ["ed25519", "rsa2048"])
def test_what_gnupg_signs_is_accepted(gnupg: GnuPG, settings: Settings, tmp_path: Path, algorithm: str) -> None:
    fingerprint = gnupg.new_key(algorithm)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    gnupg("--armor", "--detach-sign", str(path))
    key_file(settings, "main").parent.mkdir(parents=True)
    key_file(settings, "main").write_bytes(gnupg("--armor", "--export"))
    keys = trusted_keys(settings, "main")
    signature = path.with_name("file.asc").read_bytes()
    assert [each.fingerprint for each in keys] == [fingerprint.lower()]
    verify_signature(path, signature=signature, keys=keys, what="it")
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(NotTrusted):
        verify_signature(path, signature=signature, keys=keys, what="it")


def test_gnupg_accepts_what_is_signed_here(gnupg: GnuPG, key: Tsk, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    (tmp_path / "file.asc").write_text(signature_of(CONTENT, key))
    gnupg("--import", text=str(certificate(key)))
    gnupg("--verify", str(tmp_path / "file.asc"), str(path))


def test_revoked_subkey_is_refused_though_the_certificate_is_good(gnupg: GnuPG, settings: Settings, tmp_path: Path) -> None:
    fingerprint = gnupg.new_key("ed25519", "cert")
    gnupg("--quick-add-key", fingerprint, "ed25519", "sign", "never")
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    gnupg("--armor", "--detach-sign", str(path))
    signature = path.with_name("file.asc").read_bytes()
    [before] = Cert.split_bytes(gnupg("--export"))
    assert before.fingerprint == fingerprint.lower()
    verify_signature(CONTENT, signature=signature, keys=[before], what="it")
    edit = "key 1\nrevkey\ny\n3\n\ny\nsave\n"
    gnupg("--edit-key", fingerprint, text=edit, asks=True)
    [after] = Cert.split_bytes(gnupg("--export"))
    assert any(packet.signature_type == SignatureType.SubkeyRevocation for packet in PacketPile.from_bytes(bytes(after)))
    assert not after.is_revoked
    with pytest.raises(NotTrusted):
        verify_signature(CONTENT, signature=signature, keys=[after], what="it")


def test_expired_subkey_is_refused_though_the_certificate_is_good(
    gnupg: GnuPG, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fingerprint = gnupg.new_key("ed25519", "cert")
    gnupg("--quick-add-key", fingerprint, "ed25519", "sign", "10d")
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    gnupg("--armor", "--detach-sign", str(path))
    signature = path.with_name("file.asc").read_bytes()
    [certified] = Cert.split_bytes(gnupg("--export"))
    assert certified.expiration is None
    assert any(packet.tag == Tag.PublicSubkey for packet in PacketPile.from_bytes(bytes(certified)))
    verify_signature(CONTENT, signature=signature, keys=[certified], what="it")
    monkeypatch.setattr(signatures, "_now", lambda: datetime.now(UTC) + timedelta(days=11))
    with pytest.raises(NotTrusted, match="by a valid key"):
        verify_signature(CONTENT, signature=signature, keys=[certified], what="it")


def test_expired_signature_is_rejected(gnupg: GnuPG, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gnupg.new_key("ed25519")
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    gnupg("--armor", "--default-sig-expire", "5d", "--detach-sign", str(path))
    signature = path.with_name("file.asc").read_bytes()
    keys = Cert.split_bytes(gnupg("--export"))
    assert Sig.from_bytes(signature).expiration is not None
    verify_signature(CONTENT, signature=signature, keys=keys, what="it")
    monkeypatch.setattr(signatures, "_now", lambda: datetime.now(UTC) + timedelta(days=6))
    with pytest.raises(NotTrusted, match="has expired"):
        verify_signature(CONTENT, signature=signature, keys=keys, what="it")


def test_weak_digest_is_refused(gnupg: GnuPG, tmp_path: Path) -> None:
    gnupg.new_key("rsa2048")
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    gnupg("--armor", "--digest-algo", "SHA1", "--detach-sign", str(path))
    with pytest.raises(NotTrusted):
        verify_signature(
            CONTENT, signature=path.with_name("file.asc").read_bytes(), keys=Cert.split_bytes(gnupg("--export")), what="it"
        )
