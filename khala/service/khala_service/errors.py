"""Operating errors that cross a port: what is wrong, who may retry, whether the outcome is known.

Adapters translate their library's exceptions into these once; nothing above an adapter names
asyncpg or httpx. Messages carry identifiers only, never payloads, statements or secrets.
"""

from typing import Final

# Long enough for a failover or a restarted peer to be noticed; short enough that a person does not.
DEFAULT_RETRY_AFTER_S: Final = 1.0


class Unavailable(Exception):
    """A dependency did not do the work in time; retrying later may succeed.

    Attributes:
        reason: Stable lower-case word for logs and readiness, for example ``database_unreachable``.
        retry_after_s: Earliest sensible retry, seconds.
        outcome_unknown: True if the work may have been done although no answer came. The caller
            must find out (by idempotency key) before it does the work again.
        limit: Name and value of a limit of ours that was exceeded; None if it is something else.
    """

    def __init__(
        self,
        reason: str,
        retry_after_s: float = DEFAULT_RETRY_AFTER_S,
        *,
        outcome_unknown: bool = False,
        limit: tuple[str, int] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.outcome_unknown = outcome_unknown
        self.limit = limit

    @property
    def details(self) -> dict[str, str]:
        """The ``details`` of an error message about this."""
        details = {"outcome": "unknown"} if self.outcome_unknown else {}
        if self.limit is not None:
            details |= {"limit": self.limit[0], "max": str(self.limit[1])}
        return details

    def __str__(self) -> str:
        return f"{self.reason} (outcome unknown)" if self.outcome_unknown else self.reason


class SerializationTrouble(Exception):
    """PostgreSQL rolled the transaction back because of another one; run it again from the start.

    Nothing was written. The one retry owner of the operation decides how often.
    """

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"sqlstate={sqlstate}")
        self.sqlstate = sqlstate


class DatabaseError(Exception):
    """PostgreSQL refused a statement because of its content; retrying does not help.

    ``message``, ``detail`` and ``hint`` are PostgreSQL's words and may quote data: they are for the
    adapter that raised them on purpose (`RAISE ... USING DETAIL`), not for logs or responses.
    """

    def __init__(
        self,
        sqlstate: str,
        *,
        message: str = "",
        detail: str | None = None,
        hint: str | None = None,
        constraint: str | None = None,
    ) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
        self.constraint = constraint

    def __str__(self) -> str:
        return f"sqlstate={self.sqlstate} constraint={self.constraint or '-'}"


class PeerRefused(Exception):
    """Another service answered with a refusal of its own; retrying the same request does not help.

    Attributes:
        peer: Which service, for example ``control``.
        code: Registry name of the reason code, for example ``not_found``.
        http_status: Status of the answer.
        details: Machine-readable facts of the answer.
    """

    def __init__(self, peer: str, code: str, http_status: int, details: dict[str, str]) -> None:
        super().__init__(f"peer={peer} code={code} status={http_status}")
        self.peer = peer
        self.code = code
        self.http_status = http_status
        self.details = details
