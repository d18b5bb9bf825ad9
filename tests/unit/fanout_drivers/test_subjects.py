"""The pinned encoding of topics as subjects: golden vectors, and what never gets through."""

from __future__ import annotations

import pytest

from fanout_drivers.subjects import (
    SUBJECT_MAX_BYTES,
    decode_subject,
    decode_token,
    encode_subject,
    encode_token,
    revocations_subject,
)
from khala_contracts.topics import TOPIC_MAX_BYTES, TopicName

UUID = "01jd0000000000000000000000"
# Changing one of these parts runtimes and nodes of different versions: that is version v2.
GOLDEN = [
    (f"run:run_{UUID}:events", f"khala.v1.run:run_{UUID}:events"),
    (f"worker:wrk_{UUID}:events", f"khala.v1.worker:wrk_{UUID}:events"),
    (f"user:usr_{UUID}:runs", f"khala.v1.user:usr_{UUID}:runs"),
    (f"org:org_{UUID}:ops", f"khala.v1.org:org_{UUID}:ops"),
    ("device:dev_abcdefgh12:inbox", "khala.v1.device:dev_abcdefgh12:inbox"),
    (f"app:org_{UUID}:a-b-9", f"khala.v1.app:org_{UUID}:a-b-9"),
]
GOLDEN_TOKENS = [
    ("a", "a"),
    ("A", "A"),
    ("a.b", "a=2Eb"),
    ("*", "=2A"),
    (">", "=3E"),
    (" ", "=20"),
    ("\r\n", "=0D=0A"),
    ("\x00", "=00"),
    ("=", "=3D"),
    ("=2E", "=3D2E"),
    ("é", "=C3=A9"),
    ("\u0660", "=D9=A0"),
    ("$SYS", "=24SYS"),
]


@pytest.mark.parametrize(("topic", "subject"), GOLDEN)
def test_golden_subjects(topic: str, subject: str) -> None:
    """Every kind of topic has this subject, for ever."""
    assert encode_subject("khala", TopicName(topic)) == subject
    assert decode_subject("khala", subject) == topic


@pytest.mark.parametrize(("text", "token"), GOLDEN_TOKENS)
def test_golden_tokens(text: str, token: str) -> None:
    """What no topic of today contains is escaped, and comes back."""
    assert encode_token(text) == token
    assert decode_token(token) == text


@pytest.mark.parametrize("length", [0, TOPIC_MAX_BYTES + 1])
def test_no_token_for_a_text_of_this_length(length: int) -> None:
    """Empty and over-long texts have none; the bound is in bytes."""
    with pytest.raises(ValueError, match="bytes"):
        encode_token("x" * length)
    with pytest.raises(ValueError, match="bytes"):
        encode_token("é" * (TOPIC_MAX_BYTES // 2 + 1))
    assert len(encode_token("é" * (TOPIC_MAX_BYTES // 2))) == 3 * TOPIC_MAX_BYTES


def test_the_subject_of_revocations_is_no_topic() -> None:
    """Golden; control and nodes of different versions meet there, and no record can arrive on it."""
    assert revocations_subject("khala") == "khala.control.revocations"
    with pytest.raises(ValueError, match="another system"):
        decode_subject("khala", revocations_subject("khala"))


def test_the_longest_subject_is_short_enough() -> None:
    """The bound that is stated holds for the longest prefix and the worst text."""
    assert len("x" * 32 + ".v1.") + len(encode_token("." * TOPIC_MAX_BYTES)) == SUBJECT_MAX_BYTES < 4_096


@pytest.mark.parametrize(
    "token", ["", "a.b", "a b", "*", ">", "=2e", "=61", "=5", "=", "a=", "=ZZ", "=FF", "é", "a\n", "=3A"]
)
def test_only_the_one_spelling_is_decoded(token: str) -> None:
    """Lower-case digits, needless escapes, half escapes and bytes that are no text name nothing."""
    with pytest.raises(ValueError, match=r"."):
        decode_token(token)


@pytest.mark.parametrize("topic", ["", "*", ">", "run:*:events", "khala.v1.x", "run:run_1:events", "a b"])
def test_what_is_no_topic_has_no_subject(topic: str) -> None:
    """A wildcard in the place of an id never becomes a subscription to other people's topics."""
    with pytest.raises(ValueError, match=r"."):
        encode_subject("khala", TopicName(topic))


@pytest.mark.parametrize("prefix", ["", "a.b", "*", ">", "Khala", "a b", "x" * 33, "é", "khala\n"])
def test_what_is_no_prefix_is_refused(prefix: str) -> None:
    """A prefix is one plain token."""
    with pytest.raises(ValueError, match="prefix"):
        encode_subject(prefix, TopicName(GOLDEN[0][0]))


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "khala.v1.",
        "khala.v1.nonsense",
        "other.v1." + GOLDEN[0][0],
        "khala.v2." + GOLDEN[0][0],
        "khalaxv1x" + GOLDEN[0][0],
        GOLDEN[0][1] + ".more",
        GOLDEN[0][1] + "\n",
        "_INBOX.x",
    ],
)
def test_other_subjects_name_no_topic(subject: str) -> None:
    """Another system, another version, further tokens, no topic of the registry."""
    with pytest.raises(ValueError, match=r"."):
        decode_subject("khala", subject)
