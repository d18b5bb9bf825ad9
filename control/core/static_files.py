"""Files of the live page as values: their headers, their encodings, and the set that belongs together.

The build (tests/ci/web_build.py) makes the files, `adapters/http/static_host.py` reads and serves them.
Invariants:
1. A file below /assets/ has 16 hexadecimal digits of its own SHA-256 in its name, so its bytes never change
   under one URL and may be kept for ever; every other file is asked for again each time.
2. The files are exactly those that the manifest names: pages of one build never load scripts of another.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs

__all__ = [
    "ASSETS",
    "IDENTITY",
    "INDEX",
    "StaticFile",
    "StaticFilesBroken",
    "choose_encoding",
    "make_files",
]

ASSETS: Final = "/assets/"
MANIFEST: Final = "/manifest.json"
INDEX: Final = "/index.html"
# One year, the longest that RFC 9111's predecessors allowed and caches still honour.
IMMUTABLE: Final = "public, max-age=31536000, immutable"
ASK_AGAIN: Final = "no-cache"
HASH_CHARS: Final = 16
_HASHED_NAME: Final = re.compile(rf"/assets/[a-z0-9-]+\.([0-9a-f]{{{HASH_CHARS}}})\.[a-z0-9]+", re.ASCII)
_MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "html": "text/html; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "json": "application/json",
        "svg": "image/svg+xml",
    }
)

Encoding: TypeAlias = str
IDENTITY: Final = "identity"
# Coding as HTTP names it -> end of the file's name; the smaller one first.
COMPRESSED: Final[Mapping[Encoding, str]] = MappingProxyType({"br": ".br", "gzip": ".gz"})


class StaticFilesBroken(Exception):
    """The files are not one build; made again by `python -m tests.ci.web_build`."""


@attrs.frozen
class StaticFile:
    """One file in each of its encodings.

    Attributes:
        path: Of the URL.
        media_type: With its charset.
        cache_control: What a cache may do.
        tag: Strong validator of the plain bytes; the encodings' are made from it.
        bodies: By encoding; the plain bytes are always among them.
    """

    path: str
    media_type: str
    cache_control: str
    tag: str
    bodies: Mapping[Encoding, bytes] = attrs.field(repr=False)

    def tag_of(self, encoding: Encoding) -> str:
        """Return the validator of one encoding: strong ones differ where bytes do."""
        return self.tag if encoding == IDENTITY else f"{self.tag}-{encoding}"


def choose_encoding(file: StaticFile, accepted: Mapping[str, float]) -> Encoding:
    """Return the encoding to send.

    Args:
        file: What is asked for.
        accepted: Quality by coding, from Accept-Encoding; empty if it was not sent.
    """
    for encoding in COMPRESSED:
        if encoding in file.bodies and accepted.get(encoding, accepted.get("*", 0)) > 0:
            return encoding
    # RFC 9110 section 12.5.3 lets a client refuse the plain bytes too; nobody does, and they may be sent.
    return IDENTITY


def make_files(found: Mapping[str, bytes]) -> Mapping[str, StaticFile]:
    """Return the files by path of their URL.

    Args:
        found: Bytes by path, which begins with a slash; compressed ones with their own ending.

    Raises:
        StaticFilesBroken: A file is missing, was changed, or belongs to no build or another one.
    """
    plain = {path: body for path, body in found.items() if not path.endswith(tuple(COMPRESSED.values()))}
    for needed in (INDEX, MANIFEST):
        if needed not in plain:
            raise StaticFilesBroken(f"{needed} is missing")
    _check_manifest(plain)
    files = {path: _make_file(path, body, found) for path, body in plain.items()}
    return MappingProxyType(files)


def _make_file(path: str, body: bytes, found: Mapping[str, bytes]) -> StaticFile:
    digest = hashlib.sha256(body).hexdigest()
    if path.startswith(ASSETS):
        named = _HASHED_NAME.fullmatch(path)
        if named is None or named[1] != digest[:HASH_CHARS]:
            raise StaticFilesBroken(f"{path} is not named after its bytes")
    ending = path.rpartition(".")[2]
    if ending not in _MEDIA_TYPES:
        raise StaticFilesBroken(f"{path} has no media type")
    compressed = {
        encoding: found[path + suffix] for encoding, suffix in COMPRESSED.items() if path + suffix in found
    }
    return StaticFile(
        path=path,
        media_type=_MEDIA_TYPES[ending],
        cache_control=IMMUTABLE if path.startswith(ASSETS) else ASK_AGAIN,
        tag=digest[:32],
        bodies=MappingProxyType({IDENTITY: body, **compressed}),
    )


def _check_manifest(plain: Mapping[str, bytes]) -> None:
    try:
        stated = json.loads(plain[MANIFEST])["files"]
        hashes = {str(path): str(facts["sha256"]) for path, facts in stated.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StaticFilesBroken(f"{MANIFEST} does not name the files") from error
    actual = {path: hashlib.sha256(body).hexdigest() for path, body in plain.items() if path != MANIFEST}
    strangers = sorted(path for path in hashes.keys() | actual.keys() if hashes.get(path) != actual.get(path))
    if strangers:
        raise StaticFilesBroken(f"not of the build that {MANIFEST} describes: {', '.join(strangers)}")
