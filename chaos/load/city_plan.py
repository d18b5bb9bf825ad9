"""What an agent city does, decided before the clock runs: who appends what when, who resumes when. Pure.

Sizes, kinds and pauses are drawn from ``recorded_events.tsv``: of 164 events in five recorded runs of
SWE-agent, as ``khala import`` reads them, the kind, the bytes of the encoded payload and the pause before it.
A request carries ten events in a row. The time between two requests of a run is the sum of ten recorded
pauses, scaled so that all runs together make the wanted number of requests; runs that stream tokens send
evenly, a batch of small ``message.delta`` each. Every draw comes from one seed.
"""

from __future__ import annotations

import itertools
from importlib import resources
from random import Random
from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts import http_messages as m
from khala_contracts.kinds import encode_payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["CityLoad", "CityPlan", "PlannedRequest", "PlannedResume", "make_plan"]

_BODIES: Final = 300
_DELTA_BODIES: Final = 100
_DELTA_BATCHES_PER_S: Final = 1.0
# Of all requests at most so many are token deltas, however few runs there are.
_DELTA_SHARE_MAX: Final = 0.25
_TEXT_FIELDS: Final = {"step.started": "title"}
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz      "


@attrs.frozen
class CityLoad:
    """How large the city is and how busy.

    Attributes:
        runs: Live runs.
        watchers_per_run: Connections that follow each of them.
        requests_per_s: Appends, over all runs.
        events_per_request: Events of one append.
        delta_runs: Of the runs, those that stream tokens.
        resumed_per_min: Share of the watchers that leave and resume within a minute.
        away_s: For how long each of those is away.
        seconds: For which it is measured.
        connects_per_s: At which the watchers come before that.
    """

    runs: int = 2_000
    watchers_per_run: int = 2
    requests_per_s: float = 400.0
    events_per_request: int = 10
    delta_runs: int = 100
    resumed_per_min: float = 0.10
    away_s: float = 1.0
    seconds: float = 60.0
    connects_per_s: float = 150.0

    @property
    def watchers(self) -> int:
        """Connections."""
        return self.runs * self.watchers_per_run

    @property
    def resumes(self) -> int:
        """How often somebody resumes."""
        return round(self.watchers * self.resumed_per_min * self.seconds / 60)

    @property
    def connecting_s(self) -> float:
        """How long the watchers take to come."""
        return self.watchers / self.connects_per_s


@attrs.frozen
class PlannedRequest:
    """One append; ``due_s`` after the start, ``body`` is an index of ``CityPlan.bodies``."""

    due_s: float
    run: int
    body: int


@attrs.frozen
class PlannedResume:
    """A watcher is connected again ``due_s`` after the start."""

    due_s: float
    watcher: int


@attrs.frozen
class CityPlan:
    """All of it. Requests and resumes ascend by time."""

    bodies: Sequence[bytes] = attrs.field(repr=False)
    requests: Sequence[PlannedRequest] = attrs.field(repr=False)
    resumes: Sequence[PlannedResume] = attrs.field(repr=False)


@attrs.frozen
class _RecordedEvent:
    kind: str
    payload_bytes: int
    pause_s: float


def make_plan(load: CityLoad, *, seed: int = 1) -> CityPlan:
    """Return the plan of a city; the same for the same seed."""
    rng = Random(seed)
    recorded = tuple(_read_recorded())
    bodies = [_recorded_body(load, recorded, rng) for _ in range(_BODIES)]
    bodies += [_delta_body(load, rng) for _ in range(_DELTA_BODIES)]
    return CityPlan(bodies, sorted(_requests(load, recorded, rng), key=_due), _resumes(load, rng))


def _due(request: PlannedRequest) -> float:
    return request.due_s


def _read_recorded() -> Iterator[_RecordedEvent]:
    text = (resources.files("chaos.load") / "recorded_events.tsv").read_text(encoding="ascii")
    for line in text.splitlines():
        kind, payload_bytes, pause_s = line.split("\t")
        yield _RecordedEvent(kind, int(payload_bytes), float(pause_s))


def _requests(load: CityLoad, recorded: Sequence[_RecordedEvent], rng: Random) -> Iterator[PlannedRequest]:
    delta_rate = 0.0
    if load.delta_runs:
        delta_rate = min(_DELTA_BATCHES_PER_S, load.requests_per_s * _DELTA_SHARE_MAX / load.delta_runs)
    others = load.runs - load.delta_runs
    other_rate = (load.requests_per_s - delta_rate * load.delta_runs) / others if others else 0.0
    pauses = [event.pause_s for event in recorded]
    mean_s = load.events_per_request * sum(pauses) / len(pauses)
    for run in range(load.runs):
        is_delta = run < load.delta_runs
        rate = delta_rate if is_delta else other_rate
        due_s = rng.random() / rate
        while due_s < load.seconds:
            body = rng.randrange(_BODIES, _BODIES + _DELTA_BODIES) if is_delta else rng.randrange(_BODIES)
            yield PlannedRequest(due_s, run, body)
            pause = 1.0 if is_delta else sum(rng.choices(pauses, k=load.events_per_request)) / mean_s
            due_s += pause / rate


def _resumes(load: CityLoad, rng: Random) -> list[PlannedResume]:
    """Return who resumes when: evenly, each in turn in an order that was drawn."""
    order = list(range(load.watchers))
    rng.shuffle(order)
    watchers = itertools.islice(itertools.cycle(order), load.resumes)
    step_s = load.seconds / max(1, load.resumes)
    return [PlannedResume((index + 0.5) * step_s, watcher) for index, watcher in enumerate(watchers)]


def _recorded_body(load: CityLoad, recorded: Sequence[_RecordedEvent], rng: Random) -> bytes:
    drawn = rng.choices(recorded, k=load.events_per_request)
    return _body([m.EventInput(kind=e.kind, payload_bytes=_payload(e, rng)) for e in drawn])


def _payload(event: _RecordedEvent, rng: Random) -> bytes:
    """Return a payload of this kind, of about the recorded size."""
    field = _TEXT_FIELDS.get(event.kind, "text")
    text_bytes = max(0, event.payload_bytes - 4)
    return encode_payload("run_events", event.kind, {field: "".join(rng.choices(_LETTERS, k=text_bytes))})


def _delta_body(load: CityLoad, rng: Random) -> bytes:
    events = []
    offset = 0
    for _ in range(load.events_per_request):
        text = "".join(rng.choices(_LETTERS, k=rng.randint(2, 9)))
        data = {"message_id": "message-1", "offset": offset, "text": text}
        events.append(
            m.EventInput(
                kind="message.delta", payload_bytes=encode_payload("run_events", "message.delta", data)
            )
        )
        offset += len(text)
    return _body(events)


def _body(events: Sequence[m.EventInput]) -> bytes:
    return m.AppendEventsRequest(events=events).SerializeToString(deterministic=True)
