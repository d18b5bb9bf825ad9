"""Runs the suite's case classes against one server. Belongs to the environment of the command, not to Khala's.

    python case_client/__main__.py FOLDER PORT RESULT

FOLDER holds the package ``autobahn_cases``: the suite's ``case`` folder converted to Python 3. The classes
treat payloads as text in which a character is a byte, as Python 2 did; this client translates.
"""

from __future__ import annotations

import binascii
import json
import sys
from pathlib import Path
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from autobahn.websocket import utf8validator
from twisted.internet import reactor

CASE_LIMIT_S = 120


def as_bytes(data: str | bytes) -> bytes:
    """Return what a case calls its payload."""
    return data.encode("latin-1") if isinstance(data, str) else data


def as_text(data: bytes) -> str:
    """Return bytes as cases compare them."""
    return bytes(data).decode("latin-1")


class TextValidator(utf8validator.Utf8Validator):  # type: ignore[misc]
    """Takes a case's kind of text."""

    def validate(self, data: str | bytes) -> Any:
        """Judge the next part."""
        return super().validate(as_bytes(data))


def hexadecimal(data: str | bytes) -> str | bytes:
    """Return a case's payload for its description, and what others ask for as they expect it."""
    digits = binascii.hexlify(as_bytes(data))
    return digits.decode() if isinstance(data, str) else digits


utf8validator.Utf8Validator = TextValidator
binascii.b2a_hex = hexadecimal  # type: ignore[assignment]


class CaseProtocol(WebSocketClientProtocol):  # type: ignore[misc]
    """One connection of one case."""

    connectionWasOpen = False
    createWirelog = False

    def __init__(self, case_class: type) -> None:
        super().__init__()
        self.case_class = case_class
        self.txFrameStats: dict[int, int] = {}
        self.rxFrameStats: dict[int, int] = {}

    # -- what cases call ---------------------------------------------------------------------------

    def enableWirelog(self, enable: bool) -> None:
        """Nothing is kept."""

    def sendFrame(
        self,
        opcode: int,
        fin: bool = True,
        rsv: int = 0,
        mask: Any = None,
        payload: Any = b"",
        payload_len: Any = None,
        chopsize: Any = None,
        sync: bool = False,
    ) -> None:
        """Send a frame; 10.1.1 counts them."""
        self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1
        super().sendFrame(
            opcode=opcode, fin=fin, rsv=rsv, mask=mask, payload=as_bytes(payload), payload_len=payload_len,
            chopsize=chopsize, sync=sync,
        )  # fmt: skip

    def sendMessage(
        self,
        payload: Any,
        isBinary: bool = False,
        fragmentSize: Any = None,
        sync: bool = False,
        doNotCompress: bool = False,
    ) -> None:
        """Send a message."""
        super().sendMessage(as_bytes(payload), isBinary, fragmentSize, sync, doNotCompress)

    def sendMessageFrameData(self, payload: Any, sync: bool = False) -> Any:
        """Send a part of a frame."""
        return super().sendMessageFrameData(as_bytes(payload), sync)

    def sendCloseFrame(self, code: Any = None, reasonUtf8: Any = None, isReply: bool = False) -> None:
        """Send a close, perhaps a bad one."""
        super().sendCloseFrame(code, None if reasonUtf8 is None else as_bytes(reasonUtf8), isReply)

    def continueLater(self, delay: float, fun: Any, tag: Any = None) -> None:
        """Go on with a case."""
        reactor.callLater(delay, lambda: self.state != self.STATE_CLOSED and fun())

    def killAfter(self, delay: float) -> None:
        """Drop the connection later."""
        reactor.callLater(delay, lambda: self.state != self.STATE_CLOSED and self.dropConnection(abort=False))

    def closeAfter(self, delay: float) -> None:
        """Close later."""
        reactor.callLater(delay, lambda: self.state != self.STATE_CLOSED and self.sendClose())

    # -- what the library calls --------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Begin a case."""
        self.run_case = self.case_class(self)
        super().connectionMade()
        # A case that the server answers with nothing has failed, and the others go on.
        reactor.callLater(
            CASE_LIMIT_S, lambda: self.state != self.STATE_CLOSED and self.dropConnection(abort=True)
        )

    def onOpen(self) -> None:
        """Let the case speak."""
        self.connectionWasOpen = True
        self.run_case.onOpen()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Give the case a message."""
        self.run_case.onMessage(as_text(payload), isBinary)

    def onPing(self, payload: bytes) -> None:
        """Give the case a ping."""
        self.run_case.onPing(as_text(payload))

    def onPong(self, payload: bytes) -> None:
        """Give the case a pong."""
        self.run_case.onPong(as_text(payload))

    def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:
        """Give the case the end."""
        self.run_case.onClose(wasClean, code, reason)

    def connectionLost(self, reason: Any) -> None:
        """Judge the case and begin the next."""
        super().connectionLost(reason)
        if self.connectionWasOpen:
            self.run_case.onConnectionLost(getattr(self, "failedByMe", False))
        self.factory.judged(self)


class CaseFactory(WebSocketClientFactory):  # type: ignore[misc]
    """Runs case after case."""

    def __init__(self, url: str, cases: list[type], result: Path) -> None:
        super().__init__(url, protocols=["khala.v1"])
        self.left = list(cases)
        self.result_file = result
        self.results: dict[str, dict[str, str]] = {}
        self.begin()

    def begin(self) -> None:
        """Connect for the next case, or write what came of them."""
        if self.left:
            self.current = self.left.pop(0)
            self.resetProtocolOptions()
            # The cases say bad things on purpose.
            self.setProtocolOptions(
                applyMask=True, failByDrop=False, openHandshakeTimeout=10, closeHandshakeTimeout=10
            )
            connectWS(self)
        else:
            self.result_file.write_text(json.dumps(self.results))
            reactor.stop()

    def buildProtocol(self, addr: Any) -> CaseProtocol:
        """Make the connection of the current case."""
        protocol = CaseProtocol(self.current)
        protocol.factory = self
        return protocol

    def judged(self, protocol: CaseProtocol) -> None:
        """Note how the case ended."""
        case = protocol.run_case
        name = ".".join(self.current.__name__[len("Case") :].split("_"))
        self.results[name] = {
            "behavior": case.behavior,
            "close": case.behaviorClose,
            "result": case.result,
            "close_result": case.resultClose,
        }
        reactor.callLater(0, self.begin)

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        """The server is gone."""
        self.results["server"] = {
            "behavior": "FAILED",
            "close": "FAILED",
            "result": str(reason.value),
            "close_result": "",
        }
        self.left.clear()
        self.begin()


def main() -> None:
    """Run every case there is."""
    folder, port, result = sys.argv[1:4]
    sys.path.insert(0, folder)
    from autobahn_cases import Case, Cases

    # Pickles of equal values differ when one holds the same object twice.
    Case.compare = lambda _self, one, other: one == other
    CaseFactory(f"ws://127.0.0.1:{port}/sync/v1/ws", Cases, Path(result))
    reactor.run()


if __name__ == "__main__":
    main()
