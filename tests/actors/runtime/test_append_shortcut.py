"""The way of a binary append past the framework: what it takes, and what it leaves to the route, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.topics import Lineage
from khala_service.errors import Unavailable
from khala_service.http_bodies import BODY_TIMEOUT_S, PROTOBUF
from khala_service.http_observer import ROUTE_KEY
from runtime.actors.command_path import refused
from runtime.adapters.http.append_shortcut import BODY_MAX_BYTES, FAILED, AppendShortcut, Failed
from runtime.core.limits import RuntimeLimits
from runtime.core.outcomes import Appended, AppendedPart
from tests.actors.runtime.rig import LINEAGE, topic_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

RUN = "run_01m7yrtfz9e59athq89magwsex"
BODY = m.AppendEventsRequest(events=[m.EventInput(kind="thought")]).SerializeToString()
PRINCIPAL = object()


@attrs.define
class Ids:
    """Event ids that nobody looks at."""

    def new(self, prefix: str) -> str:
        """Return one."""
        return f"{prefix}_01m7yrtfz9e59athq89magwsex"


@attrs.define
class Commands:
    """Notes what is appended; refuses what it is told to."""

    authorize_error: Exception | None = None
    append_error: Exception | None = None
    appended: list[tuple[str | None, str, int]] = attrs.field(factory=list)

    async def authorize_append(self, principal: object, run_id: str) -> None:
        """Allow, or raise."""
        assert principal is PRINCIPAL
        await trio.lowlevel.checkpoint()
        if self.authorize_error is not None:
            raise self.authorize_error

    async def append(self, caller: Any, run_id: str, events: Any, *, expected_seq: int | None) -> Appended:
        """Append, or raise."""
        del expected_seq
        self.appended.append((caller.key, run_id, len(events)))
        await trio.lowlevel.checkpoint()
        if self.append_error is not None:
            raise self.append_error
        part = AppendedPart(topic_of(1), Lineage(LINEAGE), 2, ("evt_01m7yrtfz9e59athq89magwsex",), bytes(32))
        return Appended((part,))


@attrs.define
class Resolver:
    """Knows one credential, unless control is away."""

    error: Exception | None = None

    async def resolve(self, credential: str) -> object | None:
        """Return whose it is."""
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return PRINCIPAL if credential == "good" else None


@attrs.define
class Exchange:
    """One request through the shortcut, and what the route behind it saw."""

    commands: Commands = attrs.field(factory=Commands)
    resolver: Resolver = attrs.field(factory=Resolver)
    sent: list[dict[str, Any]] = attrs.field(factory=list)
    route_body: bytes | None = None
    scope: dict[str, Any] = attrs.field(factory=dict)

    async def run(
        self,
        headers: Sequence[tuple[bytes, bytes]],
        *,
        method: str = "POST",
        path: str = f"/v1/runs/{RUN}/events",
        parts: Sequence[bytes] = (BODY,),
        ends: bool = True,
    ) -> None:
        """Send it; the body comes in these parts, and stays without its end unless it ends."""
        self.scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        waiting = [
            {"type": "http.request", "body": part, "more_body": not ends or index + 1 < len(parts)}
            for index, part in enumerate(parts)
        ]

        async def receive() -> dict[str, Any]:
            if not waiting:
                await trio.sleep_forever()
            return waiting.pop(0)

        async def send(event: dict[str, Any]) -> None:
            self.sent.append(event)

        async def route(scope: Any, receive: Any, send: Any) -> None:
            self.scope, self.route_body = scope, b""
            while waiting or not self.route_body:
                with trio.move_on_after(0.01) as given_up:
                    event = await receive()
                if given_up.cancelled_caught:
                    break
                self.route_body += event["body"]

        shortcut = AppendShortcut(
            route,
            resolver=self.resolver,  # type: ignore[arg-type]
            commands=self.commands,  # type: ignore[arg-type]
            limits=RuntimeLimits(),
            ids=Ids(),
        )
        await shortcut(self.scope, receive, send)


def headers_of(**changed: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the headers of a plain append; None leaves one out."""
    plain: dict[str, bytes | None] = {
        "authorization": b"Bearer good",
        "content_type": PROTOBUF.encode(),
        "accept": PROTOBUF.encode(),
        "content_length": b"%d" % len(BODY),
    }
    named = {**plain, **changed}
    return [(name.replace("_", "-").encode(), value) for name, value in named.items() if value is not None]


@pytest.mark.parametrize("accept", [PROTOBUF.encode(), b"*/*", None])
async def test_a_plain_append(accept: bytes | None) -> None:
    """It is appended once under its key and acknowledged as the route does; the route sees nothing."""
    exchange = Exchange()
    await exchange.run(headers_of(accept=accept, idempotency_key=b"k"), parts=(BODY[:3], BODY[3:]))
    assert exchange.commands.appended == [("k", RUN, 1)]
    assert exchange.route_body is None
    start, body = exchange.sent
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(body["body"])
    (ack,) = m.AppendEventsResponse.FromString(body["body"]).acks
    assert (ack.seq, ack.topic, ack.lineage) == (2, topic_of(1), LINEAGE)
    assert exchange.scope[ROUTE_KEY] == "/v1/runs/<run_id>/events"


@pytest.mark.parametrize(
    ("changed", "method", "path"),
    [
        ({}, "GET", f"/v1/runs/{RUN}/events"),
        ({}, "POST", f"/v1/runs/{RUN}/transitions"),
        ({"content_type": b"application/json"}, "POST", f"/v1/runs/{RUN}/events"),
        ({"accept": b"application/json"}, "POST", f"/v1/runs/{RUN}/events"),
        ({"origin": b"https://a.example"}, "POST", f"/v1/runs/{RUN}/events"),
        ({"content_length": None}, "POST", f"/v1/runs/{RUN}/events"),
        ({"transfer_encoding": b"chunked"}, "POST", f"/v1/runs/{RUN}/events"),
        ({"content_length": b"%d" % (BODY_MAX_BYTES + 1)}, "POST", f"/v1/runs/{RUN}/events"),
    ],
)
async def test_what_is_not_plain(changed: dict[str, bytes | None], method: str, path: str) -> None:
    """It goes to the route as it came, and nothing was done about it."""
    exchange = Exchange()
    await exchange.run(headers_of(**changed), method=method, path=path)
    assert exchange.route_body == BODY
    assert (exchange.commands.appended, exchange.sent) == ([], [])


@pytest.mark.parametrize(
    ("changed", "body", "reason"),
    [
        ({"authorization": b"Bearer bad"}, BODY, "unauthenticated"),
        ({"authorization": None}, BODY, "unauthenticated"),
        ({"idempotency_key": b"\x01"}, BODY, "invalid_argument"),
        ({}, b"\xff\xff", "malformed_message"),
        ({}, m.AppendEventsRequest().SerializeToString(), "invalid_argument"),
        (
            {},
            m.AppendEventsRequest(events=[m.EventInput(kind="nothing")]).SerializeToString(),
            "kind_unknown",
        ),
        ({}, BODY + b"\xf2\x3f\x01x", None),
        (
            {},
            m.AppendEventsRequest(events=[m.EventInput(kind="thought")] * 501).SerializeToString(),
            "payload_too_large",
        ),
    ],
)
async def test_what_is_refused_before_the_append(
    changed: dict[str, bytes | None], body: bytes, reason: str | None
) -> None:
    """The route gets the same body again, with the refusal to be worded; fields that we do not know are its own."""
    exchange = Exchange()
    await exchange.run(
        headers_of(**changed, content_length=b"%d" % len(body)), parts=(body,) if body else (b"",)
    )
    assert exchange.route_body == body
    failed = exchange.scope.get(FAILED)
    assert (failed and failed.error.reason.name) == reason
    assert (exchange.commands.appended, exchange.sent) == ([], [])


async def test_no_right_is_refused_before_the_body() -> None:
    """Nothing is read for a run that one may not write."""
    error = refused(reason_codes.NOT_FOUND)
    exchange = Exchange(Commands(authorize_error=error))
    await exchange.run(headers_of(), parts=())
    assert (exchange.route_body, exchange.commands.appended) == (b"", [])
    assert exchange.scope[FAILED] == Failed(error, PRINCIPAL)  # type: ignore[arg-type]


async def test_control_that_is_away_is_asked_once() -> None:
    """The route is told, or the caller would wait twice for an answer that does not come."""
    error = Unavailable("control_unreachable")
    exchange = Exchange(resolver=Resolver(error))
    await exchange.run(headers_of())
    assert exchange.scope[FAILED] == Failed(error, None)


async def test_an_append_that_failed_is_not_repeated() -> None:
    """The route gets the request with the error of its append, which it raises instead of appending again."""
    failed = refused(reason_codes.RUN_FINISHED)
    exchange = Exchange(Commands(append_error=failed))
    await exchange.run(headers_of())
    assert exchange.scope[FAILED] == Failed(failed, PRINCIPAL)  # type: ignore[arg-type]
    assert exchange.route_body == BODY
    assert len(exchange.commands.appended) == 1


async def test_a_body_that_does_not_end(autojump_clock: MockClock) -> None:
    """After the time of a body the route gets what has come, and says so without waiting for it once more."""
    exchange = Exchange()
    await exchange.run(headers_of(), ends=False)
    assert trio.current_time() >= BODY_TIMEOUT_S
    assert exchange.scope[FAILED].error.details == {"body": "not complete in time"}
    assert exchange.route_body == BODY
    assert exchange.commands.appended == []
