"""Services prove themselves to each other with credentials of their own, never with a user's.

A credential is ``khs_`` and 43 base64url characters (256 bits). Several per caller may be valid at
once, so that they can be rotated with overlap.
"""

import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from khala_contracts import reason_codes
from khala_service.http_problems import HttpProblem
from khala_service.secret import Secret

SERVICE_CREDENTIAL_PREFIX: Final = "khs_"
_SECRET_BYTES: Final = 32
_SCHEME: Final = "bearer "


def new_service_credential(random_bytes: Callable[[int], bytes]) -> Secret:
    """Return a new credential of 256 bits."""
    text = base64.urlsafe_b64encode(random_bytes(_SECRET_BYTES)).rstrip(b"=").decode("ascii")
    return Secret(SERVICE_CREDENTIAL_PREFIX + text)


def bearer_credential(authorization: str | None) -> str | None:
    """Return the credential of an Authorization header, None if there is none."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip() or None


class ServiceCredentials:
    """Which callers may use the internal routes, by credential."""

    def __init__(self, accepted: Mapping[str, Secret | Sequence[Secret]]) -> None:
        self._accepted: list[tuple[str, bytes]] = []
        for caller, secrets in accepted.items():
            for secret in (secrets,) if isinstance(secrets, Secret) else secrets:
                if not secret.reveal().startswith(SERVICE_CREDENTIAL_PREFIX):
                    raise ValueError(f"credential of caller {caller} does not start with khs_")
                self._accepted.append((caller, secret.reveal().encode()))

    def caller_of(self, authorization: str | None) -> str | None:
        """Return the caller whose credential the header carries, None if nobody's.

        Every accepted credential is compared in full, so that the time says nothing.
        """
        presented = (bearer_credential(authorization) or "").encode()
        found: str | None = None
        for caller, credential in self._accepted:
            if hmac.compare_digest(presented, credential):
                found = caller
        return found

    def require(self, authorization: str | None) -> str:
        """Return the caller.

        Raises:
            HttpProblem: unauthenticated; the same for a missing and for a wrong credential.
        """
        caller = self.caller_of(authorization)
        if caller is None:
            raise HttpProblem(reason_codes.UNAUTHENTICATED)
        return caller
