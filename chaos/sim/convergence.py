"""What must be so once all faults are over: everything answered, everybody at every head that it may read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.sim.client_process import ClientProgram
    from chaos.sim.control_model import ControlModel
    from chaos.sim.journal_model import JournalModel
    from chaos.sim.network import Network
    from chaos.sim.processes import Place
    from chaos.sim.publisher import Producers

__all__ = ["Converging", "what_lags"]


class Converging(Protocol):
    """What is looked at of a world."""

    producers: Producers
    places: dict[str, Place]
    network: Network
    journal: JournalModel
    control: ControlModel
    clients: dict[str, ClientProgram]


def what_lags(world: Converging) -> Iterator[str]:
    """Yield what is not yet where it must end."""
    if world.producers.waiting:
        yield f"{world.producers.waiting} appends have no answer"
    for name, target in world.producers.targets.items():
        if target.topic is None:
            yield f"{name} was not made"
    for name, place in world.places.items():
        if not place.is_up and name != "runtime-2":
            yield f"{name} is not up"
    for connection in world.network.connections.values():
        if connection.transport.gate.is_severed and not connection.stream.gate.is_severed:
            yield f"{connection.stream.gate.place} has not noticed that its node is dead"
    tables = world.journal.tables
    for topic, row in tables.topics.items():
        checkpoint = tables.checkpoints.get(topic)
        if row.topic_class == "run_events" and (checkpoint is None or checkpoint.applied_seq != row.head_seq):
            yield f"the projection of {topic} is behind"
        elif checkpoint is not None and (
            checkpoint.published is None or checkpoint.published.seq != checkpoint.applied_seq
        ):
            yield f"the lists were not told of {topic}"
    for name, client in world.clients.items():
        if client.followed and client.session.is_ended:
            yield f"{name} goes on with a session that has ended"
        for topic, followed in client.followed.items():
            head = tables.topics.get(topic)
            head_seq = 0 if head is None else head.head_seq
            may_read = world.control.may_read(client.user_id, topic)
            cursor = client.kept.load_cursor(topic)
            if not may_read:
                if not followed.is_forbidden:
                    yield f"{name} was not refused {topic}"
            elif not followed.is_live:
                yield f"{name} does not follow {topic}, head {head_seq}"
            elif cursor is None or cursor.seq != head_seq:
                yield f"{name} is at {cursor and cursor.seq} of {topic}, head {head_seq}"
