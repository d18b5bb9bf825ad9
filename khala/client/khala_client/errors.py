"""What a call of the client may raise; one exception type per thing that its caller must do.

Everything is a KhalaError with the registry's code, so that a caller which knows none of the
subclasses can still act on ``advice``. Messages carry identifiers and the registry's constant
text, never tokens and never payloads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from khala_contracts.reason_codes import REGISTRY, Advice

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ChainMismatch",
    "Forbidden",
    "KhalaError",
    "ProfileRefused",
    "ReauthRequired",
    "RecordingRefused",
    "SettingsRefused",
    "StaleCursor",
    "StoreConflict",
    "StoreFailed",
    "StoreRefused",
    "Unavailable",
    "UpgradeRequired",
    "error_for",
]

_NO_DETAILS: Final[Mapping[str, str]] = {}


class KhalaError(Exception):
    """A refusal or an ending, as the registry of reason codes names it.

    Attributes:
        code: Registry name, for example ``idempotency_conflict``; ``internal`` stands for a code
            that this client does not know.
        message: Public text of the code, or the server's.
        advice: What to do next.
        retryable: The same call may succeed later without a change.
        retry_after_ms: Earliest useful time for that, 0 if there is no particular one.
        details: Machine-readable facts of the server.
        topic: Set if one topic is concerned.
        docs: Link to the page of the code.
        request_id: Quote it when you report the problem; empty if there was no request.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        retryable: bool | None = None,
        retry_after_ms: int = 0,
        details: Mapping[str, str] = _NO_DETAILS,
        topic: str | None = None,
        docs: str = "",
        request_id: str = "",
    ) -> None:
        row = REGISTRY.get(code)
        self.code = code
        self.message = message or (row.text if row is not None else "")
        self.advice = row.advice if row is not None else Advice.GIVE_UP
        self.retryable = retryable if retryable is not None else row is not None and row.retryable
        if not self.retryable and self.advice in {Advice.RETRY_NOW, Advice.RETRY_BACKOFF}:
            self.advice = Advice.GIVE_UP
        self.retry_after_ms = retry_after_ms
        self.details = dict(details)
        self.topic = topic
        self.docs = docs or (row.docs if row is not None else "")
        self.request_id = request_id
        super().__init__(self.code, self.message)

    def __str__(self) -> str:
        facts = [f"topic={self.topic}"] if self.topic else []
        facts += [f"{name}={value}" for name, value in sorted(self.details.items())]
        facts += [f"request_id={self.request_id}"] if self.request_id else []
        tail = f" ({' '.join(facts)})" if facts else ""
        return f"{self.code}: {self.message}{tail}"


class StaleCursor(KhalaError):
    """The cursor cannot be continued; load a snapshot or start at ``earliest``, then follow.

    Attributes:
        reason: ``retention_expired``, ``compaction_boundary``, ``replay_budget_exceeded`` or
            ``lineage_mismatch``.
        lineage: The topic's lineage now.
        head_seq: Newest committed position when it was judged.
        floor_seq: Oldest retained position; ``cursor.seq + 1 < floor_seq`` is the retention test.
        floor_chain: Chain at ``floor_seq - 1``.
    """

    def __init__(
        self,
        topic: str,
        reason: str,
        *,
        lineage: str = "",
        head_seq: int = 0,
        floor_seq: int = 1,
        floor_chain: bytes = b"",
        details: Mapping[str, str] = _NO_DETAILS,
    ) -> None:
        super().__init__(f"stale_cursor.{reason}", topic=topic, details=details)
        self.reason = reason
        self.lineage = lineage
        self.head_seq = head_seq
        self.floor_seq = floor_seq
        self.floor_chain = floor_chain


class ChainMismatch(StaleCursor):
    """What was applied is not what the authority holds: the chains differ at ``seq``.

    The remedy is that of any other ``lineage_mismatch``; that it was seen at all is worth a report.
    """

    def __init__(self, topic: str, seq: int, *, lineage: str = "") -> None:
        super().__init__(topic, "lineage_mismatch", lineage=lineage, details={"chain_differs_at": str(seq)})
        self.seq = seq


class ReauthRequired(KhalaError):
    """The credential is used up or revoked: sign in again. Retrying does not help."""


class UpgradeRequired(KhalaError):
    """This client is too old for the server. ``min_build_id`` is the oldest that it accepts."""

    @property
    def min_build_id(self) -> str:
        """Oldest accepted build, empty if the server did not say."""
        return self.details.get("min_build_id", "")


class Forbidden(KhalaError):
    """Not allowed, or it does not exist: the two look the same on purpose."""


class Unavailable(KhalaError):
    """No answer, or a server in trouble, for longer than the caller's deadline. Retry is safe.

    An append that ends so may have been committed; repeating it with the same key settles it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "unavailable",
        retry_after_ms: int = 0,
        details: Mapping[str, str] = _NO_DETAILS,
        topic: str | None = None,
        docs: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(
            code,
            message,
            retryable=True,
            retry_after_ms=retry_after_ms,
            details=details,
            topic=topic,
            docs=docs,
            request_id=request_id,
        )


_CLASSES: Final[Mapping[str, type[KhalaError]]] = {
    "forbidden": Forbidden,
    "upgrade_required": UpgradeRequired,
    "unauthenticated": ReauthRequired,
    "reauth_required": ReauthRequired,
    "token_expired": ReauthRequired,
    "token_invalid": ReauthRequired,
    "token_replayed": ReauthRequired,
}
_STALE_PREFIX: Final = "stale_cursor."


def error_for(
    code: str,
    message: str = "",
    *,
    retryable: bool | None = None,
    retry_after_ms: int = 0,
    details: Mapping[str, str] = _NO_DETAILS,
    topic: str | None = None,
    docs: str = "",
    request_id: str = "",
) -> KhalaError:
    """Return the exception whose type fits a code that came from a server.

    A code that this client does not know becomes ``internal``, not retryable; it is kept in
    ``details["code"]``. ``retryable`` None takes the registry's word.
    """
    topic = topic or details.get("topic") or None
    row = REGISTRY.get(code)
    if row is None:
        known = {**details, "code": code}
        return KhalaError(
            "internal", message, retryable=False, details=known, topic=topic, docs=docs, request_id=request_id
        )
    if code.startswith(_STALE_PREFIX):
        return StaleCursor(topic or "", code.removeprefix(_STALE_PREFIX), details=details)
    is_retryable = row.retryable if retryable is None else retryable
    if is_retryable:
        return Unavailable(
            message,
            code=code,
            retry_after_ms=retry_after_ms,
            details=details,
            topic=topic,
            docs=docs,
            request_id=request_id,
        )
    return _CLASSES.get(code, KhalaError)(
        code,
        message,
        retryable=False,
        retry_after_ms=retry_after_ms,
        details=details,
        topic=topic,
        docs=docs,
        request_id=request_id,
    )


class SettingsRefused(ValueError):
    """Environment or arguments do not say unambiguously where to connect, and as whom."""


class ProfileRefused(Exception):
    """A profile directory that cannot be used: missing, unreadable, of a newer version."""


class StoreRefused(Exception):
    """A store file that this client must not touch: of a newer version, or not a store."""


class StoreConflict(Exception):
    """Another process moved the same cursor in the same store. Give each follower its own store or topic."""


class RecordingRefused(ValueError):
    """A recording that cannot be read completely; nothing of it was used.

    Attributes:
        line: 1-based line of the trouble, 0 if it concerns the file as a whole.
        where: Path inside the document, for example ``trajectory[3].action``; may be empty.
        reason: What is wrong, in words.
    """

    def __init__(self, reason: str, *, line: int = 0, where: str = "") -> None:
        place = ", ".join(part for part in (f"line {line}" if line else "", where) if part)
        super().__init__(f"{place}: {reason}" if place else reason)
        self.line = line
        self.where = where
        self.reason = reason


class StoreFailed(Exception):
    """The store could not do it now (disk full, locked for seconds); nothing of it was written."""
