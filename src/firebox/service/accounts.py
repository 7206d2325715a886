"""Users, tokens, roles and permissions.

Only the SHA-256 of a token is stored, here and in the database. Tokens are 256 random bits unless an operator chose one, so no
slow hash is needed and guessing is hopeless; wrong tokens are rate-limited per address all the same.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from firebox.domain.errors import Conflict, Forbidden, InvalidRequest, NotFound, RateLimited, Unauthenticated
from firebox.service.callers import Caller, rate_limit_key
from firebox.settings.settings import Settings
from firebox.storage.records import DEFAULT_QUOTA, Quota, Role, User, hash_token
from firebox.storage.stores import Stores

if TYPE_CHECKING:  # it imports SQLAlchemy
    from firebox.storage.record_stores import Users

FRESH_S = 5.0
"""How long a token is cached: changes by other processes take effect here after this."""
REMEMBERED = 4096
"""Maximum number of cached tokens, valid and invalid; the least recently used one is evicted."""
WRONG_TOKENS_PER_MINUTE = 30
"""Maximum number of different wrong tokens per address. Beyond it only known tokens are accepted, so neither a client with an old
token nor an attacker locks out others who share the address."""
WATCHED_ADDRESSES = 4096
TOKEN_BYTES = 32
MAX_TOKEN_CHARACTERS = 256
MAX_NAME_CHARACTERS = 100

_MINUTE_S = 60.0
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""What a header can carry as one word."""

_log = structlog.get_logger("firebox.accounts")


@dataclass(frozen=True, slots=True)
class Created:
    """A user with the token, which is shown only once."""

    user: User
    token: str


@dataclass(frozen=True, slots=True)
class _Found:
    """A cached token. caller: without an address, None for an invalid token; changes: of users, when it was cached."""

    caller: Caller | None
    is_disabled: bool
    until_s: float
    changes: int


class Accounts:
    """Identity and permissions. All changes of users go through here, so that they take effect at once in this process."""

    def __init__(self, stores: Stores, settings: Settings) -> None:
        self._stores = stores
        self._require_login = settings.require_login
        self._admin_digest = hash_token(settings.admin_token) if settings.admin_token else b""
        self._remembered: OrderedDict[bytes, _Found] = OrderedDict()
        self._changes = 0
        self._wrong = _WrongTokens()

    @property
    def users(self) -> Users:
        """The underlying store, for reading."""
        return self._stores.users

    async def identify(self, token: str | None, *, address: str) -> Caller:
        """Identify the client: the user of a token, the operator, or an address if no login is required.

        token: None if none was sent.
        Raises: Unauthenticated, Forbidden for a disabled user, RateLimited after many wrong tokens, PartUnavailable.
        """
        if token is None:
            if self._require_login:
                raise Unauthenticated("a token is needed", hint="send the header Authorization: Bearer TOKEN")
            return Caller(address=address)
        digest = hash_token(token)
        found = self._remembered.get(digest)
        if found is None or found.until_s <= time.monotonic() or found.changes != self._changes:
            found = await self._look_up(token, digest, address, known=found is not None)
        else:
            self._remembered.move_to_end(digest)
        if found.caller is None:
            raise Unauthenticated("wrong token")
        if found.is_disabled:
            raise Forbidden("this account is disabled")
        return replace(found.caller, address=address)

    def require_admin(self, caller: Caller) -> None:
        """Require an admin. Raises: Unauthenticated without a token, Forbidden."""
        if caller.is_anonymous:
            raise Unauthenticated("an admin's token is required", hint="send the header Authorization: Bearer TOKEN")
        if not caller.is_admin:
            raise Forbidden("only admins may do this")

    def require_operator(self, caller: Caller, *, forwarded: bool = False) -> None:
        """Require the operator: an admin, or without accounts a program on this machine.

        forwarded: the request came through a proxy, so that its client may be anywhere.
        Raises: Unauthenticated, Forbidden.
        """
        if self._require_login or self._admin_digest or not caller.is_anonymous:
            self.require_admin(caller)
        elif forwarded or not _is_this_machine(caller.address):
            raise Unauthenticated(
                "requests from other machines require an admin's token",
                hint="the operator sets admin_token, or creates an admin with `firebox users add NAME --role admin`",
            )

    async def is_admin(self, user_id: int) -> bool:
        """Return whether the user exists, is an admin and is not disabled. Raises: PartUnavailable."""
        try:
            user = await self.users.get(user_id)
        except NotFound:
            return False
        return user.role == "admin" and not user.disabled

    async def create(self, name: str, role: Role = "user", token: str | None = None, *, quota: Quota = DEFAULT_QUOTA) -> Created:
        """Create a user. token: None to generate one.

        Raises: InvalidRequest, Conflict when the name or the token is taken, PartUnavailable.
        """
        name, token = _check_user_name(name), self._check_token(token)
        user = await self.users.add(name=name, token=token, role=role, quota=quota)
        self._note_change("user created", user.id, role=user.role)
        return Created(user, token)

    async def new_token(self, user_id: int, token: str | None = None) -> Created:
        """Replace a user's token. token: None for a new one. Raises: NotFound, InvalidRequest, Conflict, PartUnavailable."""
        token = self._check_token(token)
        user = await self.users.set_token(user_id, token)
        self._note_change("token replaced", user_id)
        return Created(user, token)

    async def set_disabled(self, user_id: int, *, disabled: bool) -> User:
        """Disable or enable a user. Raises: NotFound, PartUnavailable."""
        user = await self.users.set_disabled(user_id, disabled=disabled)
        self._note_change("user disabled" if disabled else "user enabled", user_id)
        return user

    async def set_quota(self, user_id: int, quota: Quota) -> User:
        """Replace a user's own limits. Raises: NotFound, InvalidRequest, PartUnavailable."""
        user = await self.users.set_quota(user_id, quota)
        self._changes += 1
        return user

    async def remove(self, user_id: int) -> None:
        """Delete a user. Raises: NotFound, PartUnavailable."""
        await self.users.remove(user_id)
        self._note_change("user removed", user_id)

    def _note_change(self, event: str, user_id: int, **details: str) -> None:
        self._changes += 1
        _log.info(event, id=user_id, **details)

    def _is_operator(self, digest: bytes) -> bool:
        """Compare in constant time."""
        return bool(self._admin_digest) and hmac.compare_digest(digest, self._admin_digest)

    def _check_token(self, token: str | None) -> str:
        """Generate a token, or check a chosen one."""
        if token is None:
            return secrets.token_urlsafe(TOKEN_BYTES)
        if not _can_be_token(token):
            raise InvalidRequest(
                f"a token is 1 to {MAX_TOKEN_CHARACTERS} printable ASCII characters without spaces", where="token"
            )
        if self._is_operator(hash_token(token)):
            raise Conflict("that token is taken", hint="choose another one, or let Firebox generate one")
        return token

    async def _look_up(self, token: str, digest: bytes, address: str, *, known: bool) -> _Found:
        """Look up the user of a token, and cache the result. known: the token was looked up before, so this is no guess."""
        if not known:
            self._wrong.check(address)
        changes, caller, is_disabled = self._changes, None, False
        if self._is_operator(digest):
            caller = Caller(name="admin", role="admin")
        elif _can_be_token(token) and (user := await self.users.by_token(token)) is not None:
            caller = Caller(user_id=user.id, name=user.name, role=user.role, quota=user.quota)
            is_disabled = user.disabled
        elif not known:
            self._wrong.count(address)
            _log.info("wrong token", address=address)
        found = self._remembered[digest] = _Found(caller, is_disabled, time.monotonic() + FRESH_S, changes)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return found


class _WrongTokens:
    """Counts wrong tokens per address, in windows of a minute."""

    def __init__(self) -> None:
        self._counted: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises: RateLimited."""
        until_s, number = self._counted.get(rate_limit_key(address), (0.0, 0))
        remaining_s = until_s - time.monotonic()
        if number >= WRONG_TOKENS_PER_MINUTE and remaining_s > 0:
            raise RateLimited("wrong_tokens_per_minute", WRONG_TOKENS_PER_MINUTE, retry_after_s=remaining_s)

    def count(self, address: str) -> None:
        address = rate_limit_key(address)
        now_s = time.monotonic()
        until_s, number = self._counted.pop(address, (0.0, 0))
        self._counted[address] = (until_s, number + 1) if until_s > now_s else (now_s + _MINUTE_S, 1)
        if len(self._counted) > WATCHED_ADDRESSES:
            self._counted.popitem(last=False)


def _check_user_name(name: str) -> str:
    """Return the name of a user without surrounding blanks. Raises: InvalidRequest."""
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise InvalidRequest(f"a name is 1 to {MAX_NAME_CHARACTERS} printable characters", where="name")
    return name


def _can_be_token(token: str) -> bool:
    return len(token) <= MAX_TOKEN_CHARACTERS and _TOKEN.fullmatch(token) is not None


def _is_this_machine(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
