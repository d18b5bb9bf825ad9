"""What routes of control need from their request: the bearer credential, the request's id, numbers of the query."""

from quart import request

from control.core.refusals import invalid_argument
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


def number_argument(name: str) -> int | None:
    """Return a whole number of the query, None if it is not there.

    Raises:
        Refused: invalid_argument; it is no number, or has more than 18 digits.
    """
    text = request.args.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise invalid_argument(name, "a whole number")
    return int(text)
