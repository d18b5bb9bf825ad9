"""Asks control who the bearer of a credential is, and remembers the answer for at most a second.

Credentials are kept as SHA-256 only. Questions about one credential that meet are one question; an
answer is used until RESOLVED_LIFETIME_S have passed since it was *asked for*, or until control's own
limit, whichever is first: so a right that is revoked ends here within a second (SPEC section 1, 7).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import attrs
import trio

from khala_contracts import http_messages as m
from khala_service.errors import PeerRefused, Unavailable
from runtime.core.principals import Principal, Right

if TYPE_CHECKING:
    from khala_service.adapters.http_client import ServiceHttpClient
    from runtime.ports import Clock

__all__ = ["RESOLVED_LIFETIME_S", "HttpPrincipalResolver"]

RESOLVED_LIFETIME_S: Final = 1.0
# Distinct credentials within one lifetime. Beyond it the oldest answers are asked for again.
CREDENTIALS_MAX: Final = 10_000
# Longer than any token of ours; hashing and asking for a megabyte would be a gift to a flooder.
CREDENTIAL_MAX_BYTES: Final = 8 * 1024
_RESOLVE: Final = "/internal/v1/principals/resolve"
_MS_PER_S: Final = 1_000
# What control says of a credential that opens nothing. Any other refusal is about us, and a reason
# to try later rather than to send the caller away.
_NOT_VALID: Final = frozenset({"unauthenticated", "token_invalid", "token_expired", "reauth_required"})
_RIGHTS: Final = {right.value: right for right in Right}


@attrs.define(eq=False)
class _Question:
    """One question to control and, later, its answer."""

    asked_at: float
    answered: trio.Event = attrs.field(factory=trio.Event)
    principal: Principal | None = None
    error: Unavailable | None = None
    is_answered: bool = False


class HttpPrincipalResolver:
    """PrincipalResolver over control's internal route."""

    def __init__(self, control: ServiceHttpClient, clock: Clock) -> None:
        self._control = control
        self._clock = clock
        # In the order in which they were asked. Invariant: len(_questions) <= CREDENTIALS_MAX
        self._questions: dict[bytes, _Question] = {}

    async def resolve(self, credential: str) -> Principal | None:
        """Return the principal, None if the credential is not valid (any more).

        Raises:
            Unavailable: control does not answer.
        """
        if len(credential) > CREDENTIAL_MAX_BYTES:
            return None
        identity = hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
        while True:
            question = self._questions.get(identity)
            if question is None or trio.current_time() - question.asked_at > RESOLVED_LIFETIME_S:
                question = self._begin(identity)
                await self._ask(identity, question, credential)
            else:
                await question.answered.wait()
            if question.error is not None:
                raise Unavailable(question.error.reason, question.error.retry_after_s)
            if question.is_answered:
                return self._still_valid(question.principal)
            # Whoever asked was cancelled before the answer came: ask again.

    def _begin(self, identity: bytes) -> _Question:
        self._questions.pop(identity, None)
        while len(self._questions) >= CREDENTIALS_MAX:
            del self._questions[next(iter(self._questions))]
        question = self._questions[identity] = _Question(trio.current_time())
        return question

    async def _ask(self, identity: bytes, question: _Question, credential: str) -> None:
        try:
            answer = await self._control.post(
                _RESOLVE, m.ResolvePrincipalRequest(credential=credential), m.Principal
            )
            question.principal = _principal(answer)
            question.is_answered = True
        except PeerRefused as refused:
            if refused.code in _NOT_VALID:
                question.is_answered = True
            else:
                question.error = Unavailable(f"control_{refused.code}")
        except Unavailable as error:
            question.error = error
        finally:
            question.answered.set()
            if not question.is_answered and self._questions.get(identity) is question:
                del self._questions[identity]

    def _still_valid(self, principal: Principal | None) -> Principal | None:
        if principal is None or principal.expires_at <= self._clock.now():
            return None
        return principal


def _principal(message: m.Principal) -> Principal:
    return Principal(
        kind=m.PRINCIPAL_KINDS.from_wire_untrusted(message.kind, "kind"),
        principal_id=message.principal_id,
        user_id=message.user_id,
        org_roles={org.org_id: org.role for org in message.orgs},
        # A right that a newer control knows means nothing here.
        rights=frozenset(_RIGHTS[name] for name in message.rights if name in _RIGHTS),
        topic_patterns=tuple(message.topics),
        device_id=message.device_id,
        expires_at=message.expires_at / _MS_PER_S,
    )
