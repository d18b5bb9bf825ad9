"""What every route needs from its request: who asks, under which key, and the numbers of a query."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from quart import g, request

from khala_contracts import reason_codes
from khala_service.http_edge import HttpProblem
from khala_service.request_context import current_request_id
from khala_service.service_auth import bearer_credential
from runtime.actors.command_path import Caller

if TYPE_CHECKING:
    from runtime.core.principals import Principal
    from runtime.ports import PrincipalResolver

__all__ = ["Authenticator", "caller", "query_number", "query_text"]

IDEMPOTENCY_KEY_HEADER: Final = "Idempotency-Key"
# Printable ASCII: what every client and proxy passes on unchanged.
_KEY: Final = re.compile(r"[\x20-\x7e]+", re.ASCII)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Authenticator:
    """Turns the Authorization header into a principal."""

    def __init__(self, resolver: PrincipalResolver) -> None:
        self._resolver = resolver

    async def principal(self) -> Principal:
        """Return who sends the current request; whoever answers it finds it as ``g.principal``.

        Raises:
            HttpProblem: unauthenticated; the same for a missing, wrong or expired credential.
            Unavailable: control does not answer.
        """
        principal = g.principal = await self.bearer_of(self.credential())
        return principal

    def credential(self) -> str | None:
        """Return the credential of the current request, for questions after its route has returned."""
        return bearer_credential(request.headers.get("Authorization"))

    async def bearer_of(self, credential: str | None) -> Principal:
        """Return whose credential it is. Raises: as `principal`."""
        principal = None if credential is None else await self._resolver.resolve(credential)
        if principal is None:
            raise HttpProblem(reason_codes.UNAUTHENTICATED)
        return principal


def caller(principal: Principal, *, key_bytes_max: int) -> Caller:
    """Return the sender of the current command with its idempotency key.

    Raises:
        HttpProblem: invalid_argument for a key that is empty, too long or not printable ASCII.
    """
    key = request.headers.get(IDEMPOTENCY_KEY_HEADER)
    if key is not None:
        check_key(key, IDEMPOTENCY_KEY_HEADER, key_bytes_max=key_bytes_max)
    return Caller(principal, key, current_request_id())


def check_key(key: str, field: str, *, key_bytes_max: int) -> None:
    """Check the form of an idempotency key.

    Raises:
        HttpProblem: invalid_argument at `field`.
    """
    if len(key) > key_bytes_max or _KEY.fullmatch(key) is None:
        problem = f"1..{key_bytes_max} printable ASCII characters"
        raise HttpProblem(reason_codes.INVALID_ARGUMENT, {"field": field, "problem": problem})


def query_text(name: str) -> str:
    """Return a parameter of the query, "" if it is absent.

    Raises:
        HttpProblem: invalid_argument if it is given twice.
    """
    values = request.args.getlist(name)
    if len(values) > 1:
        raise HttpProblem(reason_codes.INVALID_ARGUMENT, {"field": name, "problem": "given once"})
    return values[0] if values else ""


def query_number(name: str, *, default: int, least: int, most: int) -> int:
    """Return a whole number of the query.

    Raises:
        HttpProblem: invalid_argument if it is none, or outside least..most.
    """
    text = query_text(name)
    if not text:
        return default
    if _NUMBER.fullmatch(text) is None or not least <= int(text) <= most:
        problem = f"a whole number in {least}..{most}"
        raise HttpProblem(reason_codes.INVALID_ARGUMENT, {"field": name, "problem": problem})
    return int(text)
