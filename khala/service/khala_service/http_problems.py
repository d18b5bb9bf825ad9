"""Refusals over HTTP: an exception with a registered reason code, and its Error body.

Texts are constant per code and come from the registry; `details` carries field names, limits and
positions, never payloads, tokens, statements or paths of this machine.
"""

from collections.abc import Mapping

from khala_contracts import codec
from khala_contracts import http_messages as m
from khala_contracts.reason_codes import ReasonCode
from khala_contracts.server_messages import ErrorMessage
from khala_service.request_context import current_request_id


class HttpProblem(Exception):
    """Ends a request with the Error body of `reason`; raise it anywhere below a route.

    Attributes:
        reason: Row of the registry; must have an HTTP status.
        details: Machine-readable facts, for example ``{"field": "events[3].kind"}``.
        retry_after_ms: 0: no particular time.
    """

    def __init__(
        self,
        reason: ReasonCode,
        details: Mapping[str, str] | None = None,
        *,
        retry_after_ms: int = 0,
    ) -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.details = dict(details or {})
        self.retry_after_ms = retry_after_ms

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return self.reason.http_status or 500


def error_message(problem: HttpProblem) -> m.Error:
    """Return the body of a refusal, with the id to quote."""
    error = ErrorMessage.of(
        problem.reason,
        details=problem.details,
        retry_after_ms=problem.retry_after_ms,
        request_id=current_request_id(),
    )
    return codec.error_to_wire(error)
