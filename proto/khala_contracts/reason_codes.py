"""The one registry of refusals and endings; docs and client tables are made from it.

Invariants (tests/unit/khala_contracts/test_reason_codes.py):
    names and numbers are unique, equal to the enum in proto, never changed and never reused
    close codes 4000-4499 mean "reconnect and resume", 4500-4999 "do not, until something changes"
Several rows may share a close code; the error message before the close names the row.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DOCS_PATH", "REGISTRY", "UNKNOWN", "Advice", "ReasonCode", "by_number", "markdown_table"]


# Where services serve the pages (reason_code_pages.py). Links in errors are kept for years: it never changes.
DOCS_PATH: Final = "/docs/codes"


class Advice(Enum):
    """What the receiver should do next."""

    RETRY_NOW = "retry_now"
    RETRY_BACKOFF = "retry_backoff"
    REAUTHENTICATE = "reauthenticate"
    REBOOTSTRAP = "rebootstrap"
    UPGRADE = "upgrade"
    GIVE_UP = "give_up"


@attrs.frozen
class ReasonCode:
    """One row.

    Attributes:
        name: The ``code`` of an error, for example ``stale_cursor.retention_expired``.
        number: Number of the proto enum.
        close_code: WebSocket close code; None if it never closes a connection.
        http_status: None if it never answers an HTTP request.
        advice: What to do next.
        text: Constant public text; never contains data of a request.
        runbook: What an operator looks at when this code is frequent.
    """

    name: str
    number: int
    close_code: int | None
    http_status: int | None
    advice: Advice
    text: str
    runbook: str

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later without a change by the caller."""
        return self.advice in _RETRY

    @property
    def docs(self) -> str:
        """Stable link to the page of this code: a path on the origin that answered."""
        return f"{DOCS_PATH}/{self.name}"


_RETRY: Final = frozenset({Advice.RETRY_NOW, Advice.RETRY_BACKOFF})
_NOW, _BACKOFF, _REAUTH = Advice.RETRY_NOW, Advice.RETRY_BACKOFF, Advice.REAUTHENTICATE
_REBOOT, _UPGRADE, _GIVE_UP = Advice.REBOOTSTRAP, Advice.UPGRADE, Advice.GIVE_UP
_CLIENT: Final = "A client's mistake; look for one client_build_id behind many of them."
_CALLER: Final = "A caller's mistake; the request log has the principal and the request id."

# Endings after which the client reconnects and resumes.
DRAINING: Final = ReasonCode(
    "draining", 1, 4000, 503, _BACKOFF,
    "This server is going away; reconnect at the time given.",
    "Expected while a process is stopped or replaced.",
)  # fmt: skip
SLOW_CONSUMER: Final = ReasonCode(
    "slow_consumer", 2, 4001, None, _BACKOFF,
    "The connection took too little for too long; every cursor is still valid.",
    "One client: its network or its processing. Many on one node: the node's CPU and send path.",
)  # fmt: skip
HEARTBEAT_TIMEOUT: Final = ReasonCode(
    "heartbeat_timeout", 3, 4002, None, _NOW,
    "Nothing was received from the client for too long.",
    "Many at once: a proxy or a network path that drops idle connections.",
)  # fmt: skip
RATE_LIMITED: Final = ReasonCode(
    "rate_limited", 4, 4003, 429, _BACKOFF,
    "Too many requests; wait for the time given.",
    "Compare admission and publish rates with the limits; a storm of reconnects shows here first.",
)  # fmt: skip
UNAVAILABLE: Final = ReasonCode(
    "unavailable", 5, 4004, 503, _BACKOFF,
    "A part of the service cannot be reached; nothing is lost, retry later.",
    "Readiness of every process, then PostgreSQL: connections, locks, disk.",
)  # fmt: skip
TOKEN_EXPIRED: Final = ReasonCode(
    "token_expired", 6, 4005, 401, _REAUTH,
    "The token has expired; obtain a new one and resume.",
    "Clients that do not renew in time, or a clock that is wrong.",
)  # fmt: skip
INTERNAL: Final = ReasonCode(
    "internal", 7, 4006, 500, _BACKOFF,
    "The server made a mistake.",
    "A bug. The log has the stack trace under the connection or request id.",
)  # fmt: skip
HELLO_TIMEOUT: Final = ReasonCode(
    "hello_timeout", 8, 4007, None, _BACKOFF,
    "No hello arrived in time.",
    "Scanners and health checks that open the port without speaking; or a node without CPU.",
)  # fmt: skip

# Endings after which the client does not reconnect until something changes.
PROTOCOL_ERROR: Final = ReasonCode(
    "protocol_error", 20, 4500, None, _GIVE_UP,
    "This message may not be sent now.",
    _CLIENT,
)  # fmt: skip
MALFORMED_MESSAGE: Final = ReasonCode(
    "malformed_message", 21, 4500, 400, _GIVE_UP,
    "The message is not a valid one of this protocol.",
    _CLIENT,
)  # fmt: skip
AUTHORITY_WRITE_FORBIDDEN: Final = ReasonCode(
    "authority_write_forbidden", 22, 4500, None, _GIVE_UP,
    "Commands go over HTTP; nothing can be written here.",
    _CLIENT,
)  # fmt: skip
REAUTH_REQUIRED: Final = ReasonCode(
    "reauth_required", 23, 4501, 401, _REAUTH,
    "The session has ended; sign in again.",
    "Expected after a revocation. Many at once: the revocation feed, or a revoked family of tokens.",
)  # fmt: skip
TOKEN_INVALID: Final = ReasonCode(
    "token_invalid", 24, 4502, 401, _REAUTH,
    "The token is not valid here.",
    "Keys of control and node differ, wrong audience, or somebody tries tokens.",
)  # fmt: skip
TOKEN_REPLAYED: Final = ReasonCode(
    "token_replayed", 25, 4502, 401, _REAUTH,
    "The token was used before; each opens one connection.",
    "A client that reuses tokens, or a stolen one: the audit log has both uses.",
)  # fmt: skip
FORBIDDEN: Final = ReasonCode(
    "forbidden", 26, 4503, 403, _GIVE_UP,
    "Not allowed, or it does not exist.",
    "Expected for a principal without the right; `khala explain` names the missing one.",
)  # fmt: skip
UPGRADE_REQUIRED: Final = ReasonCode(
    "upgrade_required", 27, 4504, 426, _UPGRADE,
    "This client is too old for the server, or the server for the client.",
    "Compare the client's build, protocol and schema in the details with runbooks/compatibility.md.",
)  # fmt: skip
LIMIT_EXCEEDED: Final = ReasonCode(
    "limit_exceeded", 28, 4505, 403, _GIVE_UP,
    "A limit that waiting does not change is exceeded.",
    "The details name the limit; runbooks/protocol.md has the defaults.",
)  # fmt: skip
MESSAGE_TOO_LARGE: Final = ReasonCode(
    "message_too_large", 29, 1009, None, _GIVE_UP,
    "The WebSocket message is too large.",
    _CLIENT,
)  # fmt: skip
FRAMING_ERROR: Final = ReasonCode(
    "framing_error", 30, 1002, None, _GIVE_UP,
    "The bytes are not WebSocket frames.",
    "A broken client library or a proxy that changes bytes.",
)  # fmt: skip
INVALID_TEXT: Final = ReasonCode(
    "invalid_text", 31, 1007, None, _GIVE_UP,
    "A text message is not UTF-8.",
    _CLIENT,
)  # fmt: skip

# Staleness of one cursor.
STALE_RETENTION_EXPIRED: Final = ReasonCode(
    "stale_cursor.retention_expired", 40, None, 410, _REBOOT,
    "The next event is no longer retained.",
    "Expected for clients that were away longer than the retention of the topic's class.",
)  # fmt: skip
STALE_COMPACTION_BOUNDARY: Final = ReasonCode(
    "stale_cursor.compaction_boundary", 41, None, 410, _REBOOT,
    "The next event was replaced by a snapshot.",
    "Expected on state topics; the client loads the snapshot.",
)  # fmt: skip
STALE_REPLAY_BUDGET_EXCEEDED: Final = ReasonCode(
    "stale_cursor.replay_budget_exceeded", 42, None, 410, _REBOOT,
    "More events are missing than one replay may bring.",
    "Expected far behind the head; history can still be read by pages over HTTP.",
)  # fmt: skip
STALE_LINEAGE_MISMATCH: Final = ReasonCode(
    "stale_cursor.lineage_mismatch", 43, None, 410, _REBOOT,
    "The cursor belongs to another history of this topic.",
    "Expected after a restore. Without one: somebody put another copy of the database in place.",
)  # fmt: skip

# One topic of a subscribe, or one HTTP request.
TOPIC_INVALID: Final = ReasonCode(
    "topic_invalid", 60, None, 400, _GIVE_UP,
    "The text is not a topic of the registry.",
    _CALLER,
)  # fmt: skip
NOT_FOUND: Final = ReasonCode(
    "not_found", 62, None, 404, _GIVE_UP,
    "It does not exist, or you may not see it.",
    _CALLER,
)  # fmt: skip
INVALID_ARGUMENT: Final = ReasonCode(
    "invalid_argument", 63, None, 400, _GIVE_UP,
    "A field has a value that is not allowed.",
    _CALLER,
)  # fmt: skip
PAYLOAD_TOO_LARGE: Final = ReasonCode(
    "payload_too_large", 64, None, 413, _GIVE_UP,
    "The request or one payload in it is too large.",
    _CALLER,
)  # fmt: skip
KIND_UNKNOWN: Final = ReasonCode(
    "kind_unknown", 65, None, 400, _GIVE_UP,
    "This kind of event is not registered for the topic's class.",
    _CALLER,
)  # fmt: skip
IDEMPOTENCY_CONFLICT: Final = ReasonCode(
    "idempotency_conflict", 66, None, 409, _GIVE_UP,
    "The idempotency key was used before with another request.",
    _CALLER,
)  # fmt: skip
SEQ_CONFLICT: Final = ReasonCode(
    "seq_conflict", 67, None, 409, _GIVE_UP,
    "The topic's head is not the expected one.",
    "Two writers of one topic that both use expected_seq.",
)  # fmt: skip
INVALID_TRANSITION: Final = ReasonCode(
    "invalid_transition", 68, None, 409, _GIVE_UP,
    "This change of state is not allowed from the present one.",
    _CALLER,
)  # fmt: skip
RUN_FINISHED: Final = ReasonCode(
    "run_finished", 69, None, 409, _GIVE_UP,
    "The run has ended; nothing can be appended to it.",
    _CALLER,
)  # fmt: skip
UNAUTHENTICATED: Final = ReasonCode(
    "unauthenticated", 70, None, 401, _REAUTH,
    "A valid credential is required.",
    "Clients without or with a wrong credential; many from one address: somebody tries keys.",
)  # fmt: skip
METHOD_NOT_ALLOWED: Final = ReasonCode(
    "method_not_allowed", 71, None, 405, _GIVE_UP,
    "This path does not know this method.",
    _CALLER,
)  # fmt: skip
UNSUPPORTED_MEDIA_TYPE: Final = ReasonCode(
    "unsupported_media_type", 72, None, 415, _GIVE_UP,
    "Send application/x-protobuf or application/json.",
    _CALLER,
)  # fmt: skip
NOT_ACCEPTABLE: Final = ReasonCode(
    "not_acceptable", 73, None, 406, _GIVE_UP,
    "Only application/x-protobuf and application/json are offered.",
    _CALLER,
)  # fmt: skip
ORIGIN_FORBIDDEN: Final = ReasonCode(
    "origin_forbidden", 74, None, 403, _GIVE_UP,
    "Pages of this origin may not connect.",
    "Add the exact origin to cors_origins if it is yours.",
)  # fmt: skip
NAME_TAKEN: Final = ReasonCode(
    "name_taken", 75, None, 409, _GIVE_UP,
    "Another run of yours has this name.",
    _CALLER,
)  # fmt: skip
SUPERSEDED: Final = ReasonCode(
    "superseded", 76, None, 503, _BACKOFF,
    "Another runtime has taken over; retry there.",
    "Expected in the old process during a take-over; lasting: two runtimes take turns.",
)  # fmt: skip

_ROWS: Final = (
    DRAINING, SLOW_CONSUMER, HEARTBEAT_TIMEOUT, RATE_LIMITED, UNAVAILABLE, TOKEN_EXPIRED, INTERNAL,
    HELLO_TIMEOUT, PROTOCOL_ERROR, MALFORMED_MESSAGE, AUTHORITY_WRITE_FORBIDDEN, REAUTH_REQUIRED,
    TOKEN_INVALID, TOKEN_REPLAYED, FORBIDDEN, UPGRADE_REQUIRED, LIMIT_EXCEEDED, MESSAGE_TOO_LARGE,
    FRAMING_ERROR, INVALID_TEXT, STALE_RETENTION_EXPIRED, STALE_COMPACTION_BOUNDARY,
    STALE_REPLAY_BUDGET_EXCEEDED, STALE_LINEAGE_MISMATCH, TOPIC_INVALID, NOT_FOUND, INVALID_ARGUMENT,
    PAYLOAD_TOO_LARGE, KIND_UNKNOWN, IDEMPOTENCY_CONFLICT, SEQ_CONFLICT, INVALID_TRANSITION,
    RUN_FINISHED, UNAUTHENTICATED, METHOD_NOT_ALLOWED, UNSUPPORTED_MEDIA_TYPE, NOT_ACCEPTABLE,
    ORIGIN_FORBIDDEN, NAME_TAKEN, SUPERSEDED,
)  # fmt: skip
REGISTRY: Final[Mapping[str, ReasonCode]] = MappingProxyType({row.name: row for row in _ROWS})
_BY_NUMBER: Final = {row.number: row for row in _ROWS}

# How a reader treats a code that a newer server invented: as internal, but never retried.
UNKNOWN: Final = attrs.evolve(INTERNAL, close_code=None, http_status=None, advice=Advice.GIVE_UP)


def by_number(number: int) -> ReasonCode:
    """Return the row of a number of the proto enum; ``UNKNOWN`` if this build does not know it."""
    return _BY_NUMBER.get(number, UNKNOWN)


def markdown_table() -> str:
    """Return the registry as a Markdown table, one row a line, with an anchor and a link for each code."""
    lines = [
        "| code | close | HTTP | advice | says | operators look at |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f'| <a id="{row.name}"></a>[`{row.name}`](codes/{row.name}.md) | {row.close_code or "-"} | {row.http_status or "-"} '
        f"| {row.advice.value} | {row.text} | {row.runbook} |"
        for row in _ROWS
    ]
    return "\n".join(lines) + "\n"
