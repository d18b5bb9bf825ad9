"""Calls from the node to control over HTTP: redeem tokens, fetch public keys.

Redemptions that wait at the same moment travel in one request, and one request is under way at a
time: while control answers, the next ones gather. A storm of hellos costs O(requests), not O(hellos).
An answer that is lost is asked for once more: redeeming is idempotent for each token and connection, and
a client that were told "unavailable" could not use its token again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import attrs
import httpx
import trio

from khala.adapters.audit_messages import batch_message
from khala.core.revocation_view import Revocation, RevocationKind, RevocationPage
from khala.ports import AuditRefusedError, ControlUnavailableError
from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.errors import WireError
from khala_contracts.wire_enums import EnumMap
from khala_service.errors import PeerRefused, Unavailable

if TYPE_CHECKING:
    import ssl

    from khala.core.access_audit import AuditBatch
    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.sync_claims import SyncClaims
    from khala_service.adapters.http_client import ServiceHttpClient

REDEEM_ROUTE: Final = "/internal/v1/sync-tokens/redeem"
AUDIT_ROUTE: Final = "/internal/v1/audit"
# Control refuses us, or is older than this route: what we have to tell is not at fault.
_NOT_THE_BATCH: Final = frozenset({401, 403, 404, 405})
REVOCATIONS_ROUTE: Final = "/internal/v1/revocations"
_REVOCATION_KINDS: Final = EnumMap(RevocationKind, m.RevocationKind.DESCRIPTOR)
BATCH_MAX: Final = 256
# Between the beginnings of two batches; a hello that comes alone is never held up. A request costs us, and control,
# more than verifying a token. Shorter: in a storm of reconnects there is one for each few hellos.
BATCH_PAUSE_S: Final = 0.020
# A hello may wait for this long in all; the hello deadline is above it.
ANSWER_TIMEOUT_S: Final = 4.0
# One attempt of a batch; two fit into what a hello may wait.
ATTEMPT_TIMEOUT_S: Final = 1.9
ATTEMPTS_MAX: Final = 2
# Waiting redemptions above this are refused at once; each waits for a batch of 256 and a round trip.
WAITING_MAX: Final = 4_096
_KEYS_MAX_BYTES: Final = 256 * 1024


@attrs.define(eq=False)
class _Waiting:
    redemption: m.Redemption
    done: trio.Event = attrs.field(factory=trio.Event)
    # ok, replayed or revoked; None: no answer.
    result: str | None = None


class HttpControlClient:
    """Redeems tokens in batches; ``run`` must be running."""

    def __init__(self, client: ServiceHttpClient, node_id: str) -> None:
        """Call control through ``client``, whose credential says which service we are."""
        self._client = client
        self._node_id = node_id
        self._send, self._receive = trio.open_memory_channel[_Waiting](WAITING_MAX)

    async def redeem(self, claims: SyncClaims, connection_id: str) -> ReasonCode | None:
        """Spend a token for a connection; see ControlClient."""
        waiting = _Waiting(
            m.Redemption(
                jti=claims.jti,
                connection_id=connection_id,
                node_id=self._node_id,
                session_id=claims.session_id or "",
                principal_id=claims.principal_id,
                user_id=claims.user_id,
                device_id=claims.device_id,
                token_expires_at=claims.expires_at_s * 1000,
                token_issued_at=claims.issued_at_s * 1000,
            )
        )
        try:
            self._send.send_nowait(waiting)
        except trio.WouldBlock:
            raise ControlUnavailableError(1.0) from None
        with trio.move_on_after(ANSWER_TIMEOUT_S):
            await waiting.done.wait()
        match waiting.result:
            case "ok":
                return None
            case "replayed":
                return reason_codes.TOKEN_REPLAYED
            case "revoked":
                return reason_codes.REAUTH_REQUIRED
            case _:
                raise ControlUnavailableError(1.0)

    async def read_revocations(self, after_seq: int) -> RevocationPage:
        """Return the rows of control's log after a position; see RevocationSource."""
        try:
            answer = await self._client.get(
                f"{REVOCATIONS_ROUTE}?after={after_seq}", m.RevocationsResponse, timeout_s=ANSWER_TIMEOUT_S
            )
            rows = [_revocation_of(row) for row in answer.revocations]
        except Unavailable as exc:
            raise ControlUnavailableError(exc.retry_after_s) from exc
        except (PeerRefused, WireError) as exc:
            raise ControlUnavailableError(1.0) from exc
        return RevocationPage(rows, answer.head_seq, answer.floor_seq)

    async def append_audit(self, batch: AuditBatch) -> None:
        """Have control write a batch; see AuditLog."""
        request = batch_message(batch, node_id=self._node_id)
        try:
            await self._client.post(AUDIT_ROUTE, request, m.AppendAuditResponse, timeout_s=ANSWER_TIMEOUT_S)
        except Unavailable as exc:
            raise ControlUnavailableError(exc.retry_after_s) from exc
        except PeerRefused as exc:
            if exc.http_status in _NOT_THE_BATCH:
                raise ControlUnavailableError(1.0) from exc
            raise AuditRefusedError from exc

    async def run(self) -> None:
        """Send batches until cancelled."""
        not_before = -float("inf")
        while True:
            batch = [await self._receive.receive()]
            await trio.sleep_until(not_before)
            not_before = trio.current_time() + BATCH_PAUSE_S
            while len(batch) < BATCH_MAX:
                try:
                    batch.append(self._receive.receive_nowait())
                except trio.WouldBlock:
                    break
            await self._redeem_batch(batch)

    async def _redeem_batch(self, batch: list[_Waiting]) -> None:
        request = m.RedeemRequest(redemptions=[waiting.redemption for waiting in batch])
        try:
            answer = await self._post(request)
            for waiting, result in zip(batch, answer.results, strict=True):
                waiting.result = m.REDEEM_RESULTS.words.get(result)
        except (Unavailable, PeerRefused, ValueError):
            # Each of these hellos is told "unavailable": its client comes back with a token that is
            # unspent, or was spent for a connection that never lived and is minted anew.
            pass
        finally:
            for waiting in batch:
                waiting.done.set()

    async def _post(self, request: m.RedeemRequest) -> m.RedeemResponse:
        """Send a batch; again if its answer was lost. Raises Unavailable, PeerRefused."""
        trouble = Unavailable("control_timeout", outcome_unknown=True)
        for _ in range(ATTEMPTS_MAX):
            # httpx limits each of connecting, sending and waiting; the hello waits for their sum.
            with trio.move_on_after(ATTEMPT_TIMEOUT_S):
                try:
                    return await self._client.post(REDEEM_ROUTE, request, m.RedeemResponse)
                except Unavailable as exc:
                    if not exc.outcome_unknown:
                        raise
                    trouble = exc
        raise trouble


def _revocation_of(row: m.Revocation) -> Revocation:
    """Return a row of the log; raises WireError for a kind that this build does not know.

    A node that cannot tell what has ended must not go on as if nothing had.
    """
    return Revocation(
        row.seq,
        _REVOCATION_KINDS.from_wire_untrusted(row.kind, "kind"),
        row.revoked_at,
        session_id=row.session_id,
        key_id=row.key_id,
        org_id=row.org_id,
        user_id=row.user_id,
    )


class HttpKeySource:
    """Fetches control's JWKS."""

    def __init__(self, control_url: str, *, verify: ssl.SSLContext | bool = True) -> None:
        """Fetch from this base URL; ``verify`` judges its certificate (`khala_service.tls.trust`)."""
        self._verify = verify
        self._url = control_url.rstrip("/") + "/.well-known/jwks.json"

    async def fetch_keys(self) -> list[dict[str, object]]:
        """Return the JSON Web Keys; see KeySource."""
        try:
            async with httpx.AsyncClient(
                timeout=ANSWER_TIMEOUT_S, trust_env=False, verify=self._verify
            ) as client:
                response = await client.get(self._url)
                response.raise_for_status()
                if len(response.content) > _KEYS_MAX_BYTES:
                    raise ControlUnavailableError(1.0)
                keys = json.loads(response.content)["keys"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
            raise ControlUnavailableError(1.0) from exc
        if not isinstance(keys, list):
            raise ControlUnavailableError(1.0)
        return keys
