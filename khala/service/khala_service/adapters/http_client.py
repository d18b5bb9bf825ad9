"""How one service calls another: protobuf bodies, one attempt, every ending translated.

No retry here: the operation above owns it. The caller's request id goes along, so that one command
can be followed through all services.
"""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final, TypeVar, cast

import httpx
from google.protobuf.message import Message

from khala_contracts import codec
from khala_contracts import http_messages as m
from khala_contracts.errors import WireError
from khala_service.errors import DEFAULT_RETRY_AFTER_S, PeerRefused, Unavailable
from khala_service.http_bodies import PROTOBUF
from khala_service.request_context import REQUEST_ID_HEADER, current_request_id
from khala_service.secret import Secret

M = TypeVar("M", bound=Message)

DEFAULT_TIMEOUT_S: Final = 5.0
# Internal answers are lists of ids and rights. Larger: not our peer.
ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024
CONNECTIONS_MAX: Final = 32
HEALTH_ROUTE: Final = "/healthz"
# Ended before the peer can have read the request.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_TRY_LATER: Final = frozenset({429, 502, 503, 504})


class ServiceHttpClient:
    """Calls one peer. Made by `open_service_client`; safe for concurrent use."""

    def __init__(self, raw: httpx.AsyncClient, *, peer: str) -> None:
        self._raw = raw
        self._peer = peer

    async def post(
        self,
        path: str,
        message: Message,
        answer_cls: type[M],
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> M:
        """Send a message and return the peer's answer.

        Args:
            path: Absolute path at the peer; ids in it are the caller's to escape.
            message: The body.
            answer_cls: What the peer answers with.
            headers: Sent besides the usual ones, for example Idempotency-Key.
            timeout_s: For each of connecting, sending and waiting; None: the client's default.

        Raises:
            Unavailable: no usable answer, or the peer said to retry; ``outcome_unknown`` unless the
                request certainly was not acted upon.
            PeerRefused: the peer answered with a refusal; carries its reason code.
        Cancellation: closes the connection; whether the peer acted is unknown.
        """
        content = codec.encode_message(message)
        return await self._send("POST", path, answer_cls, content, headers, timeout_s)

    async def get(
        self,
        path: str,
        answer_cls: type[M],
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> M:
        """Return the peer's answer to a read. Raises: as `post`."""
        return await self._send("GET", path, answer_cls, None, headers, timeout_s)

    async def ping(self) -> None:
        """Return if the peer is alive; whether it is ready is its own business.

        Raises:
            Unavailable: it does not answer.
        """
        try:
            response = await self._raw.get(HEALTH_ROUTE)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._peer}_unreachable") from error
        if response.status_code != 200:
            raise Unavailable(f"{self._peer}_unhealthy")

    async def _send(
        self,
        method: str,
        path: str,
        answer_cls: type[M],
        content: bytes | None,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
    ) -> M:
        sent_headers = {"Accept": PROTOBUF, **(headers or {})}
        if content is not None:
            sent_headers["Content-Type"] = PROTOBUF
        if request_id := current_request_id():
            sent_headers[REQUEST_ID_HEADER] = request_id
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else httpx.Timeout(timeout_s)
        try:
            async with self._raw.stream(
                method, path, content=content, headers=sent_headers, timeout=timeout
            ) as response:
                status = response.status_code
                body = await self._read(response)
        except _NOT_SENT as error:
            raise Unavailable(f"{self._peer}_unreachable") from error
        except httpx.TimeoutException as error:
            raise Unavailable(f"{self._peer}_timeout", outcome_unknown=True) from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._peer}_connection_lost", outcome_unknown=True) from error
        if status != 200 and status != 201:
            raise self._refusal(status, body)
        try:
            return codec.decode_message_untrusted(answer_cls, body)
        except WireError as error:
            raise self._unusable() from error

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        # Leaving the loop early must end httpx's generator here, not whenever it is collected.
        generator = cast("AsyncGenerator[bytes, None]", response.aiter_bytes())
        async with aclosing(generator) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > ANSWER_MAX_BYTES:
                    raise self._unusable()
        return bytes(body)

    def _unusable(self) -> Unavailable:
        return Unavailable(f"{self._peer}_answer_unusable", outcome_unknown=True)

    def _refusal(self, status: int, body: bytes) -> Exception:
        try:
            error = codec.decode_message_untrusted(m.Error, body)
        except WireError:
            error = m.Error()
        if status in _TRY_LATER:
            retry_after_s = error.retry_after_ms / 1000 or DEFAULT_RETRY_AFTER_S
            # Without an Error body it was a proxy that answered: it may have passed the request on.
            unknown = not error.code or error.details.get("outcome") == "unknown"
            return Unavailable(
                f"{self._peer}_{error.code or 'unavailable'}", retry_after_s, outcome_unknown=unknown
            )
        if not error.code:
            return self._unusable()
        return PeerRefused(self._peer, error.code, status, dict(error.details))


@asynccontextmanager
async def open_service_client(
    base_url: str,
    *,
    peer: str,
    credential: Secret | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    verify: ssl.SSLContext | bool = True,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[ServiceHttpClient]:
    """Yield a client of the service at `base_url`; its connections close with the block.

    Args:
        base_url: Scheme, host and port.
        peer: Name of the service, first word of the reasons of `Unavailable`.
        credential: Sent as bearer with every request; redirects are never followed with it.
        timeout_s: For each of connecting, sending and waiting, seconds.
        verify: Judges the certificate of an https peer (`khala_service.tls.trust`).
        transport: Replaces the network in tests.
    """
    headers = {} if credential is None else {"Authorization": f"Bearer {credential.reveal()}"}
    async with httpx.AsyncClient(
        base_url=base_url,
        headers=headers,
        timeout=timeout_s,
        limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
        follow_redirects=False,
        # Service calls never go through a proxy that the environment happens to name.
        trust_env=False,
        verify=verify,
        transport=transport,
    ) as raw:
        yield ServiceHttpClient(raw, peer=peer)
