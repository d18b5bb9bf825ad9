"""What a client may send, and what it must be told: the classes of the Autobahn test suite, all but compression.

    1 framing   2 pings and pongs   3 reserved bits   4 opcodes   5 fragments   6 UTF-8   7 closing   9 sizes   10 both

Written from RFC 6455; the numbers are those of the suite's classes, not of its single cases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from tests.client_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ServerFrame,
    client_frame,
    close_payload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

HELLO = "Hello-µ@ßöäüàá-UTF-8!!".encode()
# An ending that the client makes in good order.
GOODBYE = client_frame(CLOSE, close_payload(1000))


@attrs.frozen
class FramingCase:
    """What is sent after the upgrade, and what comes back.

    Attributes:
        name: Class and what it is about.
        sent: In this order, at once or in pieces.
        echoed: Frames of the server, in order.
        code: Of the server's close behind them; None: a close without a code.
    """

    name: str
    sent: bytes
    echoed: tuple[ServerFrame, ...] = ()
    code: int | None = 1000


def _message(opcode: int, payload: bytes) -> ServerFrame:
    return ServerFrame(opcode, payload)


def _fragments(opcode: int, *parts: bytes, between: bytes = b"") -> bytes:
    """Return one message in fragments, with other bytes between them."""
    frames = [
        client_frame(opcode if number == 0 else CONTINUATION, part, is_final=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]
    return between.join(frames)


def _framing() -> Iterator[FramingCase]:
    for opcode, name in ((TEXT, "text"), (BINARY, "binary")):
        for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536):
            payload = (b"*" if opcode == TEXT else b"\xfe") * size
            echo = (_message(opcode, payload),)
            yield FramingCase(f"1 {name} of {size}", client_frame(opcode, payload) + GOODBYE, echo)


def _pings() -> Iterator[FramingCase]:
    for payload in (b"", b"Hello, world!", bytes(range(125))):
        pong = (_message(PONG, payload),)
        yield FramingCase(f"2 ping of {len(payload)}", client_frame(PING, payload) + GOODBYE, pong)
    yield FramingCase("2 ping of 126", client_frame(PING, bytes(126)), code=1002)
    yield FramingCase("2 pong of 126", client_frame(PONG, bytes(126)), code=1002)
    yield FramingCase("2 unasked pong", client_frame(PONG, b"x") + GOODBYE)
    yield FramingCase(
        "2 pong, then ping", client_frame(PONG) + client_frame(PING, b"p") + GOODBYE, (_message(PONG, b"p"),)
    )
    ten = [b"payload-%d" % number for number in range(10)]
    pongs = tuple(_message(PONG, payload) for payload in ten)
    yield FramingCase(
        "2 ten pings", b"".join(client_frame(PING, payload) for payload in ten) + GOODBYE, pongs
    )


def _reserved_bits() -> Iterator[FramingCase]:
    for bits in range(1, 8):
        for opcode in (TEXT, BINARY, PING, CLOSE):
            bad = client_frame(opcode, b"", reserved=bits)
            yield FramingCase(f"3 bits {bits} on {opcode}", bad, code=1002)
        before = client_frame(TEXT, b"before")
        after = client_frame(PING) + client_frame(TEXT, b"after")
        bad = client_frame(TEXT, b"bad", reserved=bits)
        echo = (_message(TEXT, b"before"),)
        yield FramingCase(f"3 bits {bits} between", before + bad + after, echo, 1002)


def _opcodes() -> Iterator[FramingCase]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield FramingCase(f"4 opcode {opcode}", client_frame(opcode), code=1002)
        yield FramingCase(f"4 opcode {opcode} with payload", client_frame(opcode, b"xx"), code=1002)
        sent = client_frame(TEXT, HELLO) + client_frame(opcode, b"xx") + client_frame(PING)
        yield FramingCase(f"4 opcode {opcode} after text", sent, (_message(TEXT, HELLO),), 1002)


def _fragmented() -> Iterator[FramingCase]:
    yield FramingCase("5 ping in fragments", _fragments(PING, b"a", b"b"), code=1002)
    yield FramingCase("5 pong in fragments", _fragments(PONG, b"a", b"b"), code=1002)
    for opcode, name in ((TEXT, "text"), (BINARY, "binary")):
        echo = _message(opcode, b"fragment1fragment2")
        parts = (b"fragment1", b"fragment2")
        yield FramingCase(f"5 {name} in two", _fragments(opcode, *parts) + GOODBYE, (echo,))
        yield FramingCase(
            f"5 {name} in many",
            _fragments(opcode, *(b"%d" % n for n in range(10)), b"") + GOODBYE,
            (_message(opcode, b"0123456789"),),
        )
        sent = _fragments(opcode, *parts, between=client_frame(PING, b"p"))
        yield FramingCase(f"5 {name} around a ping", sent + GOODBYE, (_message(PONG, b"p"), echo))
        sent = _fragments(opcode, b"", b"", b"")
        yield FramingCase(f"5 {name} in empty ones", sent + GOODBYE, (_message(opcode, b""),))
        sent = client_frame(opcode, b"a", is_final=False) + client_frame(TEXT, b"b")
        yield FramingCase(f"5 {name} not continued", sent, code=1002)
        sent = client_frame(opcode, b"a", is_final=False) + GOODBYE
        yield FramingCase(f"5 {name} closed between fragments", sent)
    for is_final in (True, False):
        sent = client_frame(CONTINUATION, b"x", is_final=is_final)
        yield FramingCase(f"5 continuation of nothing, final {is_final}", sent, code=1002)
    sent = _fragments(TEXT, b"a", b"b") + client_frame(CONTINUATION, b"c")
    yield FramingCase("5 continuation after the last", sent, (_message(TEXT, b"ab"),), 1002)


VALID_TEXTS = (
    "κόσμε".encode(),
    b"",
    b"\x00",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
    "日本語 🎉".encode(),
)
INVALID_TEXTS = (
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\x80",
    b"\xbf",
    b"\x80\xbf\x80",
    b"\xc0\xaf",  # longer than it needs to be
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xed\xbf\xbf",
    b"ok\xce",  # ends inside a character
    b"\xe2\x82",
)


def _utf8() -> Iterator[FramingCase]:
    for text in VALID_TEXTS:
        echo = (_message(TEXT, text),)
        yield FramingCase(f"6 valid {text!r}", client_frame(TEXT, text) + GOODBYE, echo)
        middle = len(text) // 2
        sent = _fragments(TEXT, text[:middle], text[middle:])
        yield FramingCase(f"6 valid in two {text!r}", sent + GOODBYE, echo)
        octets = _fragments(TEXT, *(text[n : n + 1] for n in range(len(text))), b"")
        yield FramingCase(f"6 valid in octets {text!r}", octets + GOODBYE, echo)
    for text in INVALID_TEXTS:
        yield FramingCase(f"6 invalid {text!r}", client_frame(TEXT, text), code=1007)
        octets = _fragments(TEXT, *(text[n : n + 1] for n in range(len(text))), b"")
        yield FramingCase(f"6 invalid in octets {text!r}", octets, code=1007)
        yield FramingCase(
            f"6 binary {text!r}", client_frame(BINARY, text) + GOODBYE, (_message(BINARY, text),)
        )


def _closing() -> Iterator[FramingCase]:
    yield FramingCase("7 without a code", client_frame(CLOSE), code=None)
    yield FramingCase("7 of one byte", client_frame(CLOSE, b"\x03"), code=1002)
    for size in (0, 1, 123):
        yield FramingCase(f"7 reason of {size}", client_frame(CLOSE, close_payload(1000, b"*" * size)))
    yield FramingCase("7 reason of 124", client_frame(CLOSE, close_payload(1000, b"*" * 124)), code=1002)
    yield FramingCase(
        "7 reason is no UTF-8", client_frame(CLOSE, close_payload(1000, b"\xed\xa0\x80")), code=1007
    )
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield FramingCase(f"7 code {code}", client_frame(CLOSE, close_payload(code)), code=code)
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield FramingCase(f"7 code {code}", client_frame(CLOSE, close_payload(code)), code=1002)
    for name, after in (("ping", client_frame(PING)), ("text", client_frame(TEXT, b"x")), ("close", GOODBYE)):
        yield FramingCase(f"7 {name} after the close", GOODBYE + after)
    sent = client_frame(TEXT, b"*" * 65_536) + client_frame(TEXT, HELLO) + GOODBYE + client_frame(PING)
    echo = (_message(TEXT, b"*" * 65_536), _message(TEXT, HELLO))
    yield FramingCase("7 behind much", sent, echo)


def _sizes() -> Iterator[FramingCase]:
    for opcode in (TEXT, BINARY):
        whole = b"B" * 65_536
        for size in (1_300, 4_096, 16_384):
            parts = [whole[at : at + size] for at in range(0, len(whole), size)]
            sent = _fragments(opcode, *parts) + GOODBYE
            yield FramingCase(f"9 {opcode} in fragments of {size}", sent, (_message(opcode, whole),))
    for size in (0, 16, 64, 256, 1024):
        sent = client_frame(TEXT, b"*" * size) * 20 + GOODBYE
        yield FramingCase(f"9 twenty of {size}", sent, (_message(TEXT, b"*" * size),) * 20)
    # What the node does not take, which the suite does not ask.
    yield FramingCase("9 too large", client_frame(BINARY, bytes(65_537)), code=1009)
    yield FramingCase("9 announced too large", client_frame(BINARY, length=1 << 40), code=1009)
    yield FramingCase("9 too large in fragments", _fragments(TEXT, b"*" * 65_536, b"*"), code=1009)
    yield FramingCase("9 unmasked", client_frame(TEXT, b"x", mask=None), code=1002)
    yield FramingCase("9 unmasked and too large", client_frame(TEXT, length=70_000, mask=None), code=1002)


CASES = (
    *_framing(), *_pings(), *_reserved_bits(), *_opcodes(), *_fragmented(), *_utf8(), *_closing(), *_sizes(),
)  # fmt: skip
