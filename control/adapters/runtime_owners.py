"""Asks the runtime who owns runs and workers. Implements `ports.RuntimeOwners`.

One request per mint, no cache: a run that changed hands a second ago is decided by its new owner. The
retry belongs to the caller of the mint, who is told when.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import trio

from control.core.rights import TopicOwner
from khala_contracts import http_messages as m
from khala_contracts.topics import TopicName
from khala_service.adapters.http_client import ServiceHttpClient
from khala_service.errors import PeerRefused, Unavailable

OWNERS_PATH: Final = "/internal/v1/topics/owners"
# The runtime answers from one indexed read. Longer: a stalled runtime holds mints, and their clients'
# connection attempts, in the air.
TIMEOUT_S: Final = 2.0


class HttpRuntimeOwners:
    """The runtime's internal route, by its client."""

    def __init__(self, client: ServiceHttpClient) -> None:
        self._client = client

    async def owners_of(self, topics: Sequence[TopicName]) -> Mapping[TopicName, TopicOwner]:
        """Return the owners of the topics that exist; see the port."""
        request = m.TopicOwnersRequest(topics=topics)
        answer: m.TopicOwnersResponse | None = None
        with trio.move_on_after(TIMEOUT_S):
            try:
                answer = await self._client.post(OWNERS_PATH, request, m.TopicOwnersResponse)
            except PeerRefused as error:
                # Our request was wrong, or our credential is: neither says anything about the topics.
                raise Unavailable("runtime_refused") from error
            except Unavailable as error:
                # A read: whatever the client does not know about its outcome does not matter.
                raise Unavailable(error.reason, error.retry_after_s) from error
        if answer is None:
            raise Unavailable("runtime_timeout")
        asked = set(topics)
        return {
            TopicName(owner.topic): TopicOwner(
                owner_user_id=owner.owner_user_id or None, org_id=owner.org_id or None
            )
            for owner in answer.owners
            if owner.known and owner.topic in asked
        }
