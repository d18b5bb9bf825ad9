"""The closed registry of topic classes, and the grammar of topic names.

Names are parsed, never matched by prefix, and compare as bytes. A name is ASCII, at most 200 bytes,
and is matched as a whole against one anchored pattern per class; the ids inside have exactly one
spelling (``ids.py``). So no two names mean one topic, and no wildcard, space, control character,
look-alike letter or extra segment is ever a name. Every class has every column; a topic outside
the registry cannot be written.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NewType

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "TOPIC_CLASSES",
    "TOPIC_MAX_BYTES",
    "Lineage",
    "ParsedTopic",
    "Seq",
    "Tier",
    "TopicClass",
    "TopicInvalid",
    "TopicKind",
    "TopicName",
    "format_app",
    "format_device_inbox",
    "format_notifications",
    "format_org_ops",
    "format_org_runs",
    "format_org_workers",
    "format_run_events",
    "format_user_codex",
    "format_user_runs",
    "format_worker_events",
    "is_app_name",
    "markdown_table",
    "parse_topic",
]

TopicName = NewType("TopicName", str)
Seq = NewType("Seq", int)
Lineage = NewType("Lineage", str)

TOPIC_MAX_BYTES: Final = 200
_KIB: Final = 1024
_MIB: Final = 1024 * 1024
_HOUR_S: Final = 3_600
_DAY_S: Final = 24 * _HOUR_S

_UUID: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_APP_NAME: Final = "[a-z0-9][a-z0-9-]{0,62}"
_ID_PATTERNS: Final = {
    "run_id": f"run_{_UUID}",
    "worker_id": f"wrk_{_UUID}",
    "user_id": f"usr_{_UUID}",
    "org_id": f"org_{_UUID}",
    "device_id": "dev_[0-9a-z]{8,64}",
    "name": _APP_NAME,
}
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")


class Tier(Enum):
    """Quality-of-service tier: how long a consumer may be behind before something is done."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


class TopicKind(Enum):
    """A log keeps every event; of a state topic only the latest record per key matters."""

    LOG = "log"
    STATE = "state"


class TopicInvalid(ValueError):
    """The text is not a topic of the registry.

    Attributes:
        detail: Constant text; never quotes the text.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@attrs.frozen
class TopicClass:
    """One row of the registry (SPEC section 2); sizes in bytes, times in seconds.

    Attributes:
        name: Registry name, also the metric label.
        pattern: Form of the name, with ids in braces.
        kind: Log or state.
        tier: Delivery tier.
        payload_max_bytes: Largest payload of one event, inclusive.
        publish_rate_per_s: Sustained events per second and topic at the command API; None for
            topics that only projections write.
        publish_burst_s: Seconds of the rate that may be used at once.
        retention_s: How long the journal keeps an event. The event log is never pruned.
        replay_budget_events: Most events that one replay may bring, inclusive.
        replay_budget_bytes: Most encoded bytes that one replay may bring, inclusive.
        snapshot: What a snapshot holds, ``none`` if there is none.
        state_key: What one record of a state topic is about; None for logs.
        readers: Who may read, for people.
        written_by: Which part of the runtime writes, for people.
    """

    name: str
    pattern: str
    kind: TopicKind
    tier: Tier
    payload_max_bytes: int
    publish_rate_per_s: float | None
    retention_s: int
    replay_budget_events: int
    replay_budget_bytes: int
    snapshot: str
    state_key: str | None
    readers: str
    written_by: str
    publish_burst_s: float = 10.0


@attrs.frozen
class ParsedTopic:
    """A name that was parsed, with its class and the ids in it."""

    name: TopicName
    topic_class: TopicClass
    ids: Mapping[str, str]


_LATEST: Final = "latest per key"
_COMMANDS: Final = "command API"
_PROJECTOR: Final = "projector"

_ROWS: Final = (
    TopicClass(
        name="run_events", pattern="run:{run_id}:events", kind=TopicKind.LOG, tier=Tier.WARM,
        payload_max_bytes=256 * _KIB, publish_rate_per_s=240.0, retention_s=7 * _DAY_S,
        replay_budget_events=20_000, replay_budget_bytes=32 * _MIB,
        snapshot="run state fold, every 1,000 events", state_key=None,
        readers="the run's owner; members of its org by role", written_by=_COMMANDS,
    ),
    TopicClass(
        name="worker_events", pattern="worker:{worker_id}:events", kind=TopicKind.LOG, tier=Tier.HOT,
        payload_max_bytes=128 * _KIB, publish_rate_per_s=240.0, retention_s=_DAY_S,
        replay_budget_events=3_000, replay_budget_bytes=8 * _MIB,
        snapshot="none", state_key=None, readers="the worker's owner", written_by=_COMMANDS,
    ),
    TopicClass(
        name="user_runs", pattern="user:{user_id}:runs", kind=TopicKind.STATE, tier=Tier.WARM,
        payload_max_bytes=64 * _KIB, publish_rate_per_s=None, retention_s=7 * _DAY_S,
        replay_budget_events=20_000, replay_budget_bytes=16 * _MIB,
        snapshot=_LATEST, state_key="run", readers="that user", written_by=_PROJECTOR,
    ),
    TopicClass(
        name="user_codex", pattern="user:{user_id}:codex", kind=TopicKind.STATE, tier=Tier.WARM,
        payload_max_bytes=64 * _KIB, publish_rate_per_s=None, retention_s=7 * _DAY_S,
        replay_budget_events=20_000, replay_budget_bytes=16 * _MIB,
        snapshot=_LATEST, state_key="thread", readers="that user", written_by=_PROJECTOR,
    ),
    TopicClass(
        name="org_runs", pattern="org:{org_id}:runs", kind=TopicKind.STATE, tier=Tier.WARM,
        payload_max_bytes=64 * _KIB, publish_rate_per_s=None, retention_s=7 * _DAY_S,
        replay_budget_events=20_000, replay_budget_bytes=16 * _MIB,
        snapshot=_LATEST, state_key="run", readers="org members", written_by=_PROJECTOR,
    ),
    TopicClass(
        name="org_workers", pattern="org:{org_id}:workers", kind=TopicKind.STATE, tier=Tier.WARM,
        payload_max_bytes=64 * _KIB, publish_rate_per_s=None, retention_s=3 * _DAY_S,
        replay_budget_events=10_000, replay_budget_bytes=8 * _MIB,
        snapshot=_LATEST, state_key="worker", readers="org members", written_by=_PROJECTOR,
    ),
    TopicClass(
        name="org_ops", pattern="org:{org_id}:ops", kind=TopicKind.STATE, tier=Tier.COLD,
        payload_max_bytes=64 * _KIB, publish_rate_per_s=None, retention_s=7 * _DAY_S,
        replay_budget_events=1_000, replay_budget_bytes=_MIB,
        snapshot=_LATEST, state_key="subject", readers="org owners and admins", written_by=_PROJECTOR,
    ),
    TopicClass(
        name="notifications", pattern="user:{user_id}:notifications", kind=TopicKind.LOG, tier=Tier.COLD,
        payload_max_bytes=64 * _KIB, publish_rate_per_s=90.0, retention_s=12 * _HOUR_S,
        replay_budget_events=500, replay_budget_bytes=_MIB,
        snapshot="none", state_key=None, readers="that user", written_by=_COMMANDS,
    ),
    TopicClass(
        name="device_inbox", pattern="device:{device_id}:inbox", kind=TopicKind.LOG, tier=Tier.COLD,
        payload_max_bytes=64 * _KIB, publish_rate_per_s=60.0, retention_s=12 * _HOUR_S,
        replay_budget_events=500, replay_budget_bytes=_MIB,
        snapshot="none", state_key=None, readers="that device only", written_by=_COMMANDS,
    ),
    TopicClass(
        name="app", pattern="app:{org_id}:{name}", kind=TopicKind.LOG, tier=Tier.WARM,
        payload_max_bytes=64 * _KIB, publish_rate_per_s=240.0, retention_s=7 * _DAY_S,
        replay_budget_events=10_000, replay_budget_bytes=16 * _MIB,
        snapshot="none", state_key=None, readers="org members",
        written_by="command API, with the publish right",
    ),
)  # fmt: skip

TOPIC_CLASSES: Final[Mapping[str, TopicClass]] = MappingProxyType({row.name: row for row in _ROWS})


def _compile(pattern: str) -> re.Pattern[str]:
    named = _PLACEHOLDER.sub(lambda match: f"(?P<{match[1]}>{_ID_PATTERNS[match[1]]})", pattern)
    return re.compile(named, re.ASCII)


_GRAMMAR: Final = tuple((row, _compile(row.pattern)) for row in _ROWS)
_IS_APP_NAME: Final = re.compile(_APP_NAME, re.ASCII)


def parse_topic(text: str) -> ParsedTopic:
    """Parse one topic name.

    Raises:
        TopicInvalid: It is no name of any class, or longer than 200 bytes.
    """
    if len(text) > TOPIC_MAX_BYTES:
        raise TopicInvalid(f"a topic has at most {TOPIC_MAX_BYTES} bytes")
    return _parse(text)


# The same topics are named again and again: by a token, by a subscribe, by each of many subscribers, who then
# hold one object. Names that are no topics are not kept; 4,096 of the others are 3 MB at most.
@lru_cache(maxsize=4_096)
def _parse(text: str) -> ParsedTopic:
    for topic_class, pattern in _GRAMMAR:
        if match := pattern.fullmatch(text):
            return ParsedTopic(TopicName(text), topic_class, MappingProxyType(match.groupdict()))
    raise TopicInvalid("not a topic of the registry")


def is_app_name(text: str) -> bool:
    """Return whether the text may be the name in an ``app`` topic."""
    return _IS_APP_NAME.fullmatch(text) is not None


def _format(class_name: str, **ids: str) -> TopicName:
    # Parsing what was made keeps a colon or a wildcard in an id from becoming another topic's name.
    return parse_topic(TOPIC_CLASSES[class_name].pattern.format(**ids)).name


def format_run_events(run_id: str) -> TopicName:
    """Return the topic of a run's events. Raises TopicInvalid for anything but a run id."""
    return _format("run_events", run_id=run_id)


def format_worker_events(worker_id: str) -> TopicName:
    """Return the topic of a worker's events. Raises TopicInvalid for anything but a worker id."""
    return _format("worker_events", worker_id=worker_id)


def format_user_runs(user_id: str) -> TopicName:
    """Return the topic of a user's runs. Raises TopicInvalid for anything but a user id."""
    return _format("user_runs", user_id=user_id)


def format_user_codex(user_id: str) -> TopicName:
    """Return the topic of a user's threads. Raises TopicInvalid for anything but a user id."""
    return _format("user_codex", user_id=user_id)


def format_org_runs(org_id: str) -> TopicName:
    """Return the topic of an org's runs. Raises TopicInvalid for anything but an org id."""
    return _format("org_runs", org_id=org_id)


def format_org_workers(org_id: str) -> TopicName:
    """Return the topic of an org's workers. Raises TopicInvalid for anything but an org id."""
    return _format("org_workers", org_id=org_id)


def format_org_ops(org_id: str) -> TopicName:
    """Return the topic of an org's operations. Raises TopicInvalid for anything but an org id."""
    return _format("org_ops", org_id=org_id)


def format_notifications(user_id: str) -> TopicName:
    """Return the topic of a user's notifications. Raises TopicInvalid for anything but a user id."""
    return _format("notifications", user_id=user_id)


def format_device_inbox(device_id: str) -> TopicName:
    """Return the inbox of a device. Raises TopicInvalid for anything but a device id."""
    return _format("device_inbox", device_id=device_id)


def format_app(org_id: str, name: str) -> TopicName:
    """Return an application's own topic. Raises TopicInvalid for a wrong org id or name."""
    return _format("app", org_id=org_id, name=name)


def _bytes_text(size: int) -> str:
    return f"{size // _MIB} MiB" if size % _MIB == 0 else f"{size // _KIB} KiB"


def _time_text(seconds: int) -> str:
    return f"{seconds // _DAY_S} d" if seconds % _DAY_S == 0 else f"{seconds // _HOUR_S} h"


def markdown_table() -> str:
    """Return the registry as a Markdown table, one class a line."""
    lines = [
        "| class | name | kind | who may read | tier | payload max | events/s | burst | retention "
        "| replay budget | snapshot | written by |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in _ROWS:
        kind = f"state by {row.state_key}" if row.state_key else row.kind.value
        rate = f"{row.publish_rate_per_s:g}" if row.publish_rate_per_s else "-"
        burst = f"{row.publish_rate_per_s * row.publish_burst_s:g}" if row.publish_rate_per_s else "-"
        budget = f"{row.replay_budget_events:,} / {_bytes_text(row.replay_budget_bytes)}"
        lines.append(
            f"| {row.name} | `{row.pattern}` | {kind} | {row.readers} | {row.tier.value} "
            f"| {_bytes_text(row.payload_max_bytes)} | {rate} | {burst} | {_time_text(row.retention_s)} "
            f"| {budget} | {row.snapshot} | {row.written_by} |"
        )
    return "\n".join(lines) + "\n"
