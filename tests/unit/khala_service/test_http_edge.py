"""What every route of every service has in common."""

import io
import json
from collections.abc import Iterator, Mapping

import pytest
import trio
from quart import Response
from quart.typing import TestClientProtocol as ClientProtocol
from trio.testing import MockClock

from khala_contracts import codec, ids, reason_codes
from khala_contracts import http_messages as m
from khala_service.errors import Unavailable
from khala_service.http_connection import BODY_BUFFER_BYTES
from khala_service.logs import configure_logging
from khala_service.readiness import ANSWER_LIFETIME_S, Degraded
from tests.unit.khala_service.http_app import Edge, make_edge

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
# Written in two parts: nothing in the tree may name the other live lane.
EVENT_STREAM = "text/" + "event-stream"


@pytest.fixture
def edge() -> Edge:
    """An application of its own per test."""
    return make_edge()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log lines of the test."""
    stream = io.StringIO()
    configure_logging("edge", level="debug", stream=stream, human=False)
    yield stream
    configure_logging("edge")


async def _error(response: Response) -> m.Error:
    """Return the Error body of a JSON answer."""
    document = json.loads(await response.get_data(as_text=False))
    error = m.Error(code=document["code"], request_id=document["request_id"])
    assert document["message"] == reason_codes.REGISTRY[error.code].text
    assert document["docs"] == reason_codes.REGISTRY[error.code].docs
    error.details.update(document["details"])
    error.retry_after_ms = document["retry_after_ms"]
    return error


async def _send(
    client: ClientProtocol, method: str, path: str, headers: Mapping[str, str] | None = None
) -> Response:
    send = client.post if method == "POST" else client.get
    return await send(path, headers=dict(headers or {}))


async def test_json_in_json_out(edge: Edge) -> None:
    """The strict mapping both ways; answers are not cached."""
    response = await edge.app.test_client().post(
        "/v1/echo/dev_12345678", data='{"login":"ann"}', headers={"Content-Type": JSON}
    )
    assert response.status_code == 201
    assert response.headers["Content-Type"] == JSON
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Location"] == "/v1/echo"
    document = json.loads(await response.get_data(as_text=False))
    assert (document["login"], document["device_id"]) == ("ann", "dev_12345678")


async def test_protobuf_in_protobuf_out(edge: Edge) -> None:
    """A client that sends binary gets binary, if it does not say otherwise."""
    content = codec.encode_message(m.DevSignInRequest(login="ann"))
    client = edge.app.test_client()
    response = await client.post("/v1/echo/x", data=content, headers={"Content-Type": PROTOBUF})
    assert response.headers["Content-Type"] == PROTOBUF
    assert m.DevSignInRequest.FromString(await response.get_data(as_text=False)).login == "ann"
    headers = {"Content-Type": PROTOBUF, "Accept": JSON}
    response = await client.post("/v1/echo/x", data=content, headers=headers)
    assert response.headers["Content-Type"] == JSON


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PROTOBUF, PROTOBUF),
        (JSON, JSON),
        ("*/*", JSON),
        (f"{JSON};q=0.5, {PROTOBUF}", PROTOBUF),
        (f"{JSON}, {PROTOBUF};q=0.5", JSON),
        (f"{EVENT_STREAM}, */*;q=0.1", JSON),
    ],
)
async def test_accept_decides(edge: Edge, accept: str, expected: str) -> None:
    """Accept decides; without a preference a reader gets JSON."""
    response = await edge.app.test_client().get("/v1/id", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == expected


@pytest.mark.parametrize("path", ["/v1/id", "/healthz", "/metrics", "/nowhere"])
async def test_an_event_stream_is_refused_on_every_route(edge: Edge, path: str) -> None:
    """ARC-04: nobody who accepts only an event stream gets anything but 406."""
    response = await edge.app.test_client().get(path, headers={"Accept": EVENT_STREAM})
    assert response.status_code == 406
    assert (await _error(response)).code == "not_acceptable"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"login":"a","surplus":1}', "surplus"),
        ('{"login":"a","login":"b"}', "login"),
        ('{"login":null}', "login"),
        ('{"device_id":"a","deviceId":"a"}', "device"),
        ('{"login":"a"} x', ""),
        ("[]", ""),
        ("", ""),
    ],
)
async def test_strict_json(edge: Edge, body: str, field: str) -> None:
    """SPEC 4: unknown, duplicate, null, doubly spelled fields are refused with the path."""
    response = await edge.app.test_client().post("/v1/echo/x", data=body, headers={"Content-Type": JSON})
    assert response.status_code == 400
    error = await _error(response)
    assert error.code == "malformed_message"
    assert field in error.details.get("field", "")


async def test_malformed_protobuf(edge: Edge) -> None:
    """Bytes that are no such message are refused; the refusal is binary as the request was."""
    response = await edge.app.test_client().post(
        "/v1/echo/x", data=b"\x0a\xff", headers={"Content-Type": PROTOBUF}
    )
    assert response.status_code == 400
    error = m.Error.FromString(await response.get_data(as_text=False))
    assert error.code == "malformed_message"
    assert error.reason == reason_codes.MALFORMED_MESSAGE.number


async def test_unknown_binary_fields_are_kept_and_counted(edge: Edge) -> None:
    """SPEC 4: an old server does not lose what a new client says."""
    content = codec.encode_message(m.DevSignInRequest(login="ann")) + b"\xf8\x3f\x07"
    response = await edge.app.test_client().post(
        "/v1/echo/x", data=content, headers={"Content-Type": PROTOBUF}
    )
    assert b"\xf8\x3f\x07" in await response.get_data(as_text=False)
    labels = {"route": "/v1/echo/<name>"}
    assert edge.metrics.sample("khala_http_unknown_fields_total", labels) == 1


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "x"])
async def test_other_media_types(edge: Edge, media_type: str) -> None:
    """415 for a body in another form, and for one that does not say its form."""
    client = edge.app.test_client()
    response = await client.post("/v1/echo/x", data="{}", headers={"Content-Type": media_type})
    assert response.status_code == 415
    assert (await _error(response)).code == "unsupported_media_type"
    response = await client.post("/v1/echo/x", data="{}")
    assert response.status_code == 415


async def test_no_body_is_the_empty_message(edge: Edge) -> None:
    """A command without parameters needs neither body nor Content-Type."""
    response = await edge.app.test_client().post("/v1/echo/x")
    assert response.status_code == 201


@pytest.mark.parametrize(("path", "limit"), [("/v1/echo/x", 1000), ("/v1/small", 10)])
async def test_body_limits(edge: Edge, path: str, limit: int) -> None:
    """SPEC 6: the limit itself passes, one byte more is payload_too_large."""
    client = edge.app.test_client()
    content = b'{"login":""}'
    padded = content + b" " * (limit - len(content)) if limit > len(content) else b" " * limit
    response = await client.post(path, data=padded, headers={"Content-Type": JSON})
    assert response.status_code in {200, 201}
    response = await client.post(path, data=padded + b" ", headers={"Content-Type": JSON})
    assert response.status_code == 413
    error = await _error(response)
    assert error.code == "payload_too_large"
    assert error.details["limit_bytes"] == str(limit)


async def test_body_limit_without_content_length() -> None:
    """A body that does not announce its length is cut off at the limit, not collected."""
    edge = make_edge(body_max_bytes=4 * BODY_BUFFER_BYTES)
    piece = b" " * BODY_BUFFER_BYTES
    for count, status in ((4, 400), (5, 413)):
        headers = {"Content-Type": JSON, "Transfer-Encoding": "chunked"}
        async with edge.app.test_client().request("/v1/echo/x", method="POST", headers=headers) as connection:
            with trio.fail_after(5):
                for _ in range(count):
                    await connection.send(piece)
                await connection.send_complete()
                response = await connection.as_response()
        assert response.status_code == status


async def test_reading_a_body_whole_past_us_is_a_bug_that_says_so(edge: Edge) -> None:
    """Quart's own get_data would wait for ever once the buffer is full."""
    response = await edge.app.test_client().post("/v1/whole", data="x")
    assert response.status_code == 500


@pytest.mark.parametrize("given", ["abc", "A.b_c-9", "x" * 128])
async def test_request_ids_are_taken_over(edge: Edge, given: str) -> None:
    """CT-08: the id that the client chose is answered and is current inside the route."""
    response = await edge.app.test_client().get("/v1/id", headers={"X-Request-Id": given})
    assert response.headers.getlist("X-Request-Id") == [given]
    assert json.loads(await response.get_data(as_text=False))["login"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "é", "a\tb", "a;b"])
async def test_request_ids_are_made(edge: Edge, given: str | None) -> None:
    """CT-08: an absent, malformed or over-long id is replaced, and the replacement returned."""
    headers = {} if given is None else {"X-Request-Id": given}
    response = await edge.app.test_client().get("/v1/id", headers=headers)
    made = response.headers["X-Request-Id"]
    assert ids.is_id("req", made)
    assert json.loads(await response.get_data(as_text=False))["login"] == made


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/echo/x", 405, "method_not_allowed"),
        ("GET", "/v1/fail/problem", 429, "rate_limited"),
        ("GET", "/v1/fail/unauthenticated", 401, "unauthenticated"),
        ("GET", "/v1/fail/unavailable", 503, "unavailable"),
        ("GET", "/v1/fail/contention", 503, "unavailable"),
        ("GET", "/v1/fail/peer", 500, "internal"),
        ("GET", "/v1/fail/bug", 500, "internal"),
        ("GET", "/v1/fail/group", 404, "not_found"),
    ],
)
async def test_every_refusal_is_an_error_body(
    edge: Edge, method: str, path: str, status: int, code: str
) -> None:
    """SPEC 4: also the framework's own refusals and our bugs; in the form that was asked for."""
    client = edge.app.test_client()
    response = await _send(client, method, path)
    assert response.status_code == status
    error = await _error(response)
    assert error.code == code
    assert error.request_id == response.headers["X-Request-Id"]
    response = await _send(client, method, path, headers={"Accept": PROTOBUF})
    assert m.Error.FromString(await response.get_data(as_text=False)).code == code


async def test_refusals_carry_their_facts(edge: Edge) -> None:
    """Details, retry times and the headers that HTTP libraries look at."""
    client = edge.app.test_client()
    response = await client.get("/v1/fail/problem")
    error = await _error(response)
    assert dict(error.details) == {"field": "events"}
    assert error.retry_after_ms == 1_001
    assert response.headers["Retry-After"] == "2"
    response = await client.get("/v1/fail/unavailable")
    error = await _error(response)
    assert dict(error.details) == {"outcome": "unknown"}
    assert error.retry_after_ms == 250
    response = await client.get("/v1/fail/unauthenticated")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    response = await client.get("/v1/echo/x")
    assert "POST" in response.headers.getlist("Allow")


async def test_bugs_are_logged_and_not_told(edge: Edge, log: io.StringIO) -> None:
    """SEC-21: the stack goes to the log under the request id, never to the client."""
    response = await edge.app.test_client().get("/v1/fail/bug", headers={"X-Request-Id": "r-1"})
    assert b"canary-stack" not in await response.get_data(as_text=False)
    failed = [line for line in map(json.loads, log.getvalue().splitlines()) if "exception" in line]
    assert len(failed) == 1
    assert failed[0]["request_id"] == "r-1"
    assert "canary-stack" in failed[0]["exception"]


async def test_one_line_per_request(edge: Edge, log: io.StringIO) -> None:
    """OBS-08: id, route template, status and duration; no path, query, header or body."""
    await edge.app.test_client().post(
        "/v1/echo/canary-path?token=canary-query",
        data='{"login":"canary-body"}',
        headers={"Content-Type": JSON, "X-Request-Id": "r-2", "Authorization": "Bearer canary-x"},
    )
    text = log.getvalue()
    assert "canary" not in text
    lines = [line for line in map(json.loads, text.splitlines()) if line["event"] == "request"]
    assert len(lines) == 1
    line = lines[0]
    assert (line["service"], line["request_id"], line["route"]) == ("edge", "r-2", "/v1/echo/<name>")
    assert (line["method"], line["status"], line["level"]) == ("POST", 201, "info")
    assert line["duration_ms"] >= 0


async def test_metrics_by_route_never_by_path(edge: Edge) -> None:
    """OBS-07: a thousand paths are one series."""
    client = edge.app.test_client()
    for number in range(3):
        await client.post(f"/v1/echo/{number}")
        await client.get(f"/nowhere/{number}")
    async with client.request("/v1/id", method="BREW") as connection:
        await connection.send_complete()
        await connection.as_response()
    assert edge.requests("/v1/echo/<name>", "POST", 201) == 3
    assert edge.requests("unmatched", "GET", 404) == 3
    assert edge.requests("unmatched", "other", 405) == 1
    response = await client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = (await response.get_data(as_text=False)).decode()
    assert "/nowhere" not in text
    assert 'khala_http_request_duration_seconds_count{method="POST",route="/v1/echo/<name>"} 3.0' in text
    assert "khala_http_requests_active 1.0" in text


async def test_health_and_readiness(edge: Edge) -> None:
    """Alive always; ready only while every check agrees, with each check's word."""
    client = edge.app.test_client()
    assert (await client.get("/healthz")).status_code == 200

    async def fine() -> str | None:
        return None

    async def away() -> str | None:
        raise Unavailable("database_unreachable")

    edge.ready_checks["migrations"] = fine
    response = await client.get("/readyz")
    assert response.status_code == 200
    assert json.loads(await response.get_data(as_text=False)) == {
        "ready": True,
        "checks": {"migrations": "ok"},
    }
    other = make_edge()
    other.ready_checks.update(migrations=fine, database=away)
    response = await other.app.test_client().get("/readyz")
    assert response.status_code == 503
    assert json.loads(await response.get_data(as_text=False))["checks"] == {
        "migrations": "ok",
        "database": "database_unreachable",
    }


async def test_a_scrape_asks_for_readiness_itself(edge: Edge, autojump_clock: MockClock) -> None:
    """The gauges are of now, also where nobody probes; degraded is not ok and not unready."""
    words: dict[str, str | None] = {"database": None, "fanout": Degraded("disconnected")}

    async def database() -> str | None:
        return words["database"]

    async def fanout() -> str | None:
        return words["fanout"]

    edge.ready_checks.update(database=database, fanout=fanout)
    client = edge.app.test_client()

    async def scrape() -> list[str]:
        text = await (await client.get("/metrics")).get_data(as_text=True)
        return sorted(line for line in text.splitlines() if line.startswith("khala_ready"))

    assert await scrape() == [
        "khala_ready 1.0",
        'khala_ready_check{check="database"} 1.0',
        'khala_ready_check{check="fanout"} 0.0',
    ]
    words["database"] = "database_unreachable"
    await trio.sleep(ANSWER_LIFETIME_S)
    assert await scrape() == [
        "khala_ready 0.0",
        'khala_ready_check{check="database"} 0.0',
        'khala_ready_check{check="fanout"} 0.0',
    ]
