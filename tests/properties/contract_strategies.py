"""Hypothesis strategies for the values of the contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from khala_contracts import codec, kinds, topics
from khala_contracts.fanout_records import FanoutRecord
from khala_contracts.frames import KIND_MAX_BYTES, SCHEMA_VERSION_MAX, SEQ_MAX, Frame
from khala_contracts.ids import format_id

if TYPE_CHECKING:
    from khala_contracts.topics import TopicName

seqs = st.one_of(
    st.integers(1, SEQ_MAX),
    st.sampled_from([1, 127, 128, 2**53, 2**53 + 1, SEQ_MAX - 1, SEQ_MAX]),
    st.integers(1, 300),
)
chain_values = st.binary(min_size=32, max_size=32)
uuids = st.binary(min_size=16, max_size=16)
device_ids = st.from_regex(r"dev_[0-9a-z]{8,64}", fullmatch=True)
app_names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


def ids_of(prefix: str) -> st.SearchStrategy[str]:
    """Ids with a prefix."""
    return uuids.map(lambda value: format_id(prefix, value))


topic_names: st.SearchStrategy[TopicName] = st.one_of(
    ids_of("run").map(topics.format_run_events),
    ids_of("wrk").map(topics.format_worker_events),
    ids_of("usr").map(topics.format_user_runs),
    ids_of("usr").map(topics.format_user_codex),
    ids_of("usr").map(topics.format_notifications),
    ids_of("org").map(topics.format_org_runs),
    ids_of("org").map(topics.format_org_workers),
    ids_of("org").map(topics.format_org_ops),
    device_ids.map(topics.format_device_inbox),
    st.builds(topics.format_app, ids_of("org"), app_names),
)
kind_names = st.one_of(
    st.sampled_from(kinds.kinds_of("run_events")),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=KIND_MAX_BYTES // 4),
)
frames = st.builds(
    Frame,
    topic_names,
    seqs,
    kind_names,
    st.one_of(st.just(b""), st.binary(max_size=300)),
    st.one_of(st.integers(1, 3), st.integers(1, SCHEMA_VERSION_MAX)),
)


@st.composite
def histories(draw: st.DrawFn, *, max_frames: int = 12) -> list[Frame]:
    """Consecutive frames of one topic."""
    topic = draw(topic_names)
    first = draw(st.one_of(st.just(1), st.integers(1, SEQ_MAX - max_frames)))
    bodies = draw(
        st.lists(
            st.tuples(kind_names, st.binary(max_size=60), st.integers(1, 9)), min_size=1, max_size=max_frames
        )
    )
    return [
        Frame(topic, first + n, kind, payload, version) for n, (kind, payload, version) in enumerate(bodies)
    ]


@st.composite
def fanout_records(draw: st.DrawFn) -> FanoutRecord:
    """Copies and pure hints."""
    entries = tuple(draw(st.lists(st.binary(max_size=40), max_size=5)))
    first = draw(st.integers(1, SEQ_MAX - 10))
    length = len(entries) or draw(st.integers(1, 10))
    return FanoutRecord(
        topic=draw(topic_names),
        lineage=draw(ids_of("lin")),
        first_seq=first,
        last_seq=first + length - 1,
        chain_before=draw(chain_values),
        chain_after=draw(chain_values),
        entries=entries,
        committed_at_us=draw(st.integers(0, SEQ_MAX)),
    )


_texts = st.text(st.characters(codec="utf-8"), max_size=40)
_ranges = st.tuples(st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1)).map(
    lambda pair: codec.VersionRange(*sorted(pair))
)
_starts: st.SearchStrategy[codec.CursorStart | codec.FromStart] = st.one_of(
    st.just(codec.CursorStart(0)),
    st.builds(codec.CursorStart, seqs, ids_of("lin"), st.one_of(st.just(b""), chain_values)),
    st.builds(codec.FromStart, st.sampled_from(codec.SubscribeFrom)),
)
client_messages: st.SearchStrategy[codec.ClientMessage] = st.one_of(
    st.builds(
        codec.Hello,
        st.text(st.characters(codec="ascii"), min_size=1, max_size=60),
        st.none(),
        device_ids,
        st.text(st.characters(codec="ascii"), min_size=1, max_size=128),
        _ranges,
        _ranges,
    ),
    st.builds(codec.Subscribe, st.lists(st.builds(codec.TopicStart, _texts, _starts), max_size=5).map(tuple)),
    st.builds(codec.Unsubscribe, st.lists(_texts, max_size=5).map(tuple)),
    st.builds(codec.Renew, st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)),
    st.just(codec.ClientHeartbeat()),
)
