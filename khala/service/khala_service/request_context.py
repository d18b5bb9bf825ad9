"""Which request this task works for: the correlation id that follows a command to its frames."""

import re
from contextvars import ContextVar
from typing import Final

REQUEST_ID_HEADER: Final = "X-Request-Id"
# SPEC section 4. Anything else could be used to write into our logs.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)

_current: ContextVar[str] = ContextVar("khala_request_id", default="")


def is_request_id(text: str) -> bool:
    """Return whether a client's id is taken over; if not, a new one is made and returned to it."""
    return _REQUEST_ID.fullmatch(text) is not None


def current_request_id() -> str:
    """Return the id of the request that this task serves, "" outside a request."""
    return _current.get()


def set_request_id(request_id: str) -> None:
    """Make `request_id` current for this task and the tasks it starts."""
    _current.set(request_id)
