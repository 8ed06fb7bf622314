"""Who may do what, and where doors may open.

Pure rules and values: principals, roles and the table of what each role may do; tokens, of
which only a keyed hash is ever kept; the limit on guessing them; the rule for listeners; keys and
what is signed with them; where this server may be sent to. Nothing here reads a file or opens a socket.
"""

from salver.security.access import (
    ANONYMOUS,
    DEFAULT_TENANT,
    PERMISSIONS,
    Operation,
    Principal,
    PrincipalKind,
    Role,
    allows,
    local_principal,
    require,
)
from salver.security.binding import Binding, allowed_host, check_binding
from salver.security.guessing import GuessLimit, TooManyGuessesError
from salver.security.tokens import MintedToken, TokenVerifier, mint_token

__all__ = [
    "ANONYMOUS",
    "DEFAULT_TENANT",
    "PERMISSIONS",
    "Binding",
    "GuessLimit",
    "MintedToken",
    "Operation",
    "Principal",
    "PrincipalKind",
    "Role",
    "TokenVerifier",
    "TooManyGuessesError",
    "allowed_host",
    "allows",
    "check_binding",
    "local_principal",
    "mint_token",
    "require",
]
