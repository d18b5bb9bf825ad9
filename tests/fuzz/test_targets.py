"""Each target of targets.py, with noise made by Hypothesis from nothing and from good inputs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_frames import MASK, client_frame
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, framing, request

# Those that run a connection take milliseconds each.
CONNECTIONS = ("framing", "request")


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good input with some bytes changed, left out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 8)))
        how = draw(st.sampled_from(("change", "drop", "double")))
        if how == "drop":
            del data[begin:end]
        elif how == "double":
            data[begin:begin] = data[begin:end]
        else:
            data[begin:end] = draw(st.binary(max_size=8))
    return bytes(data)


frame_sequences = st.lists(
    st.builds(
        client_frame,
        st.sampled_from((0, 0, 1, 1, 2, 2, 9, 10, 8, 3, 11)),
        st.one_of(st.binary(max_size=130), st.text(max_size=40).map(str.encode), st.just(bytes(1_900))),
        is_final=st.booleans(),
        reserved=st.sampled_from((0, 0, 0, 0, 0, 0, 4, 1)),
        mask=st.sampled_from((MASK, MASK, MASK, MASK, bytes(4), None)),
        length=st.one_of(
            st.none(), st.none(), st.none(), st.sampled_from((0, 1, 125, 126, 2_001, 1 << 20, 1 << 63))
        ),
    ),
    max_size=12,
).map(b"".join)


def test_there_is_a_seed_for_each() -> None:
    """Nothing is fuzzed from nothing only, and seeds break no rule by themselves."""
    assert SEEDS.keys() == TARGETS.keys()
    for name, seeds in SEEDS.items():
        for seed in seeds[:3]:
            TARGETS[name](seed)


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in CONNECTIONS])
def test_decoders(name: str) -> None:
    """Any bytes, and good messages that were spoilt: what a target says holds."""

    @settings(max_examples=120)
    @given(st.one_of(st.binary(max_size=400), mutations(SEEDS[name])))
    def hold(data: bytes) -> None:
        TARGETS[name](data)

    hold()


@settings(max_examples=60)
@given(st.one_of(frame_sequences, mutations(SEEDS["framing"]), st.binary(max_size=200)))
def test_framing(data: bytes) -> None:
    """KH-21: frames of all kinds, good and bad, in any order, through both adapters."""
    framing(data)


@settings(max_examples=40)
@given(st.one_of(mutations(SEEDS["request"]), st.binary(max_size=200)))
def test_requests(data: bytes) -> None:
    """KH-21: upgrade requests that were spoilt, and what is none."""
    request(data)
