"""Who gets into a node and what they may follow: the upgrade, the token, the topic, at the real socket.

Each forged token is signed with control's own key wherever a signature would hide what is tested, and is
wrong in one thing. After every test the authority's tables are as before.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import attrs
import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from khala_contracts import reason_codes
from khala_contracts.codec import ErrorMessage, Hello, Subscribed, VersionRange, Welcome
from khala_service.identifiers import SystemIds
from tests.e2e.forge import Forge, encode_part
from tests.e2e.ledger import Ledger
from tests.e2e.stage import OTHER_DEVICE, Stage, set_stage
from tests.e2e.system import System, running_system
from tests.e2e.wire import (
    ANSWER_S,
    BINARY,
    BUILD_ID,
    DEVICE,
    NOW,
    TEXT,
    V1,
    Api,
    follow,
    hello,
    open_api,
    open_wire,
    read_through,
    refusal,
    secret_of,
    subscribe,
    sync_address,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from khala_contracts.codec import ServerMessage
    from tests.e2e.wire import Ending

pytestmark = pytest.mark.slow

ORIGIN: Final = "https://app.example"
LEEWAY_S: Final = 30
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
IDS: Final = SystemIds()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that serves the pages of one origin."""
    folder = tmp_path_factory.mktemp("node")
    with running_system(folder, KHALA_NODE_CORS_ORIGINS=ORIGIN) as started:
        yield started


@pytest.fixture(scope="module")
def ledger(system: System) -> Iterator[Ledger]:
    """What PostgreSQL holds."""
    with Ledger.open(system) as opened:
        yield opened


@pytest.fixture(scope="module")
def stage(system: System) -> Stage:
    """Ann, Bob, and their runs."""
    return set_stage(system)


@pytest.fixture(autouse=True)
def _nothing_is_written(stage: Stage, ledger: Ledger) -> Iterator[None]:
    assert stage.topic
    before = ledger.authority_state()
    yield
    assert ledger.authority_state() == before


@pytest.fixture
async def api(system: System) -> AsyncIterator[Api]:
    """HTTP of the system."""
    async with open_api(system) as opened:
        yield opened


@pytest.fixture
async def forge(system: System, stage: Stage, api: Api) -> Forge:
    """Makes tokens like the one that Ann would get for her run."""
    return Forge.of(system, await api.mint(stage.ann, stage.topic))


# -- before the WebSocket ------------------------------------------------------------------------------


async def upgrade_status(
    system: System, *, path: str = "", query: str = "", offered: tuple[str, ...] = (BINARY,), **headers: str
) -> int:
    """Return the HTTP status of an upgrade request: 101, or with what it was refused."""
    host, port, sync_path = sync_address(system)
    lines = [
        f"GET {path or sync_path}{query} HTTP/1.1",
        f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *([f"Sec-WebSocket-Protocol: {', '.join(offered)}"] if offered else []),
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        with trio.fail_after(ANSWER_S):
            answer = bytes(await stream.receive_some())
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("offered", [(), ("khala.v2",), ("KHALA.V1",), ("graphql-ws", "khala.v10")])
async def test_a_foreign_subprotocol_is_refused_before_the_upgrade(
    system: System, offered: tuple[str, ...]
) -> None:
    """400: names are exact, and none is no default."""
    assert await upgrade_status(system, offered=offered) == 400


async def test_a_token_in_the_url_is_refused(system: System, stage: Stage, api: Api) -> None:
    """400 whatever its name, also a good one; it was not spent (promise of SPEC section 3)."""
    token = await api.mint(stage.ann, stage.topic)
    for query in (f"?token={token}", f"?access_token={token}", "?x=1"):
        assert await upgrade_status(system, query=query) == 400
    async with open_wire(system) as wire:
        await wire.greet(token)


@pytest.mark.parametrize("path", ["/", "/sync/v1/ws/", "/sync/v2/ws", "/sync/v1/ws/../ws", "/SYNC/v1/ws"])
async def test_other_paths_are_not_there(system: System, path: str) -> None:
    """404."""
    assert await upgrade_status(system, path=path) == 404


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.evil.example",
        "https://evil-app.example",
        "http://app.example",
        "https://app.example:8443",
        "https://APP.example",
        "https://app.example/",
        "null",
        "",
    ],
)
async def test_pages_of_other_origins_are_refused_before_the_upgrade(system: System, origin: str) -> None:
    """403: origins are compared whole, so that no prefix, port or spelling gets through."""
    assert await upgrade_status(system, Origin=origin) == 403


async def test_allowed_pages_and_programs_may_connect(system: System) -> None:
    """The exact origin, and clients that send none."""
    assert await upgrade_status(system, Origin=ORIGIN) == 101
    assert await upgrade_status(system) == 101


# -- a token opens one connection ----------------------------------------------------------------------


async def test_a_token_opens_one_connection(system: System, stage: Stage, api: Api) -> None:
    """The second hello with it is token_replayed, 4502; the first connection goes on."""
    token = await api.mint(stage.ann, stage.topic)
    async with open_wire(system) as first:
        await first.greet(token)
        for subprotocol in (BINARY, TEXT):
            async with open_wire(system, subprotocol) as second:
                await second.send(hello(token))
                assert (await second.ending()).codes == (["token_replayed"], 4502)
        follower = await subscribe(first, stage.topic)
        await read_through(first, follower, stage.head.seq)


async def test_a_refused_hello_leaves_its_token_usable(system: System, stage: Stage, api: Api) -> None:
    """Another device, versions that we do not speak, a ticket: refused before redeem, each with its code."""
    token = await api.mint(stage.ann, stage.topic)
    newer, upside = VersionRange(2, 9), {"supported": "1", "offered": "2-9", "min_build_id": "0"}
    for message, code, close_code, details in (
        (hello(token, OTHER_DEVICE), "token_invalid", 4502, {}),
        (
            Hello(token, None, DEVICE, BUILD_ID, newer, V1),
            "upgrade_required",
            4504,
            {"failed": "protocol"} | upside,
        ),
        (
            Hello(token, None, DEVICE, BUILD_ID, V1, newer),
            "upgrade_required",
            4504,
            {"failed": "schema"} | upside,
        ),
        (Hello(None, "ticket", DEVICE, BUILD_ID, V1, V1), "token_invalid", 4502, {}),
    ):
        async with open_wire(system) as wire:
            await wire.send(message)
            ending = await wire.ending()
            assert ending.codes == ([code], close_code)
            assert dict(ending.errors[0].details) == details
    async with open_wire(system) as wire:
        await wire.greet(token)


async def test_twenty_hellos_race_with_one_token(system: System, stage: Stage, api: Api) -> None:
    """Exactly one is welcomed, nineteen are token_replayed."""
    token = await api.mint(stage.ann, stage.topic)
    outcomes: list[str] = []

    async def race() -> None:
        async with open_wire(system) as wire:
            await wire.send(hello(token))
            answer = await wire.receive()
            outcomes.append("welcome" if isinstance(answer, Welcome) else code_of(answer))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(race)
    assert sorted(outcomes) == ["token_replayed"] * 19 + ["welcome"]


def code_of(message: ServerMessage) -> str:
    """Return the code of an error."""
    assert isinstance(message, ErrorMessage), message
    return message.code


# -- forged and mangled tokens (SEC-06) ------------------------------------------------------------------


async def hello_ending(system: System, token: str) -> Ending:
    """Say hello with a token that must be refused; return how it ended."""
    async with open_wire(system) as wire:
        await wire.send(hello(token))
        return await wire.ending()


def by_another_key(forge: Forge, algorithm: str, key: PrivateKey) -> str:
    """Return the genuine claims signed by a key that is not control's."""
    claims = {**forge.claims, "jti": IDS.new("jti")}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": forge.kid})


def public_pem(forge: Forge) -> bytes:
    """Return the public key as everybody can download it."""
    return forge.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def with_other_payload(forge: Forge) -> str:
    """Return a genuine token whose claims were exchanged."""
    head, _, signature = forge.token().split(".")
    claims = {**forge.claims, "user_id": IDS.new("usr")}
    return f"{head}.{encode_part(json.dumps(claims).encode())}.{signature}"


def by_own_key(forge: Forge, where: str) -> str:
    """Return the genuine claims with the key that signed them in the header."""
    own = Ed25519PrivateKey.generate()
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "kid": forge.kid,
        "x": encode_part(own.public_key().public_bytes_raw()),
    }
    return attrs.evolve(forge, private=own).token({**forge.header, where: jwk})


def twice(forge: Forge, name: str) -> bytes:
    """Return the genuine claims with one of them said first in another way."""
    other = json.dumps({name: "usr_" + "1" * 26 if name == "user_id" else 9_999_999_999})
    return (other[:-1] + ", " + json.dumps(forge.claims)[1:]).encode()


def grants_of(forge: Forge, **changed: object) -> list[dict[str, object]]:
    """Return the genuine grant with something changed."""
    [grant] = forge.claims["grants"]
    return [{**grant, **changed}]


FORGERIES: Final[dict[str, Callable[[Forge], str]]] = {
    "alg none": lambda f: jwt.encode(f.claims, "", algorithm="none", headers={"kid": f.kid}),
    "alg none, signed": lambda f: f.token({**f.header, "alg": "none"}),
    "alg missing": lambda f: f.token({"kid": f.kid, "typ": "JWT"}),
    "alg in lower case": lambda f: f.token({**f.header, "alg": "eddsa"}),
    "HS256 with the public key, raw": lambda f: f.by_hmac(f.private.public_key().public_bytes_raw()),
    "HS256 with the public key, PEM": lambda f: f.by_hmac(public_pem(f)),
    "HS256 with the kid": lambda f: f.by_hmac(f.kid.encode()),
    "RS256": lambda f: by_another_key(f, "RS256", rsa.generate_private_key(65537, 2048)),
    "ES256": lambda f: by_another_key(f, "ES256", ec.generate_private_key(ec.SECP256R1())),
    "another Ed25519 key": lambda f: by_another_key(f, "EdDSA", Ed25519PrivateKey.generate()),
    "unknown kid": lambda f: f.token({**f.header, "kid": "other"}),
    "kid missing": lambda f: f.token({"alg": "EdDSA", "typ": "JWT"}),
    "kid a number": lambda f: f.token({**f.header, "kid": 1}),
    "kid of 40,000 characters": lambda f: f.token({**f.header, "kid": "k" * 40_000}),
    "a key of its own": lambda f: by_own_key(f, "jwk"),
    "a key at an address of its own": lambda f: f.token({**f.header, "jku": "https://evil.example/jwks.json"}),
    "a certificate of its own": lambda f: f.token({**f.header, "x5c": ["MIIB"]}),
    "a critical extension": lambda f: f.token({**f.header, "crit": ["exp"], "exp": 9_999_999_999}),
    "an unencoded payload": lambda f: f.token({**f.header, "b64": False, "crit": ["b64"]}),
    "compressed": lambda f: f.token({**f.header, "zip": "DEF"}),
    "another type": lambda f: f.token({**f.header, "typ": "at+jwt"}),
    "type a number": lambda f: f.token({**f.header, "typ": 1}),
    "alg said twice": lambda f: f.raw(
        f'{{"alg":"none","alg":"EdDSA","typ":"JWT","kid":"{f.kid}"}}'.encode(), json.dumps(f.claims).encode()
    ),
    "a claim said twice": lambda f: f.raw(f.header, twice(f, "user_id")),
    "expiry said twice": lambda f: f.raw(f.header, twice(f, "exp")),
    "a grant's topic said twice": lambda f: f.raw(
        f.header, json.dumps(f.claims).replace('"topic":', '"topic": "x", "topic":', 1).encode()
    ),
    "audience a list": lambda f: f.token(aud=["khala", "khala-api"]),
    "expiry true": lambda f: f.token(exp=True),
    "expiry a fraction": lambda f: f.token(exp=f.claims["exp"] + 0.5),
    "expiry without end": lambda f: f.raw(
        f.header, json.dumps(f.claims).replace(str(f.claims["exp"]), "Infinity").encode()
    ),
    "expired, and for another": lambda f: f.expiring_in(-3_600, aud="khala-api"),
    "a line break": lambda f: f.token()[:40] + "\n" + f.token()[40:],
    "beyond ASCII": lambda f: "\u00e9" + f.token(),
    "kid a path": lambda f: f.token({**f.header, "kid": "../../dev/null"}),
    "signature of zeros": lambda f: f.token().rpartition(".")[0] + "." + encode_part(bytes(64)),
    "signature missing": lambda f: f.token().rpartition(".")[0] + ".",
    "payload changed": with_other_payload,
    "truncated": lambda f: f.token()[:60],
    "four parts": lambda f: f.token() + ".x",
    "noise": lambda _: "noise",
    "header no object": lambda f: f.raw([1, 2], json.dumps(f.claims).encode()),
    "header of nested brackets": lambda f: f.raw(b"[" * 20_000, b"{}"),
    "payload no object": lambda f: f.raw(f.header, b'"x"'),
    "payload of nested brackets": lambda f: f.raw(f.header, b"[" * 20_000),
    "payload not JSON": lambda f: f.raw(f.header, b"\xff\xfe"),
    "wrong audience": lambda f: f.token(aud="khala-api"),
    "wrong issuer": lambda f: f.token(iss="khala-contro1"),
    "not yet valid": lambda f: f.token(nbf=f.claims["nbf"] + LEEWAY_S + 60),
    "issued in the future": lambda f: f.token(iat=f.claims["iat"] + LEEWAY_S + 60),
    "ends before it begins": lambda f: f.token(exp=f.claims["iat"]),
    "expiry as text": lambda f: f.token(exp="soon"),
    "another device": lambda f: f.token(device_id=OTHER_DEVICE),
    "device of another form": lambda f: f.token(device_id="dev_1"),
    "user of another form": lambda f: f.token(user_id="usr_1"),
    "session of another form": lambda f: f.token(sid="ses_1"),
    "principal of another kind": lambda f: f.token(kind="service"),
    "unknown kind": lambda f: f.token(kind="root"),
    "unknown surface": lambda f: f.token(surface="watch"),
    "orgs a word": lambda f: f.token(orgs="all"),
    "jti empty": lambda f: f.token(jti=""),
    "grants a word": lambda f: f.token(grants="all"),
    "a grant for no topic": lambda f: f.token(grants=grants_of(f, topic="run:*:events")),
    "a grant by no right": lambda f: f.token(grants=grants_of(f, basis="root")),
    "a grant twice": lambda f: f.token(grants=grants_of(f) * 2),
    "an org's right without the org": lambda f: f.token(grants=grants_of(f, basis="org_member")),
    "an owner's right with an org": lambda f: f.token(grants=grants_of(f, org_id=IDS.new("org"))),
    "257 grants": lambda f: f.token(
        grants=[{"topic": f"app:{IDS.new('org')}:x", "basis": "owner"} for _ in range(257)]
    ),
    **{
        f"without {name}": (lambda f, name=name: f.token(**{name: None}))  # type: ignore[misc]  # binds the name
        for name in (
            "iss", "aud", "sub", "kind", "sid", "device_id", "user_id", "orgs", "surface", "jti", "iat", "nbf",
            "exp", "grants",
        )
    },
}  # fmt: skip


async def test_a_forge_makes_good_tokens(system: System, stage: Stage, forge: Forge) -> None:
    """So that each case below is refused for the one thing that is wrong in it."""
    async with open_wire(system) as wire:
        await wire.greet(forge.token())
        follower = await subscribe(wire, stage.topic)
        await read_through(wire, follower, stage.head.seq)


@pytest.mark.parametrize("name", FORGERIES)
async def test_each_forgery_is_token_invalid(system: System, forge: Forge, name: str) -> None:
    """One code, one close code, one text for all; nothing says which check failed."""
    ending = await hello_ending(system, FORGERIES[name](forge))
    assert ending.codes == (["token_invalid"], 4502)
    [error] = ending.errors
    assert (error.retryable, error.advice.value, dict(error.details)) == (False, "reauthenticate", {})
    assert error.message == reason_codes.TOKEN_INVALID.text


def test_there_are_enough_of_them(system: System) -> None:
    """Far more than thirty; and nothing that was presented is in what the system wrote."""
    assert len(FORGERIES) >= 60
    written = (system.folder / "up.log").read_text(errors="replace")
    for path in (system.data_dir / "logs").rglob("*"):
        written += path.read_text(errors="replace") if path.is_file() else ""
    assert "eyJ" not in written


async def test_expiry_at_its_bounds(system: System, forge: Forge) -> None:
    """Valid until 30 s after its end; then token_expired, 4005: mint and resume. Not valid 30 s before it begins."""
    async with open_wire(system) as wire:
        await wire.greet(forge.expiring_in(-LEEWAY_S + 5))
    ending = await hello_ending(system, forge.expiring_in(-LEEWAY_S - 1))
    assert ending.codes == (["token_expired"], 4005)
    async with open_wire(system) as wire:
        await wire.greet(forge.token(nbf=forge.claims["nbf"] + LEEWAY_S - 5))


async def test_other_credentials_open_no_stream(system: System, stage: Stage) -> None:
    """An access token, a refresh token, a service key, another service's credential: token_invalid."""
    service = secret_of(system, "service_node")
    for token in (stage.ann.access_token, stage.ann.refresh_token, service, "khk_x_" + "0" * 52):
        assert (await hello_ending(system, token)).codes == (["token_invalid"], 4502)


async def test_a_session_that_ended_opens_nothing(system: System, api: Api) -> None:
    """A token minted before the sign-out is reauth_required, 4501, and minting again is refused."""
    eve = await api.sign_in("eve", "dev_0000000000000007")
    topic = f"user:{eve.user_id}:runs"
    first, second = await api.mint(eve, topic), await api.mint(eve, topic)
    async with open_wire(system) as wire:
        await wire.greet(first, eve.device_id)
    assert (await api.post("/api/auth/logout", {}, eve.access_token)).status_code == 200
    async with open_wire(system) as wire:
        await wire.send(hello(second, eve.device_id))
        assert (await wire.ending()).codes == (["reauth_required"], 4501)
    again = await api.post("/api/sync/token", {"topics": [topic]}, eve.access_token)
    assert refusal(again) == (401, "reauth_required")


# -- which topics (SEC-08, SEC-18) -----------------------------------------------------------------------


async def test_what_a_token_may_follow(system: System, stage: Stage, api: Api) -> None:
    """One topic of each class of one's own is served, also if nothing was ever written to it."""
    ann = stage.ann
    own = [
        stage.topic, f"user:{ann.user_id}:runs", f"user:{ann.user_id}:codex", f"user:{ann.user_id}:notifications",
        f"org:{ann.org_id}:runs", f"org:{ann.org_id}:workers", f"org:{ann.org_id}:ops",
        f"device:{ann.device_id}:inbox", f"app:{ann.org_id}:x",
    ]  # fmt: skip
    token = await api.mint(ann, *own)
    async with open_wire(system) as wire:
        await wire.greet(token)
        for topic in own:
            answer = await wire.ask(follow(topic, start=NOW), Subscribed)
            assert answer.topic == topic
            # A projector writes the list of her runs when it gets to it.
            if not topic.endswith(":runs"):
                assert answer.head_seq == (stage.head.seq if topic == stage.topic else 0)


async def test_a_right_that_the_authority_does_not_know_opens_no_topic(
    system: System, stage: Stage, forge: Forge
) -> None:
    """Token and head row must agree: grants that control would never sign are `forbidden`, as the unknown is."""
    ann, bob = stage.ann, stage.bob
    own = {"topic": stage.topic, "basis": "owner"}
    claimed = [
        {"topic": stage.foreign, "basis": "owner"},
        {"topic": stage.unknown, "basis": "owner"},
        {"topic": f"worker:wrk_{1:026d}:events", "basis": "owner"},
        {"topic": f"user:{bob.user_id}:runs", "basis": "owner"},
        {"topic": f"user:{bob.user_id}:notifications", "basis": "org_member", "org_id": ann.org_id},
        {"topic": f"device:{bob.device_id}:inbox", "basis": "device"},
        {"topic": f"org:{bob.org_id}:runs", "basis": "org_member", "org_id": ann.org_id},
        {"topic": f"org:{bob.org_id}:ops", "basis": "owner"},
        {"topic": f"app:{bob.org_id}:x", "basis": "key", "org_id": ann.org_id},
    ]
    by_other_rights = [
        {"topic": stage.foreign, "basis": "org_member", "org_id": bob.org_id},
        {"topic": stage.foreign, "basis": "org_admin", "org_id": ann.org_id},
        {"topic": stage.foreign, "basis": "key", "org_id": bob.org_id},
        {"topic": stage.foreign, "basis": "device"},
    ]
    said = set()
    for grants in (claimed, *([grant] for grant in by_other_rights)):
        async with open_wire(system) as wire:
            await wire.greet(forge.token(grants=[*grants, own]))
            for grant in grants:
                answer = await wire.ask(follow(grant["topic"]), ErrorMessage)
                assert answer.topic == grant["topic"]
                raw = wire.raw[-1]
                assert isinstance(raw, bytes)
                # Lengths differ with the name, so the name and what precedes it are compared as values.
                said.add((answer.code, answer.message, answer.retryable, answer.docs, str(answer.details)))
            follower = await subscribe(wire, stage.topic)
            await read_through(wire, follower, stage.head.seq)
    assert len(said) == 1
    assert next(iter(said))[0] == "forbidden"


async def test_a_grant_covers_exactly_its_topic(system: System, stage: Stage, api: Api) -> None:
    """Names compare as bytes: no neighbour, no prefix, no other class, no other spelling of it."""
    ann = stage.ann
    run_id = stage.topic.split(":")[1]
    tricks = [
        f"run:{run_id[:-1]}{'0' if run_id[-1] != '0' else '1'}:events",
        f"app:{ann.org_id}:build", f"app:{ann.org_id}:build-log-2", f"app:{ann.org_id}:build-lo",
        f"user:{ann.user_id}:runs", f"org:{ann.org_id}:runs",
    ]  # fmt: skip
    malformed = [
        stage.topic + ":x", stage.topic.upper(), stage.topic + "\x00", stage.topic + " ", "run:*:events",
        stage.topic.replace(":", "."), f"run:{run_id}0:events", f"run:{run_id[:-1]}:events", f"app:{ann.org_id}:*",
    ]  # fmt: skip
    token = await api.mint(ann, stage.topic, f"app:{ann.org_id}:build-log")
    async with open_wire(system) as wire:
        await wire.greet(token)
        for topic in tricks:
            assert (await wire.ask(follow(topic), ErrorMessage)).code == "forbidden", topic
        for topic in malformed:
            assert (await wire.ask(follow(topic), ErrorMessage)).code == "topic_invalid", topic
        assert (await wire.ask(follow(f"app:{ann.org_id}:build-log"), Subscribed)).head_seq == 0


async def test_denials_take_as_long_for_the_foreign_as_for_the_unknown(
    system: System, stage: Stage, forge: Forge
) -> None:
    """SEC-08: medians over 300 tries differ by at most 1 ms, so that time says nothing either."""
    grants = [{"topic": topic, "basis": "owner"} for topic in (stage.foreign, stage.unknown)]
    times: dict[str, list[float]] = {stage.foreign: [], stage.unknown: []}
    while len(times[stage.unknown]) < 300:
        async with open_wire(system) as wire:
            await wire.greet(forge.token(grants=grants))
            # Nineteen denials are answered one by one; one more would close.
            for number in range(18):
                topic = (stage.foreign, stage.unknown)[number % 2]
                began = trio.current_time()
                assert (await wire.ask(follow(topic), ErrorMessage)).code == "forbidden"
                times[topic].append(trio.current_time() - began)
    medians = [sorted(values)[len(values) // 2] for values in times.values()]
    assert abs(medians[0] - medians[1]) < 0.001, medians
