"""What operators may do to a running service, and how they prove themselves.

An operator presents the admin token as bearer; a service without one has no such route. Failpoints exist
in mode dev only: elsewhere the route is not there (404).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from google.protobuf import struct_pb2
from quart import request

from khala_contracts import reason_codes
from khala_contracts.errors import WireError
from khala_contracts.strict_json import parse_strict, struct_to_mapping
from khala_service import failpoints
from khala_service.http_bodies import read_bytes
from khala_service.http_problems import HttpProblem
from khala_service.logs import get_logger
from khala_service.service_auth import bearer_credential

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from khala_service.secret import Secret

__all__ = ["FAILPOINTS_ROUTE", "AdminToken", "add_failpoint_route", "check_admin_token"]

FAILPOINTS_ROUTE: Final = "/internal/v1/failpoints"
# 96 bits in base64url. Shorter: it can be guessed; empty: everybody without a credential is an operator.
ADMIN_TOKEN_MIN_BYTES: Final = 16
_BODY_MAX_BYTES: Final = 16 * 1024

_log = get_logger(__name__)


class AdminToken:
    """Judges who may use the operators' routes."""

    def __init__(self, token: Secret) -> None:
        """Accept this token and no other."""
        self._token = token.reveal().encode()

    def require(self) -> None:
        """Return if the current request carries the token.

        Raises:
            HttpProblem: unauthenticated; the same for a missing and for a wrong token.
        """
        presented = (bearer_credential(request.headers.get("Authorization")) or "").encode()
        if not hmac.compare_digest(presented, self._token):
            raise HttpProblem(reason_codes.UNAUTHENTICATED)


def check_admin_token(token: Secret | None) -> None:
    """Refuse a token that protects nothing; for the configuration of a service.

    Raises:
        ValueError: shorter than ADMIN_TOKEN_MIN_BYTES.
    """
    if token is not None and len(token.reveal().encode()) < ADMIN_TOKEN_MIN_BYTES:
        message = f"admin_token: expected at least {ADMIN_TOKEN_MIN_BYTES} bytes"
        raise ValueError(message)


def add_failpoint_route(app: QuartTrio, admin: AdminToken) -> None:
    """Register the route that arms failpoints; call in mode dev only."""

    @app.post(FAILPOINTS_ROUTE)
    async def arm_failpoints() -> dict[str, object]:
        admin.require()
        spec = _read_spec(await read_bytes(max_bytes=_BODY_MAX_BYTES))
        try:
            failpoints.arm(spec)
        except ValueError as error:
            raise HttpProblem(reason_codes.INVALID_ARGUMENT, {"arm": str(error)}) from None
        _log.warning("failpoints_armed", spec=spec)
        return {"armed": spec, "hits": dict(failpoints.hits())}


def _read_spec(body: bytes) -> str:
    asked = struct_to_mapping(parse_strict(body, struct_pb2.Struct))
    spec = asked.pop("arm", None)
    if asked or not isinstance(spec, str):
        raise WireError(reason_codes.MALFORMED_MESSAGE, '{"arm": "<points>"} and nothing else')
    return spec
