"""Keeps credentials out of text: pure functions used by the log pipeline.

Two nets, because either alone has holes: by key (a field that is named like a secret) and by shape
(a value that looks like one of ours, wherever it stands, tracebacks included).
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

REDACTED: Final = "***"
# Deeper structures are not logged by anybody on purpose; the bound ends cycles.
_DEPTH_MAX: Final = 8

_SECRET_WORDS: Final = frozenset(
    {
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "dsn",
        "password",
        "passwd",
        "pwd",
        "secret",
        "secrets",
        "ticket",
        "token",
        "tokens",
    }
)
# `token_expires_at`, `secret_file`, `token_id` say something about a secret and are none.
_HARMLESS_ENDINGS: Final = ("_at", "_count", "_file", "_id", "_kind", "_ms", "_s")

_SECRET_SHAPES: Final = (
    # Service keys and service credentials, refresh tokens and tickets of ours.
    re.compile(r"\bkh[a-z]_[A-Za-z0-9_\-]{8,}"),
    # JSON web tokens.
    re.compile(r"\beyJ[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?"),
    re.compile(r"(?i)\bbearer\s+[A-Za-z0-9._~+/=\-]+"),
    # The password part of an address.
    re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"),
    # Credentials in a query string.
    re.compile(
        r"(?i)(?<=[?&])(?:access_token|refresh_token|token|ticket|key|secret|password|code)=[^&\s\"']+"
    ),
)
# What each of the shapes above has in it: most text has nothing of it, and one look instead of five is half of a line's
# cost. A new shape is added here as well.
_MAY_BE_SECRET: Final = re.compile(r"kh[a-z]_|eyJ|(?i:bearer)|://|[?&]")
# Names of fields are written in our code; others, of somebody's mapping, are few.
_NAMES_REMEMBERED: Final = 1_024


def is_secret_key(key: str) -> bool:
    """Return whether a field of this name holds a credential."""
    name = key.lower().replace("-", "_")
    if name.endswith(_HARMLESS_ENDINGS):
        return False
    return not _SECRET_WORDS.isdisjoint(name.split("_")) or name in {"api_key", "private_key"}


def redact_text(text: str) -> str:
    """Return `text` with everything that has the shape of a credential replaced."""
    if _MAY_BE_SECRET.search(text) is None:
        return text
    for shape in _SECRET_SHAPES:
        text = shape.sub(REDACTED, text)
    return text


@lru_cache(maxsize=_NAMES_REMEMBERED)
def _judge_name(name: str) -> tuple[str, bool]:
    """Return the name as it may be shown, and whether it is that of a secret."""
    return redact_text(name), is_secret_key(name)


def redact_value(value: object, *, depth: int = 0) -> object:
    """Return a copy of `value` for a log line: mappings and sequences are walked, bytes dropped."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= _DEPTH_MAX:
        return "..."
    if isinstance(value, Mapping):
        return redact_mapping(value, depth=depth + 1)
    if isinstance(value, Sequence | set | frozenset):
        return [redact_value(item, depth=depth + 1) for item in value]
    return redact_text(str(value))


def redact_mapping(fields: Mapping[object, object], *, depth: int = 0) -> dict[str, object]:
    """Return the fields with secret ones replaced; numbers stay, for they are lengths and times."""
    redacted: dict[str, object] = {}
    for key, value in fields.items():
        name = str(key)
        shown, is_secret = _judge_name(name)
        is_number = value is None or isinstance(value, bool | int | float)
        if is_secret and not is_number:
            redacted[name] = REDACTED
        else:
            redacted[shown] = redact_value(value, depth=depth)
    return redacted
