"""OpenPGP signatures of repositories: trusted keys and verification.

Only keys that the operator put into `trusted_keys_dir` are trusted: `REPOSITORY.asc` holds the certificates of one repository,
armored or not, several concatenated if necessary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from pysequoia import Cert, Decrypted, Sig, verify
from pysequoia.packet import PacketPile, SignatureType, Tag

from firebox.domain.errors import NotTrusted
from firebox.settings.settings import Settings

MAX_KEY_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 64 << 10


_COMPONENTS = (Tag.PublicSubkey, Tag.SecretSubkey, Tag.UserID, Tag.UserAttribute)
"""Certificate components that the following signature packets apply to."""


class ValidSignature(Struct, frozen=True, kw_only=True):
    """A valid signature."""

    fingerprint: str
    """Of the certificate, in lower-case hexadecimal."""
    created: datetime


def key_file(settings: Settings, repository: str) -> Path:
    """Return the path of the trusted keys of a repository."""
    return settings.data_dir / settings.trusted_keys_dir / f"{repository}.asc"


def trusted_keys(settings: Settings, repository: str) -> list[Cert]:
    """Read the trusted certificates of a repository; none if the file does not exist.

    Raises: NotTrusted if the file exists but is unusable, so that verification is never disabled by accident.
    """
    path = key_file(settings, repository)
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_KEY_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NotTrusted(f"the keys of repository {repository} cannot be read: {error}") from None
    try:
        if len(content) > MAX_KEY_BYTES:
            raise NotTrusted(f"the keys of repository {repository} are larger than {MAX_KEY_BYTES} bytes")
        keys = Cert.split_bytes(content)
    except RuntimeError as error:
        raise NotTrusted(f"the keys of repository {repository} cannot be read: {_first_line(error)}") from None
    if not keys:
        raise NotTrusted(f"{path} contains no key", hint="add an OpenPGP certificate, or delete the file")
    return keys


def verify_bytes(content: bytes, *, signature: bytes, keys: Sequence[Cert], what: str) -> ValidSignature:
    """Verify a detached signature. what: name of the content in messages. Raises: NotTrusted."""
    return _verify(lambda certificates, parsed: verify(content, certificates, signature=parsed), signature, keys, what)


def verify_file(path: Path, *, signature: bytes, keys: Sequence[Cert], what: str) -> ValidSignature:
    """Verify the detached signature of a file. Raises: NotTrusted."""
    return _verify(lambda certificates, parsed: verify(file=path, store=certificates, signature=parsed), signature, keys, what)


_Certificates = Callable[[list[str]], list[Cert]]


def _verify(
    check: Callable[[_Certificates, Sig], Decrypted], signature: bytes, keys: Sequence[Cert], what: str
) -> ValidSignature:
    if not signature.strip():
        raise NotTrusted(
            f"{what} is not signed", hint="a key is trusted for this repository, so all of its content must be signed"
        )
    usable = [key for key in keys if not _invalid_reason(key)]
    parsed = _read_signature(signature, what)
    if not usable:
        raise NotTrusted(f"no valid key can sign {what}: {'; '.join(_invalid_reason(key) for key in keys)}")
    try:
        valid = check(lambda _ids: usable, parsed).valid_sigs
    except (RuntimeError, OSError):
        # The library's error message is a backtrace.
        raise NotTrusted(f"{what} has no valid signature by a trusted key", hint=_signer_hint(parsed, keys)) from None
    for each in valid:
        key = next((key for key in usable if key.fingerprint == each.certificate), None)
        if key is not None and not _is_invalid_subkey(key, each.signing_key) and parsed.created is not None:
            return ValidSignature(fingerprint=key.fingerprint, created=parsed.created)
    raise NotTrusted(f"{what} has no valid signature by a valid key", hint=_signer_hint(parsed, keys))


def _read_signature(signature: bytes, what: str) -> Sig:
    try:
        if len(signature) > MAX_SIGNATURE_BYTES:
            raise NotTrusted(f"the signature of {what} is too long")
        parsed = Sig.from_bytes(signature)
    except RuntimeError:
        raise NotTrusted(f"the signature of {what} cannot be read") from None
    if parsed.signature_type != SignatureType.Binary:
        raise NotTrusted(f"the signature of {what} is not a signature of a file")
    if parsed.expiration is not None and parsed.expiration <= _now():
        raise NotTrusted(f"the signature of {what} has expired")
    return parsed


def _invalid_reason(key: Cert) -> str:
    """Return why a certificate is not valid, "" if it is.

    The date of a signature is irrelevant: with a stolen key it can be forged.
    """
    if key.is_revoked:
        return f"{key.fingerprint} is revoked"
    if key.expiration is not None and key.expiration <= _now():
        return f"{key.fingerprint} has expired"
    return ""


def _is_invalid_subkey(key: Cert, fingerprint: str) -> bool:
    """Check whether a subkey is expired or revoked now. The library only checks the time of the signature."""
    if fingerprint == key.fingerprint:
        return False
    born: datetime | None = None
    newest: tuple[datetime, datetime | None] | None = None
    for packet in PacketPile.from_bytes(bytes(key)):
        if packet.tag in _COMPONENTS:
            born = packet.key_created if packet.fingerprint == fingerprint else None
        elif born is not None and packet.tag == Tag.Signature:
            if packet.signature_type == SignatureType.SubkeyRevocation:
                return True
            made = packet.signature_created
            if made is not None and (newest is None or made >= newest[0]):
                period = packet.key_validity_period
                newest = made, born + period if period else None
    # The newest binding signature applies: it may change the expiry.
    return newest is None or (newest[1] is not None and newest[1] <= _now())


def _signer_hint(parsed: Sig, keys: Sequence[Cert]) -> str:
    signer = parsed.issuer_fingerprint or parsed.issuer_key_id or "an unknown key"
    return f"signed by {signer}; trusted keys: {', '.join(key.fingerprint for key in keys)}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _now() -> datetime:
    return datetime.now(UTC)
