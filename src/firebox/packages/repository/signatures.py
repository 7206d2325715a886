"""Trust in repositories: trusted OpenPGP keys, verification of signatures, and which packages may be installed.

Only keys that the operator put into `trusted_keys_dir` are trusted: `REPOSITORY.asc` holds the certificates of one repository,
armored or not, several concatenated if necessary.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pysequoia import Cert, Sig, verify
from pysequoia.packet import PacketPile, SignatureType, Tag

from firebox.domain.errors import NotTrusted
from firebox.packages.entry import Entry
from firebox.packages.repository.sources import Source, read_sources
from firebox.settings.settings import Settings

MAX_KEY_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 64 << 10

_COMPONENTS = (Tag.PublicSubkey, Tag.SecretSubkey, Tag.UserID, Tag.UserAttribute)
"""Certificate components that the following signature packets apply to."""


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
        words = str(error).partition("\n")[0]
        raise NotTrusted(f"the keys of repository {repository} cannot be read: {words}") from None
    if not keys:
        raise NotTrusted(f"{path} contains no key", hint="add an OpenPGP certificate, or delete the file")
    return keys


def check_trust(entry: Entry, settings: Settings) -> list[Cert]:
    """Check whether a package may be installed. Return the keys that may sign it.

    Returns no keys if no signature is required: for a local index, or if the operator accepts unsigned packages by checksum
    alone. Raises: NotTrusted.
    """
    keys = trusted_keys(settings, entry.repository) if entry.repository else []
    if keys:
        if not entry.signature:
            raise NotTrusted(f"{entry.name} of repository {entry.repository} is not signed")
        return keys
    source = source_of(entry, settings)
    on_network = source.on_network if source else not entry.download.startswith("file:")
    if on_network and not settings.allow_unsigned_packages:
        raise NotTrusted(
            f"no key is trusted for repository {entry.repository or '(unnamed)'}, so {entry.name} cannot be verified",
            hint=trust_hint(entry.repository, signed=bool(entry.signature)),
        )
    return []


def trust_hint(repository: str, *, signed: bool) -> str:
    """Return a hint with the command and the setting that allow packages of a repository.

    signed: whether its packages are signed. Piston indexes never are, and then a trusted key does not help.
    """
    allow = "set FIREBOX_ALLOW_UNSIGNED_PACKAGES=true (setting allow_unsigned_packages; restart a running server)"
    trust = f"firebox packages trust {repository or 'NAME'} KEY.asc"
    if not signed:
        return f"the repository is not signed: to install packages verified by checksum only, {allow}; once it is signed, {trust}"
    return f"trust its key: {trust}; or, to install packages verified by checksum only, {allow}"


def untrusted_sources(settings: Settings) -> list[Source]:
    """List the network repositories without a trusted key, from which nothing can be installed."""
    if settings.allow_unsigned_packages:
        return []
    return [each for each in read_sources(settings) if each.on_network and not key_file(settings, each.name).exists()]


def source_of(entry: Entry, settings: Settings) -> Source | None:
    """Return the repository of a package; None for a package from a file."""
    return next((source for source in read_sources(settings) if source.name == entry.repository), None)


def verify_signature(content: bytes | Path, *, signature: bytes, keys: Sequence[Cert], what: str) -> datetime:
    """Verify the detached signature of some bytes or of a file, and return its time. what: in messages. Raises: NotTrusted."""
    if not signature.strip():
        hint = "a key is trusted for this repository, so all of its content must be signed"
        raise NotTrusted(f"{what} is not signed", hint=hint)
    usable = [key for key in keys if not _invalid_reason(key)]
    parsed = _read_signature(signature, what)
    if not usable:
        raise NotTrusted(f"no valid key can sign {what}: {'; '.join(_invalid_reason(key) for key in keys)}")
    signer = parsed.issuer_fingerprint or parsed.issuer_key_id or "an unknown key"
    hint = f"signed by {signer}; trusted keys: {', '.join(key.fingerprint for key in keys)}"

    def certificates(_ids: list[str]) -> list[Cert]:
        return usable

    try:
        check = partial(verify, content) if isinstance(content, bytes) else partial(verify, file=content)
        valid = check(store=certificates, signature=parsed).valid_sigs
    except (RuntimeError, OSError):
        # The library's error message is a backtrace.
        raise NotTrusted(f"{what} has no valid signature by a trusted key", hint=hint) from None
    for each in valid:
        key = next((key for key in usable if key.fingerprint == each.certificate), None)
        if key is not None and not _is_invalid_subkey(key, each.signing_key) and parsed.created is not None:
            return parsed.created
    raise NotTrusted(f"{what} has no valid signature by a valid key", hint=hint)


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
    """Return why a certificate is invalid, or "". The date of a signature is irrelevant: with a stolen key it can be forged."""
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


def _now() -> datetime:
    return datetime.now(UTC)
