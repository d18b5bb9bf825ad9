"""Properties of the subject encoding."""

from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from fanout_drivers.subjects import (
    SUBJECT_MAX_BYTES,
    decode_subject,
    decode_token,
    encode_subject,
    encode_token,
)
from khala_contracts.topics import TOPIC_MAX_BYTES, TopicName
from tests.properties.contract_strategies import topic_names

# What NATS gives a meaning, in any place, or forbids.
SAFE = re.compile(r"[\x21-\x7e]+", re.ASCII)
HARMFUL = ".*> \t\r\n\x00\x7f=$é\u2028\u0660"

texts = st.one_of(
    st.text(min_size=1, max_size=TOPIC_MAX_BYTES),
    st.text(st.sampled_from(HARMFUL + "ab:_-"), min_size=1, max_size=20),
).filter(lambda text: _is_encodable(text))


def _is_encodable(text: str) -> bool:
    try:
        return len(text.encode()) <= TOPIC_MAX_BYTES
    except UnicodeEncodeError:
        return False


@given(texts)
def test_nothing_of_meaning_gets_through(text: str) -> None:
    """A token is one token: no dot, wildcard, space, control character or foreign letter; and it comes back."""
    token = encode_token(text)
    assert SAFE.fullmatch(token)
    assert not set(token) & set(".*> $")
    assert decode_token(token) == text


@given(texts, texts)
def test_two_texts_never_share_a_token(one: str, other: str) -> None:
    """Injective: different texts have different tokens."""
    assume(one != other)
    assert encode_token(one) != encode_token(other)


@given(st.text(st.sampled_from("=0123456789ABCDEFabcdefgxyz.:_-"), max_size=30))
def test_one_spelling_for_each_text(token: str) -> None:
    """Whatever decodes is exactly what would be encoded: no alias of a subject exists."""
    try:
        text = decode_token(token)
    except ValueError:
        return
    assert encode_token(text) == token


@given(topic_names)
def test_every_topic_has_its_subject(topic: TopicName) -> None:
    """Subjects of topics come back as the topic, and only for their own prefix."""
    subject = encode_subject("khala", topic)
    assert subject.count(".") == 2
    assert len(subject) <= SUBJECT_MAX_BYTES
    assert decode_subject("khala", subject) == topic
