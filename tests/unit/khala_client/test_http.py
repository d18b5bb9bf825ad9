from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

from khala_client.credentials import KeyCredentials
from khala_client.errors import (
    Forbidden,
    KhalaError,
    ReauthRequired,
    SettingsRefused,
    Unavailable,
    UpgradeRequired,
)
from khala_client.http import ControlClient, RuntimeClient, history_path
from khala_client.http_calls import PROTOBUF, open_http, send
from khala_client.outgoing import OutgoingEvent
from khala_contracts import http_messages as m
from khala_contracts import strict_json
from khala_contracts.topics import TopicName
from tests.unit.khala_client.node_model import topic_number

if TYPE_CHECKING:
    from google.protobuf.message import Message

TOPIC = topic_number(1)
RUN = TOPIC.split(":")[1]
ACK = m.Ack(event_id="evt_1", topic=TOPIC, seq=1, lineage="lin_1", chain=bytes(32))
RUN_MESSAGE = m.Run(
    run_id=RUN,
    name="n",
    state=m.RunState.Name(2),
    created_at_us=5_000_000,
    topic=TOPIC,
    watermark=m.Watermark(topic=TOPIC, lineage="lin_1", seq=1, chain=bytes(32)),
)
SESSION = m.Session(
    session_id="ses_1", user_id="usr_1", device_id="dev_1", surface="SURFACE_DESKTOP", login="ada"
)
TOKENS = m.SessionTokens(access_token="a", access_expires_at=1_500, refresh_token="r", session=SESSION)
KEY = m.ServiceKey(key_id="key_1", name="k", rights=["publish"], topics=["run:*:events"], revoked_at=2_000)

Handler = Callable[[httpx.Request], httpx.Response]


def answering(message: Message, status: int = 200, headers: dict[str, str] | None = None) -> httpx.Response:
    """Return a protobuf answer."""
    return httpx.Response(
        status, content=message.SerializeToString(), headers={"Content-Type": PROTOBUF, **(headers or {})}
    )


def leading(url: str, cookie: str = "") -> httpx.Response:
    """Return an answer that sends a browser on."""
    return httpx.Response(303, headers={"Location": url, **({"Set-Cookie": cookie} if cookie else {})})


class Service:
    """A service behind a mock transport: one answer per route, and what it was asked."""

    def __init__(self, answers: dict[str, httpx.Response | Exception | list[httpx.Response]]) -> None:
        self._answers = answers
        self.requests: list[httpx.Request] = []
        self.http = httpx.AsyncClient(
            transport=httpx.MockTransport(self._handle), headers={"Accept": PROTOBUF}
        )
        credentials = KeyCredentials("khk_secret", device_id="dev_00000001")
        self.control = ControlClient("http://c/", self.http, credentials)
        self.runtime = RuntimeClient("http://r", self.http, credentials)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers[f"{request.method} {request.url.raw_path.decode()}"]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, list):
            return answer.pop(0)
        return answer

    @property
    def last(self) -> httpx.Request:
        """The newest request."""
        return self.requests[-1]


async def test_control_routes() -> None:
    """Each method speaks to its route, with the bearer where one is needed, and reads the answer."""
    service = Service(
        {
            "GET /api/auth/start?device_id=dev_1&surface=desktop&login_hint=ada": leading(
                "http://c/dev/issuer/authorize?x=1", cookie="khala_sign_in=bound; Path=/api/auth/callback"
            ),
            "GET /dev/issuer/authorize?x=1": leading("http://c/api/auth/callback?code=y"),
            "GET /api/auth/callback?code=y": answering(TOKENS),
            "POST /api/auth/sessions/revoke": answering(m.RevokeSessionsResponse(session_ids=["ses_1"])),
            "POST /api/auth/refresh": answering(TOKENS),
            "POST /api/auth/logout": answering(m.LogoutResponse()),
            "GET /api/auth/session": answering(SESSION),
            "GET /api/auth/sessions": answering(m.ListSessionsResponse(sessions=[SESSION])),
            "GET /api/auth/sessions?device_id=dev_1": answering(m.ListSessionsResponse(sessions=[SESSION])),
            "POST /api/sync/token": answering(
                m.SyncTokenResponse(
                    token="t",
                    jti="j",
                    expires_at=1_000,
                    grants=[m.TopicGrant(topic=TOPIC, basis="GRANT_BASIS_OWNER")],
                )
            ),
            "POST /api/keys": answering(m.CreateKeyResponse(key=KEY, secret="khk_new")),
            "GET /api/keys": answering(m.ListKeysResponse(keys=[KEY])),
            "POST /api/keys/key_1/revoke": answering(m.RevokeKeyResponse(key=KEY)),
            "POST /api/keys/key_1/rotate": answering(m.RotateKeyResponse(key=KEY, secret="khk_next")),
            "GET /api/compat": answering(
                m.CompatResponse(min_build_id="0.1.0", protocol_min=1, protocol_max=2)
            ),
        }
    )
    control = service.control
    tokens = await control.sign_in_dev("ada", device_id="dev_1")
    assert "Authorization" not in service.last.headers
    assert service.last.headers["Cookie"] == "khala_sign_in=bound"
    assert (tokens.access_expires_at_s, tokens.session.surface, tokens.session.login) == (
        1.5,
        "desktop",
        "ada",
    )
    assert repr(tokens).count("'r'") == 0
    await control.refresh("r", device_id="dev_1")
    assert m.RefreshRequest.FromString(service.last.content).refresh_token == "r"
    await control.log_out()
    assert service.last.headers["Authorization"] == "Bearer khk_secret"
    assert (await control.get_session()).revoked_at_s is None
    assert len(await control.list_sessions()) == 1
    assert len(await control.list_sessions(device_id="dev_1")) == 1
    for named, scope in (
        ({"session_id": "ses_1"}, m.REVOKE_SCOPE_SESSION),
        ({"device_id": "dev_1"}, m.REVOKE_SCOPE_DEVICE),
        ({"others": True}, m.REVOKE_SCOPE_OTHERS),
        ({}, m.REVOKE_SCOPE_ALL),
    ):
        assert await control.revoke_sessions(**named) == ("ses_1",)
        assert m.RevokeSessionsRequest.FromString(service.last.content).scope == scope
    token = await control.mint_sync_token([TOPIC], ttl_s=60)
    asked = m.SyncTokenRequest.FromString(service.last.content)
    assert (list(asked.topics), asked.device_id, asked.ttl_s) == ([TOPIC], "dev_00000001", 60)
    assert token.grants[0].basis == "owner"
    await control.mint_sync_token([TOPIC], subject=("their-user", "dev_00000002"))
    asked = m.SyncTokenRequest.FromString(service.last.content)
    assert (asked.device_id, asked.subject.user_id, asked.subject.device_id) == (
        "",
        "their-user",
        "dev_00000002",
    )
    created = await control.create_key(
        "k", rights=["publish"], topics=["run:*:events"], org_id="org_1", ttl_s=9
    )
    assert (created.secret, created.expires_at_s, created.revoked_at_s) == ("khk_new", None, 2.0)
    assert (await control.list_keys())[0].secret is None
    for overlap_s in (None, 0, 60):
        assert (await control.rotate_key("key_1", overlap_s=overlap_s)).secret == "khk_next"
        rotation = m.RotateKeyRequest.FromString(service.last.content)
        # 0 ends the old secret now; absent is the server's own default.
        assert (rotation.HasField("overlap_s"), rotation.overlap_s) == (overlap_s is not None, overlap_s or 0)
    assert (await control.revoke_key("key_1")).key_id == "key_1"
    compat = await control.get_compatibility()
    assert (compat.min_build_id, compat.protocol) == ("0.1.0", (1, 2))
    assert all("secret" not in str(request.url) for request in service.requests)


async def test_runtime_routes() -> None:
    """Mutations carry their key; reads carry the watermark."""
    page = m.ListEventsResponse(
        events=[
            m.Event(
                topic=TOPIC,
                seq=1,
                kind="thought",
                schema_version=1,
                event_id="evt_1",
                committed_at_us=2_000_000,
            )
        ],
        watermark=m.Watermark(topic=TOPIC, lineage="lin_1", seq=1, chain=bytes(32)),
        head_seq=2,
        floor_seq=1,
        chain_before=bytes(32),
    )
    chunk = m.AppendStreamAck(committed=m.AppendEventsResponse(acks=[ACK]))
    service = Service(
        {
            "POST /v1/runs": answering(m.CreateRunResponse(run=RUN_MESSAGE, ack=ACK), 201),
            f"GET /v1/runs/{RUN}": answering(m.GetRunResponse(run=RUN_MESSAGE)),
            "GET /v1/runs": answering(m.ListRunsResponse(runs=[RUN_MESSAGE], next_page_token="next")),
            "GET /v1/runs?limit=5&page_token=p": answering(m.ListRunsResponse()),
            f"POST /v1/runs/{RUN}/transitions": answering(m.TransitionRunResponse(run=RUN_MESSAGE, ack=ACK)),
            f"POST /v1/runs/{RUN}/events": [
                answering(m.AppendEventsResponse(acks=[ACK])),
                httpx.Response(200, content=strict_json.print_json(chunk)),
            ],
            f"GET /v1/runs/{RUN}/events?after_seq=0": answering(page),
            f"GET /v1/runs/{RUN}/events?after_seq=7&limit=1": answering(page),
            f"GET /v1/topics/{TOPIC.replace(':', '%3A')}": answering(
                m.TopicInfo(topic=TOPIC, topic_class="run_events", head_seq=4, floor_seq=1)
            ),
        }
    )
    runtime = service.runtime
    created = await runtime.create_run(idempotency_key="k1", name="n", attributes={"a": "b"})
    assert service.last.headers["Idempotency-Key"] == "k1"
    assert (created.run.state, created.run.created_at_s, created.ack.seq) == ("running", 5.0, 1)
    assert created.run.watermark is not None
    assert not created.run.is_finished
    assert (await runtime.get_run(RUN)).finished_at_s is None
    assert (await runtime.list_runs()).next_page_token == "next"
    assert (await runtime.list_runs(limit=5, page_token="p")).runs == ()
    run, _ = await runtime.transition_run(RUN, "failed", idempotency_key="k2", reason="r", exit_status=3)
    sent = m.TransitionRunRequest.FromString(service.last.content)
    assert (sent.to_state, sent.exit_status, sent.reason, run.run_id) == (5, 3, "r", RUN)
    event = OutgoingEvent.of("thought", {"text": "hi"}, key="e1")
    acks = await runtime.append(RUN, [OutgoingEvent.of("thought", {})], idempotency_key="k3", expected_seq=0)
    assert m.AppendEventsRequest.FromString(service.last.content).expected_seq == 0
    assert acks[0].event_id == "evt_1"
    outcome = await runtime.append_keyed(RUN, [event])
    assert service.last.headers["Content-Type"] == service.last.headers["Accept"] == "application/x-ndjson"
    assert outcome.acks[0].seq == 1
    first = await runtime.read_events(RUN)
    assert (first.events[0].frame.seq, first.events[0].committed_at_s, first.is_last) == (1, 2.0, False)
    await runtime.read_events(RUN, after_seq=7, limit=1)
    assert (await runtime.get_topic(TOPIC)).head_seq == 4


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (m.Error(code="unavailable", retryable=True, retry_after_ms=40), 503, Unavailable),
        (m.Error(code="rate_limited", retryable=True), 429, Unavailable),
        (m.Error(code="forbidden", topic=TOPIC), 403, Forbidden),
        (m.Error(code="upgrade_required", details={"min_build_id": "9"}), 426, UpgradeRequired),
        (m.Error(code="reauth_required"), 401, ReauthRequired),
        (m.Error(code="idempotency_conflict"), 409, KhalaError),
        (m.Error(code="code_of_tomorrow"), 418, KhalaError),
    ],
)
async def test_refusals(error: m.Error, status: int, kind: type[KhalaError]) -> None:
    """The body's code decides the type; the request can be quoted."""
    service = Service({"GET /api/keys": answering(error, status, {"X-Request-Id": "req_1"})})
    with pytest.raises(kind) as refused:
        await service.control.list_keys()
    assert type(refused.value) is kind
    assert refused.value.request_id == "req_1"
    assert refused.value.retry_after_ms == error.retry_after_ms
    assert "khk_secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "unauthenticated"), (403, "forbidden"), (404, "not_found"), (500, "internal"), (400, "internal")]
    + [(status, "unavailable") for status in (408, 502, 503, 504)]
    + [(429, "rate_limited")],
)
async def test_answers_that_are_not_ours(status: int, code: str) -> None:
    """A proxy's page: by its status, and nothing of its text."""
    page = httpx.Response(status, text="<h1>secret page</h1>", headers={"Content-Type": "text/html"})
    service = Service({"GET /api/keys": page})
    with pytest.raises(KhalaError) as refused:
        await service.control.list_keys()
    assert refused.value.code == code
    assert refused.value.details["status"] == str(status)
    assert "page" not in str(refused.value)


async def test_a_refusal_that_does_not_decode() -> None:
    """By its status."""
    broken = httpx.Response(503, content=b"\xff\xff", headers={"Content-Type": PROTOBUF})
    with pytest.raises(Unavailable):
        await Service({"GET /api/keys": broken}).control.list_keys()


async def test_a_success_that_does_not_decode() -> None:
    """Something else answers at this URL."""
    with pytest.raises(Unavailable, match="not one of this service"):
        await Service({"GET /api/keys": httpx.Response(200, content=b"\xff\xff")}).control.list_keys()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (httpx.ConnectError("refused"), "not_sent"),
        (httpx.ConnectTimeout(""), "not_sent"),
        (httpx.ReadTimeout(""), "unknown"),
        (httpx.RemoteProtocolError("gone"), "unknown"),
        (httpx.DecodingError("a proxy's broken gzip"), "unknown"),
    ],
)
async def test_no_answer(error: Exception, outcome: str) -> None:
    """Retry is safe with the same key; whether it was sent is said."""
    with pytest.raises(Unavailable) as refused:
        await Service({"GET /api/keys": error}).control.list_keys()
    assert refused.value.details["outcome"] == outcome
    assert refused.value.retryable


async def test_an_answer_without_end_is_cut() -> None:
    """16 MiB are more than any answer of ours."""
    huge = httpx.Response(200, content=bytes(16 * 1024 * 1024 + 1))
    with pytest.raises(KhalaError, match="larger than any"):
        await Service({"GET /api/keys": huge}).control.list_keys()


class Renewing(KeyCredentials):
    """Credentials that can be exchanged once."""

    def __init__(self, *, successors: int) -> None:
        super().__init__("old", device_id="dev_00000001")
        self.successors = successors
        self.replaced: list[str] = []

    async def bearer(self) -> str:
        """Return the newest."""
        return f"new{len(self.replaced)}" if self.replaced else "old"

    async def replace(self, refused: str) -> bool:
        """Exchange while there are successors."""
        if len(self.replaced) >= self.successors:
            return False
        self.replaced.append(refused)
        return True


@pytest.mark.parametrize(
    ("successors", "expected"), [(0, ["old"]), (1, ["old", "new1"]), (2, ["old", "new1"])]
)
async def test_a_refused_bearer_is_exchanged_once(successors: int, expected: list[str]) -> None:
    """Then the refusal counts; no loop."""
    service = Service({"GET /api/keys": answering(m.Error(code="token_expired"), 401)})
    credentials = Renewing(successors=successors)
    control = ControlClient("http://c", service.http, credentials)
    with pytest.raises(ReauthRequired):
        await control.list_keys()
    assert [request.headers["Authorization"] for request in service.requests] == [
        f"Bearer {name}" for name in expected
    ]


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_call_goes_through_after_the_exchange(is_streamed: bool) -> None:
    """The same request with the new bearer."""
    chunk = m.AppendStreamAck(committed=m.AppendEventsResponse(acks=[ACK]))
    success = (
        httpx.Response(200, content=strict_json.print_json(chunk))
        if is_streamed
        else answering(m.AppendEventsResponse(acks=[ACK]))
    )
    refusal = answering(m.Error(code="unauthenticated"), 401)
    service = Service({f"POST /v1/runs/{RUN}/events": [refusal, success]})
    runtime = RuntimeClient("http://r", service.http, Renewing(successors=1))
    events = [OutgoingEvent.of("thought", {}, key="k" if is_streamed else "")]
    if is_streamed:
        assert len((await runtime.append_keyed(RUN, events)).acks) == 1
    else:
        assert len(await runtime.append(RUN, events, idempotency_key="k")) == 1
    assert service.requests[0].content == service.requests[1].content


async def test_a_streamed_append_without_a_successor() -> None:
    """Refused once is refused."""
    service = Service({f"POST /v1/runs/{RUN}/events": answering(m.Error(code="unauthenticated"), 401)})
    with pytest.raises(ReauthRequired):
        await service.runtime.append_keyed(RUN, [OutgoingEvent.of("thought", {}, key="k")])


async def test_nobody_can_only_sign_in() -> None:
    """Without credentials nothing is sent."""
    service = Service({})
    with pytest.raises(ReauthRequired):
        await ControlClient("http://c", service.http, None).list_keys()
    assert service.requests == []


async def test_a_base_url_that_httpx_does_not_take() -> None:
    """Found when it is used."""
    async with open_http() as http:
        with pytest.raises(SettingsRefused):
            await send(http, "GET", "http://[::1", m.Session)


def test_a_service_has_an_http_url() -> None:
    """Anything else is refused when the client is made."""
    with pytest.raises(SettingsRefused, match="the URL of runtime"):
        RuntimeClient("ws://r", httpx.AsyncClient(), None)


async def test_a_state_that_this_build_does_not_know() -> None:
    """A newer server's word is no reason to refuse its answer."""
    newer = m.Run()
    newer.CopyFrom(RUN_MESSAGE)
    newer.MergeFromString(b"\x18\x63")
    service = Service({f"GET /v1/runs/{RUN}": answering(m.GetRunResponse(run=newer))})
    assert (await service.runtime.get_run(RUN)).state == "unknown"


async def test_keys_have_no_successor() -> None:
    """And show nothing of themselves."""
    credentials = KeyCredentials("khk_secret", device_id="dev_00000001")
    assert not await credentials.replace("khk_secret")
    assert "secret" not in repr(credentials) + credentials.namespace
    assert credentials.namespace != KeyCredentials("khk_other", device_id="dev_00000001").namespace


async def test_app_topics_and_transfers() -> None:
    """Where the log of a topic is read follows from its class; a transfer names the new owner and its key."""
    org = "org_01fwhe4yddfk4scvajq9ww84cz"
    app = TopicName(f"app:{org}:shop")
    path = f"/v1/app-topics/{org}/shop/events"
    position = m.Watermark(topic=app, seq=3, lineage="lin_1")
    service = Service(
        {
            f"GET {path}?after_seq=3&limit=2": answering(
                m.ListEventsResponse(watermark=position, head_seq=3)
            ),
            f"POST {path}": answering(m.AppendEventsResponse(acks=[m.Ack(topic=app, seq=4)])),
            f"POST /v1/runs/{RUN}/transfer": answering(
                m.TransferRunResponse(run=m.Run(run_id=RUN, owner_user_id="usr_2"))
            ),
        }
    )
    page = await service.runtime.read_history(app, after_seq=3, limit=2)
    assert (page.cursor.seq, page.is_last) == (3, True)
    assert history_path(app) == path
    assert history_path(TopicName(f"org:{org}:runs")) is None
    with pytest.raises(ValueError, match="org:"):
        await service.runtime.read_history(TopicName(f"org:{org}:runs"))
    run = await service.runtime.transfer_run(RUN, "usr_2", idempotency_key="k")
    assert m.TransferRunRequest.FromString(service.last.content).owner_user_id == "usr_2"
    assert (run.owner_user_id, service.last.headers["Idempotency-Key"]) == ("usr_2", "k")
