"""How tokens and passwords are kept out of what people are shown: `firebox settings`, error messages, logs."""

from __future__ import annotations

import re

HIDDEN = "***"
"""What stands where a secret was."""

# Compiled when first used: that takes longer than to load this module, which every command does.
_USER_INFO = r"(?s)(?<=://)(?P<user>[^:/@]*:)?.*@"
_SENSITIVE_QUERY = r"(?i)([?&](?:password|passwd|pass|secret|token|sslpassword)=)[^&#]*"


def hide_secret(value: object, secret: bool = False) -> object:
    """Give a value as it may be shown to anybody. secret: it is one as a whole, unless it is an address, which may be seen.

    In addresses the password is hidden, or the user where there is no password, as that may be a token.
    """
    if not isinstance(value, str):
        return HIDDEN if secret else value
    if "://" in value:
        shown = re.sub(_USER_INFO, lambda found: f"{found['user'] or ''}{HIDDEN}@", value)
        return re.sub(_SENSITIVE_QUERY, rf"\1{HIDDEN}", shown)
    return HIDDEN if secret and value else value
