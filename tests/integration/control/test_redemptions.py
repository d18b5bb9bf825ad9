"""One token, one connection: redeeming in batches, races, revocation, and the end of records."""

from collections import Counter

import trio

from control.actors.audit_trail import AuditTrail
from control.actors.sweeper import Sweeper
from control.adapters.metrics import PrometheusMeters
from control.adapters.postgres.audit import PostgresAudit
from control.adapters.postgres.pending_sign_ins import PostgresPendingSignIns
from control.adapters.postgres.redemptions import PostgresRedemptions
from control.adapters.postgres.revocations import PostgresRevocations
from control.adapters.postgres.sessions import PostgresSessions
from khala_service.adapters.postgres import open_pool
from khala_service.identifiers import SystemIds
from khala_service.metrics import MetricsRegistry
from tests.integration.control.rig import (
    DEVICE,
    OTHER_DEVICE,
    ControlRig,
    Document,
    Person,
    bearer,
    refusal,
)


def _redemption(
    control: ControlRig, person: Person, jti: str, connection_id: str, **fields: object
) -> Document:
    """Return what a node sends after it has verified a token."""
    now_ms = int(control.clock.now() * 1000)
    return {
        "jti": jti,
        "connection_id": connection_id,
        "node_id": "nod_1",
        "session_id": person.session_id,
        "principal_id": person.user_id,
        "user_id": person.user_id,
        "device_id": DEVICE,
        "token_expires_at": now_ms + 300_000,
        "token_issued_at": now_ms,
        **fields,
    }


async def test_forty_connections_race_for_one_token(control: ControlRig) -> None:
    """Exactly one of 40 at once opens; asked again each gets its own answer again."""
    person = await control.sign_in()
    jti = SystemIds().new("jti")
    results: dict[int, str] = {}

    async def redeem(number: int) -> None:
        (results[number],) = await control.redeem(_redemption(control, person, jti, f"con_{number}"))

    for _ in range(2):
        before = dict(results)
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(redeem, number)
        assert Counter(results.values()) == {"ok": 1, "replayed": 39}
        assert before in ({}, results)


async def test_batches_that_share_tokens_race(control: ControlRig) -> None:
    """Two nodes redeem the same 256 tokens in opposite orders, ten times: one ok each, no deadlock."""
    person = await control.sign_in()
    for _ in range(10):
        jtis = [SystemIds().new("jti") for _ in range(256)]
        answers: dict[str, list[str]] = {}

        async def redeem(node: str, order: list[str], answers: dict[str, list[str]] = answers) -> None:
            answers[node] = await control.redeem(
                *(_redemption(control, person, jti, f"{node}_{jti}") for jti in order)
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(redeem, "a", jtis)
            nursery.start_soon(redeem, "b", list(reversed(jtis)))
        for first, second in zip(answers["a"], reversed(answers["b"]), strict=True):
            assert {first, second} == {"ok", "replayed"}


async def test_a_batch_answers_in_its_order(control: ControlRig) -> None:
    """Each redemption of a mixed batch gets its own answer; one token twice in a batch opens once."""
    person, gone = await control.sign_in("ann"), await control.sign_in("bob")
    await control.post("/api/auth/logout", {}, gone.access_token)
    fresh, used = SystemIds().new("jti"), SystemIds().new("jti")
    await control.redeem(_redemption(control, person, used, "con_first"))
    unknown_session = SystemIds().new("ses")
    now_ms = int(control.clock.now() * 1000)
    batch = [
        (_redemption(control, person, fresh, "con_1"), "ok"),
        (_redemption(control, person, fresh, "con_2"), "replayed"),
        (_redemption(control, person, fresh, "con_1"), "ok"),
        (_redemption(control, person, used, "con_2"), "replayed"),
        (_redemption(control, person, used, "con_first"), "ok"),
        (_redemption(control, gone, SystemIds().new("jti"), "con_3"), "revoked"),
        (
            _redemption(control, person, SystemIds().new("jti"), "con_4", session_id=unknown_session),
            "revoked",
        ),
        (_redemption(control, person, SystemIds().new("jti"), "con_5", device_id=OTHER_DEVICE), "revoked"),
        (_redemption(control, person, SystemIds().new("jti"), "con_6", user_id=gone.user_id), "revoked"),
        (
            _redemption(control, person, SystemIds().new("jti"), "con_7", token_expires_at=now_ms - 61_000),
            "replayed",
        ),
        (
            _redemption(control, person, SystemIds().new("jti"), "con_8", token_expires_at=now_ms - 29_000),
            "ok",
        ),
    ]
    assert await control.redeem(*(item for item, _ in batch)) == [expected for _, expected in batch]


async def test_revocation_is_judged_at_every_redeem(control: ControlRig) -> None:
    """A connection that was ok is revoked when asked again after a logout; so are a revoked key's."""
    person = await control.sign_in()
    jti = SystemIds().new("jti")
    item = _redemption(control, person, jti, "con_1")
    assert await control.redeem(item) == ["ok"]

    key_id, secret = await control.create_key(person, "read")
    minted = (await control.mint(secret, f"org:{person.org_id}:runs", device_id=DEVICE)).json()
    (row,) = await control.rows(
        "SELECT session_id FROM control.audit_log WHERE jti = $1 AND outcome = 'done'", minted["jti"]
    )
    of_key = _redemption(
        control, person, minted["jti"], "con_2", session_id=row["session_id"], principal_id=key_id
    )
    assert await control.redeem(of_key) == ["ok"]
    await control.post(f"/api/keys/{key_id}/revoke", {}, person.access_token)
    assert await control.redeem(of_key) == ["revoked"]

    await control.post("/api/auth/logout", {}, person.access_token)
    assert await control.redeem(item) == ["revoked"]


async def test_a_batch_at_its_limits(control: ControlRig) -> None:
    """1..256 redemptions with complete ids; anything else is refused whole and redeems nothing."""
    person = await control.sign_in()

    def items(count: int) -> list[Document]:
        return [_redemption(control, person, SystemIds().new("jti"), f"con_{n}") for n in range(count)]

    assert await control.redeem(*items(256)) == ["ok"] * 256
    good, path = items(1)[0], "/internal/v1/sync-tokens/redeem"
    credential = control.config.node_credential.reveal()
    now_ms = int(control.clock.now() * 1000)
    for batch in (
        [],
        items(257),
        [good, {**good, "jti": ""}],
        [good, {**good, "connection_id": "x" * 129}],
        [good, {**good, "node_id": "a b\u0000"}],
        [good, {**good, "device_id": "é"}],
        [good, {**good, "token_expires_at": now_ms + 3_700_000}],
        [good, {**good, "token_expires_at": 0}],
    ):
        answer = await control.post(path, {"redemptions": batch}, credential)
        assert refusal(answer) == (400, "invalid_argument")
    (count,) = await control.rows("SELECT count(*) AS n FROM control.token_redemptions")
    assert count["n"] == 256


async def test_internal_routes_are_for_their_callers(control: ControlRig) -> None:
    """Redeem is for nodes, resolve for runtimes; people, keys and each other's credentials are nobody."""
    person = await control.sign_in()
    _, secret = await control.create_key(person, "read")
    config = control.config
    wrong_for = {
        "/internal/v1/sync-tokens/redeem": config.runtime_credential.reveal(),
        "/internal/v1/principals/resolve": config.node_credential.reveal(),
    }
    for path, wrong in wrong_for.items():
        for credential in (None, wrong, config.service_credential.reveal(), person.access_token, secret):
            answer = await control.http.post(path, json={}, headers=bearer(credential))
            assert refusal(answer) == (401, "unauthenticated")


async def test_records_end_with_their_token(control: ControlRig) -> None:
    """A sweep removes what nobody can present any more, in batches, and nothing a second too early."""
    person = await control.sign_in()
    await control.redeem(
        *(_redemption(control, person, SystemIds().new("jti"), f"con_{number}") for number in range(25))
    )
    metrics = MetricsRegistry("test", process_metrics=False)
    meters = PrometheusMeters(metrics)
    async with open_pool(control.config.database_dsn, application_name="test") as connections:
        sweeper = Sweeper(
            redemptions=PostgresRedemptions(connections),
            sessions=PostgresSessions(connections),
            revocations=PostgresRevocations(connections),
            pending=PostgresPendingSignIns(connections),
            refresh_grace_s=10,
            trail=AuditTrail(PostgresAudit(connections), control.clock, meters),
            clock=control.clock,
            ids=SystemIds(),
            meters=meters,
            batch=10,
        )
        control.clock.offset_s = 300 + 115
        assert await sweeper.sweep_once() == 0
        control.clock.offset_s = 300 + 125
        assert await sweeper.sweep_once() == 25
        control.clock.offset_s = 59 * 24 * 3600
        assert await sweeper.sweep_once() == 0
        control.clock.offset_s = 61 * 24 * 3600
        assert await sweeper.sweep_once() == 1
    assert metrics.sample("khala_control_swept_rows_total") == 26
    counts = await control.rows(
        "SELECT (SELECT count(*) FROM control.sessions) AS s, (SELECT count(*) FROM control.refresh_tokens) AS r"
    )
    assert counts == [{"s": 0, "r": 0}]
