"""Signing a command in through the browser (RFC 8252): the way back to the person's own machine. Pure.

The command listens on a port of 127.0.0.1 and keeps a verifier of its own. The provider's answer goes to
control as ever; what the browser then carries to that port is a code. Whoever else reads it there, another
user of the machine or the browser's history, has no verifier, and the code is spent by the first attempt.
"""

import base64
import hashlib
import hmac
import re
from typing import Final
from urllib.parse import urlencode

import attrs

from control.core.oidc import AssertedIdentity
from control.core.refusals import invalid_argument, unauthenticated

__all__ = ["CODE_LIFETIME_S", "LoopbackReturn", "SignInCode", "check_loopback", "format_code", "judge_code"]

# The browser is on its way to a port of its own machine. Longer: what lies in its history is worth more.
CODE_LIFETIME_S: Final = 60
PORT_MAX: Final = 65_535
# RFC 7636: base64url of a SHA-256, and what the verifier of one may look like.
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@attrs.frozen
class LoopbackReturn:
    """Where a sign-in ends, and what proves that it is the command that began it."""

    port: int
    challenge: str = attrs.field(repr=False)

    def url(self, code: str) -> str:
        """Return where the browser brings the code. The host is always this machine's own address."""
        return f"http://127.0.0.1:{self.port}/callback?{urlencode({'code': code})}"


@attrs.frozen
class SignInCode:
    """What waits for the exchange of a code."""

    challenge: str = attrs.field(repr=False)
    identity: AssertedIdentity
    device_id: str
    surface: str
    expires_at_ms: int


def check_loopback(port: str, challenge: str) -> LoopbackReturn | None:
    """Return where a sign-in that names a port ends, None if it names none.

    Args:
        port: Of 127.0.0.1, decimal; empty: the sign-in is a browser's own.
        challenge: S256 challenge of the command's verifier (RFC 7636).

    Raises:
        Refused: invalid_argument.
    """
    if not port and not challenge:
        return None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= PORT_MAX):
        raise invalid_argument("loopback_port", "a port, 1 to 65535")
    if not _CHALLENGE.fullmatch(challenge):
        raise invalid_argument("code_challenge", "an S256 challenge: 43 letters, digits, - and _")
    return LoopbackReturn(int(port), challenge)


def format_code(random_bytes: bytes) -> str:
    """Return a code made of random bytes."""
    return base64.urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def judge_code(found: SignInCode | None, *, verifier: str, now_ms: int) -> SignInCode:
    """Return the code that was taken, if its verifier is the one of the command that began.

    Raises:
        Refused: unauthenticated, the same whatever is wrong.
    """
    if found is None:
        raise unauthenticated("code_unknown")
    if now_ms >= found.expires_at_ms:
        raise unauthenticated("code_expired")
    if not _VERIFIER.fullmatch(verifier):
        raise unauthenticated("code_verifier")
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    if not hmac.compare_digest(challenge, found.challenge):
        raise unauthenticated("code_verifier")
    return found
