"""The chain equals an independent implementation, and seals everything that is visible."""

import hashlib

import attrs
from hypothesis import given
from hypothesis import strategies as st

from khala_contracts import chain as chains
from khala_contracts.erasure import Erased, encode_erased
from khala_contracts.frames import ERASED_KIND, SEQ_MAX, Frame
from tests.properties.contract_strategies import frames, histories


def independent_chain(history: list[Frame]) -> bytes:
    """SPEC section 2, written with nothing but a running hash and ``int.to_bytes``."""
    running = hashlib.sha256(b"khala.chain.v1" + b"\0" + history[0].topic.encode("utf-8")).digest()
    for frame in history:
        step = hashlib.sha256()
        step.update(running)
        step.update(frame.seq.to_bytes(8, "big"))
        step.update(frame.schema_version.to_bytes(4, "big"))
        kind = frame.kind.encode("utf-8")
        step.update(len(kind).to_bytes(4, "big"))
        step.update(kind)
        step.update(hashlib.sha256(frame.payload).digest())
        running = step.digest()
    return running


def chain_of(history: list[Frame]) -> bytes:
    """Return the last link of a history, by the product."""
    link = chains.chain_start(history[0].topic)
    for frame in history:
        link = chains.chain_after(link, frame)
    return link


@given(histories())
def test_it_equals_an_independent_implementation(history: list[Frame]) -> None:
    """For any consecutive frames."""
    assert chain_of(history) == independent_chain(history)


@given(histories(), st.data())
def test_erasing_any_payloads_changes_no_link(history: list[Frame], data: st.DataObject) -> None:
    """Whatever was erased and why, verification passes."""
    erased = [
        Frame(
            frame.topic,
            frame.seq,
            ERASED_KIND,
            encode_erased(
                Erased(
                    frame.kind,
                    hashlib.sha256(frame.payload).digest(),
                    frame.schema_version,
                    data.draw(st.text(max_size=9)),
                )
            ),
            1,
        )
        if data.draw(st.booleans())
        else frame
        for frame in history
    ]
    assert chain_of(erased) == chain_of(history)


@given(frames, frames)
def test_frames_that_differ_visibly_give_other_links(one: Frame, other: Frame) -> None:
    """seq, schema version, kind and payload all count; where a field ends counts too."""
    start = bytes(32)
    same = attrs.evolve(one, topic=other.topic) == other
    assert (chains.chain_after(start, one) == chains.chain_after(start, other)) == same
    moved = attrs.evolve(one, seq=one.seq % SEQ_MAX + 1)
    assert chains.chain_after(start, moved) != chains.chain_after(start, one)


@given(histories(), st.data())
def test_order_and_completeness_are_sealed(history: list[Frame], data: st.DataObject) -> None:
    """A frame left out, or two exchanged, give another chain."""
    place = data.draw(st.integers(0, len(history) - 1))
    rest = history[:place] + history[place + 1 :]
    if rest:
        assert chain_of(rest) != chain_of(history)
        exchanged = [*rest, history[place]]
        assert (chain_of(exchanged) == chain_of(history)) == (place == len(history) - 1)
