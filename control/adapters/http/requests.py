"""What every route of control needs from its request: the bearer credential and the request's id."""

from quart import request

from khala_service.request_context import current_request_id
from khala_service.service_auth import bearer_credential

# Nothing that control reads is large: 256 topics of 200 bytes and some names.
BODY_MAX_BYTES = 1024 * 1024


def presented_credential() -> str | None:
    """Return the credential of the Authorization header; it is looked for nowhere else."""
    return bearer_credential(request.headers.get("Authorization"))


def request_id() -> str:
    """Return the id of the request, for the audit row of whatever it does."""
    return current_request_id()
