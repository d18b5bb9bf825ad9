"""HTTP bodies as protobuf messages: binary or the strict JSON mapping, by Content-Type and Accept.

A route reads a body whole under a limit (`read_body`, `read_bytes`), or piece by piece with
`async for` over `request.body`; `http_connection.py` bounds what waits unread in either case.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import trio
from google.protobuf.message import Message
from quart import Response, g, has_request_context, request

from khala_contracts import codec, reason_codes, strict_json
from khala_service.http_problems import HttpProblem

M = TypeVar("M", bound=Message)

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
# Longer: a client that drips bytes holds a handler. Shorter: 4 MiB over a phone line fail.
BODY_TIMEOUT_S: Final = 30.0


async def read_bytes(*, max_bytes: int | None = None, limit_name: str = "") -> bytes:
    """Return the whole body of the current request.

    Args:
        max_bytes: Limit of this route; None: the application's.
        limit_name: Its name in the configuration, if it has one.

    Raises:
        HttpProblem: payload_too_large above the limit; malformed_message if the body is not
            complete after BODY_TIMEOUT_S.
    """
    limit = max_bytes if max_bytes is not None else int(g.body_max_bytes)
    announced = request.content_length
    if announced is not None and announced > limit:
        raise _too_large(limit, limit_name)
    content = bytearray()
    with trio.move_on_after(BODY_TIMEOUT_S) as scope:
        async for piece in request.body:
            content += piece
            if len(content) > limit:
                raise _too_large(limit, limit_name)
    if scope.cancelled_caught:
        raise body_too_slow()
    return bytes(content)


async def read_body(message_cls: type[M], *, max_bytes: int | None = None, limit_name: str = "") -> M:
    """Return the body of the current request as a message.

    An absent body without Content-Type is the empty message.

    Raises:
        HttpProblem: unsupported_media_type; as `read_bytes`.
        WireError: malformed_message with the path, for anything but exactly one such message.
    """
    media_type = request.mimetype
    if media_type not in {PROTOBUF, JSON} and (media_type or request.content_length):
        raise HttpProblem(reason_codes.UNSUPPORTED_MEDIA_TYPE, {"supported": f"{PROTOBUF}, {JSON}"})
    content = await read_bytes(max_bytes=max_bytes, limit_name=limit_name)
    if media_type == JSON:
        return strict_json.parse_strict(content, message_cls)
    if not media_type and content:
        raise HttpProblem(reason_codes.UNSUPPORTED_MEDIA_TYPE, {"supported": f"{PROTOBUF}, {JSON}"})
    message = codec.decode_message_untrusted(message_cls, content)
    g.unknown_fields = count_unknown(message)
    return message


def count_unknown(message: Message) -> int:
    """Return how many fields of a body this build does not know; quickly, if there are none."""
    # Walking a batch of events costs milliseconds, copying it in C microseconds: walk only if the
    # copy without unknown fields is smaller.
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    if known.ByteSize() == message.ByteSize():
        return 0
    return codec.count_unknown_fields(message)


def respond(message: Message, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response that carries `message` in the form the client asked for."""
    if wants_protobuf():
        content: bytes | str = codec.encode_message(message)
        media_type = PROTOBUF
    else:
        content = strict_json.print_json(message)
        media_type = JSON
    response = Response(content, status=status, content_type=media_type)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def wants_protobuf() -> bool:
    """Return whether the answer is binary: as Accept says, else as the request's own body was."""
    if not has_request_context():
        return False
    accepted = request.accept_mimetypes
    default = PROTOBUF if request.mimetype == PROTOBUF else JSON
    if not accepted:
        return default == PROTOBUF
    binary, text = accepted.quality(PROTOBUF), accepted.quality(JSON)
    return default == PROTOBUF if binary == text else binary > text


def body_too_slow() -> HttpProblem:
    """Return the refusal of a body that is not complete after BODY_TIMEOUT_S."""
    return HttpProblem(reason_codes.MALFORMED_MESSAGE, {"body": "not complete in time"})


def _too_large(limit: int, limit_name: str) -> HttpProblem:
    details = {"limit_bytes": str(limit)}
    if limit_name:
        details |= {"limit": limit_name, "max": str(limit)}
    return HttpProblem(reason_codes.PAYLOAD_TOO_LARGE, details)
