"""OpenPGP: who may sign what comes from a repository, and whether one of them did.

Nothing is trusted that the operator has not put into `trusted_keys_dir`: `REPOSITORY.asc` holds the certificates for one
repository, armored or not, several in a row if need be.
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

MOST_KEY_BYTES = 1 << 20
MOST_SIGNATURE_BYTES = 64 << 10


_PARTS = (Tag.PublicSubkey, Tag.SecretSubkey, Tag.UserID, Tag.UserAttribute)
"""What of a certificate the signatures behind it are about."""


class Good(Struct, frozen=True, kw_only=True):
    """A signature that holds."""

    fingerprint: str
    """Of the certificate, lower-case hexadecimal digits."""
    created: datetime


def key_file(settings: Settings, repository: str) -> Path:
    """Where the keys trusted for a repository are."""
    return settings.data_dir / settings.trusted_keys_dir / f"{repository}.asc"


def trusted_keys(settings: Settings, repository: str) -> list[Cert]:
    """Read the certificates that may sign for a repository; none when there is no such file.

    Raises: NotTrusted when the file is there and holds nothing that can be used: trust is never lost by accident.
    """
    path = key_file(settings, repository)
    try:
        with path.open("rb") as opened:
            content = opened.read(MOST_KEY_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NotTrusted(f"the keys for repository {repository} cannot be read: {error}") from None
    try:
        if len(content) > MOST_KEY_BYTES:
            raise NotTrusted(f"the keys for repository {repository} are larger than {MOST_KEY_BYTES} bytes")
        keys = Cert.split_bytes(content)
    except RuntimeError as error:
        raise NotTrusted(f"the keys for repository {repository} cannot be read: {_first_line(error)}") from None
    if not keys:
        raise NotTrusted(f"there is no key in {path}", hint="put an OpenPGP certificate there, or take the file away")
    return keys


def verify_bytes(content: bytes, *, signature: bytes, keys: Sequence[Cert], what: str) -> Good:
    """Check a detached signature. what: what is signed, for the message. Raises: NotTrusted."""
    return _verify(lambda certificates, parsed: verify(content, certificates, signature=parsed), signature, keys, what)


def verify_file(path: Path, *, signature: bytes, keys: Sequence[Cert], what: str) -> Good:
    """Check the detached signature of a file. Raises: NotTrusted."""
    return _verify(lambda certificates, parsed: verify(file=path, store=certificates, signature=parsed), signature, keys, what)


_Certificates = Callable[[list[str]], list[Cert]]


def _verify(check: Callable[[_Certificates, Sig], Decrypted], signature: bytes, keys: Sequence[Cert], what: str) -> Good:
    if not signature.strip():
        raise NotTrusted(
            f"{what} is not signed", hint="a key is trusted for this repository, so everything in it has to be signed"
        )
    usable = [key for key in keys if not _spoilt(key)]
    parsed = _read_signature(signature, what)
    if not usable:
        raise NotTrusted(f"no key is left that may sign {what}: {'; '.join(_spoilt(key) for key in keys)}")
    try:
        valid = check(lambda _ids: usable, parsed).valid_sigs
    except (RuntimeError, OSError):
        # The library's own words are a backtrace.
        raise NotTrusted(f"{what} has no good signature by a trusted key", hint=_who(parsed, keys)) from None
    for each in valid:
        key = next((key for key in usable if key.fingerprint == each.certificate), None)
        if key is not None and not _spoilt_part(key, each.signing_key) and parsed.created is not None:
            return Good(fingerprint=key.fingerprint, created=parsed.created)
    raise NotTrusted(f"{what} has no good signature by a key that is still good", hint=_who(parsed, keys))


def _read_signature(signature: bytes, what: str) -> Sig:
    try:
        if len(signature) > MOST_SIGNATURE_BYTES:
            raise NotTrusted(f"the signature of {what} is too long")
        parsed = Sig.from_bytes(signature)
    except RuntimeError:
        raise NotTrusted(f"the signature of {what} cannot be read") from None
    if parsed.signature_type != SignatureType.Binary:
        raise NotTrusted(f"the signature of {what} is not one of a file")
    if parsed.expiration is not None and parsed.expiration <= _now():
        raise NotTrusted(f"the signature of {what} has expired")
    return parsed


def _spoilt(key: Cert) -> str:
    """Say why a certificate cannot vouch for anything, "" when it can.

    A signature is not saved by its date: whoever has a stolen key writes any date into it.
    """
    if key.is_revoked:
        return f"{key.fingerprint} is revoked"
    if key.expiration is not None and key.expiration <= _now():
        return f"{key.fingerprint} has expired"
    return ""


def _spoilt_part(key: Cert, fingerprint: str) -> bool:
    """Say whether a subkey has expired or is revoked by now. The library looks at the time of the signature instead."""
    if fingerprint == key.fingerprint:
        return False
    born: datetime | None = None
    newest: tuple[datetime, datetime | None] | None = None
    for packet in PacketPile.from_bytes(bytes(key)):
        if packet.tag in _PARTS:
            born = packet.key_created if packet.fingerprint == fingerprint else None
        elif born is not None and packet.tag == Tag.Signature:
            if packet.signature_type == SignatureType.SubkeyRevocation:
                return True
            made = packet.signature_created
            if made is not None and (newest is None or made >= newest[0]):
                period = packet.key_validity_period
                newest = made, born + period if period else None
    # Of several bindings the newest counts: it is how an expiry is moved.
    return newest is None or (newest[1] is not None and newest[1] <= _now())


def _who(parsed: Sig, keys: Sequence[Cert]) -> str:
    signer = parsed.issuer_fingerprint or parsed.issuer_key_id or "an unknown key"
    return f"it names {signer}; trusted are {', '.join(key.fingerprint for key in keys)}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _now() -> datetime:
    return datetime.now(UTC)
