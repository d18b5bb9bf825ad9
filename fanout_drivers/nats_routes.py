"""Which node's end follows which subject, and what each is told. No I/O.

Invariants:
1. A subject has a route iff somebody follows it, or it is the one of revocations and there is an end at all.
2. A message counts only if its subject is the one that was subscribed, and decodes to that topic, or is
   the one of revocations, of which nobody reads more than that it came. All others are counted as rejected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from fanout_drivers.base import RecordCopy
from fanout_drivers.subjects import decode_subject, revocations_subject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanout_drivers.base import DriverCounters
    from fanout_drivers.delivery_queue import DeliveryQueue

__all__ = ["NatsRoutes"]


@attrs.define(eq=False)
class NatsRoutes:
    """The table of one driver."""

    prefix: str
    counters: DriverCounters
    _queues: list[DeliveryQueue] = attrs.field(factory=list, init=False)
    # Invariant: no empty sets.
    _followers: dict[str, set[DeliveryQueue]] = attrs.field(factory=dict, init=False)

    def __contains__(self, subject: str) -> bool:
        """Whether somebody follows this subject."""
        return subject in self._followers

    @property
    def subjects(self) -> set[str]:
        """Every subject that somebody follows."""
        return set(self._followers)

    def open(self, queue: DeliveryQueue) -> str:
        """Take an end in; return the subject that it follows from now on, the one of revocations."""
        self._queues.append(queue)
        subject = revocations_subject(self.prefix)
        self.begin(queue, subject)
        return subject

    def close(self, queue: DeliveryQueue) -> list[str]:
        """Forget an end; return the subjects that nobody follows any more."""
        self._queues.remove(queue)
        return [subject for subject in list(self._followers) if self.end(queue, subject)]

    def begin(self, queue: DeliveryQueue, subject: str) -> None:
        """Route a subject to an end."""
        self._followers.setdefault(subject, set()).add(queue)

    def end(self, queue: DeliveryQueue, subject: str) -> bool:
        """End a route, if there is one; return whether nobody follows the subject any more."""
        followers = self._followers.get(subject)
        if followers is None:
            return False
        followers.discard(queue)
        if followers:
            return False
        del self._followers[subject]
        return True

    def take_message(self, subscribed: str, subject: str, data: bytes) -> None:
        """Give a message to whoever follows the subject that it was subscribed by."""
        try:
            if subject != subscribed:
                raise ValueError("a message of another subject")
            if subject == revocations_subject(self.prefix):
                self._hint(subject)
                return
            topic = decode_subject(self.prefix, subject)
        except ValueError:
            self.counters.rejected += 1
            return
        copy = RecordCopy(topic, data)
        for queue in self._followers.get(subscribed, ()):
            queue.offer_nowait(copy)

    def announce(self, subjects: Iterable[str]) -> None:
        """Say that messages of these subjects may have been missed."""
        for subject in subjects:
            if subject == revocations_subject(self.prefix):
                self._hint(subject)
                continue
            topic = decode_subject(self.prefix, subject)
            for queue in self._followers.get(subject, ()):
                queue.announce_nowait(topic)

    def announce_everything(self) -> None:
        """Say that anything may have been missed, of topics; revocations have ``announce``."""
        for queue in self._queues:
            queue.announce_nowait()

    def hint_revocations(self) -> None:
        """Say that revocations may have been missed."""
        self._hint(revocations_subject(self.prefix))

    def _hint(self, subject: str) -> None:
        for queue in self._followers.get(subject, ()):
            queue.hint_nowait()
