"""What a connection and a topic ask of other parts of the node; connection.py and topic.py say when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from khala.core.protocol import Command
    from khala.core.subscription import Subscription


# Connection and TopicActor: whoever asks, and names itself.
C_contra = TypeVar("C_contra", contravariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class PageRequests(Protocol[T_contra]):
    """Reads pages for subscriptions, each page once; see actors/replay.py."""

    def request(self, topic: T_contra, subscription: Subscription) -> None:
        """Bring the subscription the page after its position, then wake it."""

    def read_ahead(self, topic: T_contra, subscription: Subscription) -> None:
        """Bring the subscription the page after its page, if that costs nobody else."""


class WindowBudget(Protocol[T_contra]):
    """Bounds the windows of all topics of a node together; see actors/registry.py."""

    def grew(self, topic: T_contra, byte_count: int) -> None:
        """Account for a change of one window, perhaps dropping the oldest frames of others."""

    def needed(self, topic: T_contra) -> None:
        """Say that somebody who is behind sends from the topic's window."""


class CommandRunner(Protocol[C_contra]):
    """Runs what a client asked for; see actors/commands.py."""

    async def run(self, connection: C_contra, command: Command) -> None:
        """Run one command to its answer.

        Raises:
            RemoteProtocolError: The connection must end.
        """
