"""A topic as a NATS subject, and back: ``<prefix>.v1.<token>``. Pure.

The token is the topic with every byte outside ``A-Z a-z 0-9 _ - :`` written as ``=`` and two upper-case
hexadecimal digits of its UTF-8. So no wildcard (``*`` ``>``), dot, space, control character or foreign
letter is ever part of a subject, and two topics never share one. Topic names of today need no escape;
the encoding does not rely on that. It is pinned by golden vectors: runtime and nodes of different
versions meet at these subjects, and another encoding is another version in the second token.

Hints of revocations have ``<prefix>.control.revocations``, which is no version and so the subject of no topic.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from khala_contracts.topics import TOPIC_MAX_BYTES, TopicInvalid, TopicName, parse_topic

__all__ = [
    "ENCODING_VERSION",
    "SUBJECT_MAX_BYTES",
    "decode_subject",
    "encode_subject",
    "encode_token",
    "revocations_subject",
]

ENCODING_VERSION: Final = "v1"
PREFIX_MAX_BYTES: Final = 32
# Far below the 4 KiB that a NATS server takes as one control line.
SUBJECT_MAX_BYTES: Final = PREFIX_MAX_BYTES + len(f".{ENCODING_VERSION}.") + 3 * TOPIC_MAX_BYTES

# Live topics of a busy node; each way costs 20 microseconds and each record goes both.
CACHED_SUBJECTS: Final = 16_384

_PREFIX: Final = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:")
_TOKEN: Final = re.compile(r"(?:[A-Za-z0-9_:-]|=[0-9A-F]{2})+", re.ASCII)
_ESCAPE: Final = re.compile(rb"=([0-9A-F]{2})")


def encode_token(text: str) -> str:
    """Return the token of any text.

    Raises:
        ValueError: The text is empty, longer than ``TOPIC_MAX_BYTES``, or not Unicode.
    """
    data = text.encode()
    if not 1 <= len(data) <= TOPIC_MAX_BYTES:
        raise ValueError(f"a topic has 1..{TOPIC_MAX_BYTES} bytes, not {len(data)}")
    return "".join(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in data)


def decode_token(token: str) -> str:
    """Return the text of a token.

    Raises:
        ValueError: It is not what ``encode_token`` returns for any text.
    """
    if not _TOKEN.fullmatch(token):
        raise ValueError("not a token of a subject")
    text = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), token.encode()).decode()
    if encode_token(text) != token:
        raise ValueError("a token in another spelling than its one")
    return text


@lru_cache(maxsize=CACHED_SUBJECTS)
def encode_subject(prefix: str, topic: TopicName) -> str:
    """Return the subject of a topic.

    Args:
        prefix: First token, ``[a-z0-9-]{1,32}``; tells systems apart that share a broker.
        topic: A name of the registry.

    Raises:
        ValueError: The prefix or the topic is none.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("a prefix has 1..32 of a-z, 0-9 and -")
    return f"{prefix}.{ENCODING_VERSION}.{encode_token(parse_topic(topic).name)}"


def revocations_subject(prefix: str) -> str:
    """Return the subject on which control hints at revocations."""
    return f"{prefix}.control.revocations"


@lru_cache(maxsize=CACHED_SUBJECTS)
def decode_subject(prefix: str, subject: str) -> TopicName:
    """Return the topic of a subject.

    Raises:
        ValueError: It has another prefix or version, or names no topic of the registry.
    """
    head = f"{prefix}.{ENCODING_VERSION}."
    if not subject.startswith(head):
        raise ValueError("a subject of another system")
    try:
        return parse_topic(decode_token(subject.removeprefix(head))).name
    except TopicInvalid as error:
        raise ValueError(error.detail) from error
