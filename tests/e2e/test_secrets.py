"""SEC-13: after a whole session, also a clumsy one, no secret is found in anything that the system wrote.

Looked through: every log at level debug, what was printed, metrics and readiness of all processes, bodies
and headers of refusals, every row of every table (journal and audit log included), command lines.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Final

import pytest
import trio

from khala.adapters.embedded_postgres_processes import find_processes
from tests.e2e.ledger import Ledger
from tests.e2e.stage import OTHER_DEVICE
from tests.e2e.system import System, running_system
from tests.e2e.wire import (
    DEVICE,
    TEXT,
    Api,
    Ending,
    Person,
    events_path,
    follow,
    hello,
    open_api,
    open_welcomed,
    open_wire,
    read_through,
    secret_of,
    subscribe,
    sync_address,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.slow

# One secret of each kind, for what a person or a program could mistake for something else.
PRESENTED: Final = ("access", "refresh", "sync token 0", "key", "service_control", "guess")
# Something that must be found wherever we look, or the search itself is broken.
MARKER: Final = "findable-5c2e"
FILES: Final = (
    "admin_token", "fanout_key", "service_control", "service_node", "service_runtime", "postgres_postgres",
    "postgres_khala_control", "postgres_khala_control_owner", "postgres_khala_reader", "postgres_khala_runtime",
    "postgres_khala_runtime_owner",
)  # fmt: skip


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that logs all it can."""
    with running_system(tmp_path_factory.mktemp("secrets"), KHALA_UP_LOG_LEVEL="debug") as started:
        yield started


def test_no_secret_is_found_anywhere(system: System) -> None:
    """Every credential made, presented, mistyped or misplaced: zero hits in all that was written."""
    canaries = {name: secret_of(system, name) for name in FILES}
    canaries["signing key"] = json.loads(secret_of(system, "control_signing_keys.json"))[0]["d"]
    profile = json.loads((system.data_dir / "profile" / "profile.json").read_text())
    canaries |= {f"profile {name}": profile[name] for name in ("access_token", "refresh_token")}
    key = system.run("keys", "create", "--name", MARKER, "--can", "publish,read,mint").stdout.strip()
    canaries |= {"key": key, "key's random part": key.rpartition("_")[2]}
    run_id = system.run("import", str(recording(system.folder))).stdout.split()[-1]
    topic = f"run:{run_id}:events"
    canaries["token of the command"] = system.run("token", topic).stdout.strip()
    tail = system.tail("tail", run_id, "--verify", "--until-finished")

    answers: list[httpx.Response] = []
    endings: list[Ending] = []
    canaries |= trio.run(hold_session, system, canaries, answers, endings)
    assert tail.finish() == 0
    assert len(canaries) == len(set(canaries.values()))
    assert all(len(canary) >= 20 for canary in canaries.values()), canaries

    outputs = dict(everything_written(system))
    outputs |= trio.run(probes, system)
    outputs["error bodies"] = "\n".join(answer.text for answer in answers)
    outputs["error headers"] = "\n".join(str(answer.headers) for answer in answers)
    outputs["errors of the stream"] = repr(endings)
    for place in (
        "khala.log",
        "control.audit_log",
        "control.service_keys",
        "runtime.runs",
        "runtime.journal",
    ):
        assert MARKER in outputs[place] or MARKER.encode().hex() in outputs[place], place
    hits = {
        (place, name)
        for place, text in outputs.items()
        for name, canary in canaries.items()
        for form in forms(canary)
        if form in text
    }
    assert hits == set()


def forms(canary: str) -> list[str]:
    """Return what a hit looks like: the secret, as bytes in a row, or the signature alone that makes it one."""
    found = [canary, canary.encode().hex()]
    if canary.count(".") == 2:
        found.append(canary.rpartition(".")[2])
    return found


def recording(folder: Path) -> Path:
    """Return a recording of which every event can be found."""
    path = folder / f"{MARKER}.jsonl"
    path.write_text(f'{{"kind": "thought", "data": {{"text": "{MARKER}"}}}}\n')
    return path


async def hold_session(
    system: System, canaries: Mapping[str, str], answers: list[httpx.Response], endings: list[Ending]
) -> dict[str, str]:
    """Use everything once, then put every secret where it does not belong; return the ones made here."""
    async with open_api(system) as api:
        ann, bob = await api.sign_in("ann"), await api.sign_in("bob", OTHER_DEVICE)
        body = {"refresh_token": bob.refresh_token, "device_id": bob.device_id}
        rotated = (await api.post("/api/auth/refresh", body)).json()
        topic = await api.create_run(ann, name=MARKER)
        tokens = [await api.mint(ann, topic) for _ in range(4)]
        made = {
            "access": ann.access_token,
            "refresh": ann.refresh_token,
            "rotated access": bob.access_token,
            "rotated refresh": bob.refresh_token,
            "successor": rotated["refresh_token"],
            "new access": rotated["access_token"],
            **{f"sync token {number}": token for number, token in enumerate(tokens)},
            "guess": "canary-guess-7f3a-0123456789",
        }
        await api.append(ann, topic, thought(MARKER), key=MARKER)
        async with open_welcomed(system, api, ann, topic, subprotocol=TEXT) as wire:
            follower = await subscribe(wire, topic)
            await read_through(wire, follower, 2)
        await misuse_stream(system, ann, topic, tokens, made, endings)
        kinds = {**canaries, **made}
        await misuse_http(api, ann, topic, [kinds[name] for name in PRESENTED], answers)
        # Spent, and from another device: its own would be given the successor again for a moment.
        answers.append(await api.post("/api/auth/refresh", {**body, "device_id": DEVICE}))
        await api.post("/api/auth/logout", {}, ann.access_token)
        return made


async def misuse_stream(
    system: System, ann: Person, topic: str, tokens: list[str], made: Mapping[str, str], endings: list[Ending]
) -> None:
    """Present tokens twice, mangled, to the wrong device, in other fields, before and instead of a hello."""
    spent, second, third, _ = tokens
    first_words: list[object] = [
        hello(spent),
        hello(spent),
        hello(second, OTHER_DEVICE),
        hello(second[:-4]),
        hello(ann.access_token),
        hello(made["refresh"]),
        hello(made["guess"]),
        follow(topic),
        second,
        json.dumps({"hello": {"token": second, "device_id": third, "client_build_id": "x"}}),
        json.dumps({"hello": {"token": [second]}}),
        json.dumps({second: third}),
        json.dumps({"renew": {second: third}}),
    ]
    for words in first_words:
        subprotocol = TEXT if isinstance(words, str) else "khala.v1"
        async with open_wire(system, subprotocol) as wire:
            await wire.send(words)  # type: ignore[arg-type]
            if words is first_words[0]:
                await wire.receive()
                await wire.send(second.encode())
            endings.append(await wire.ending())
    assert {ending.close_code for ending in endings} == {4500, 4502}
    host, port, path = sync_address(system)
    async with await trio.open_tcp_stream(host, port) as stream:
        request = (
            f"GET {path}?token={second} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        )
        headers = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        protocol = f"Sec-WebSocket-Protocol: khala.v1, {third}\r\nOrigin: https://{third}.example\r\n\r\n"
        await stream.send_all((request + headers + protocol).encode())
        assert b" 400 " in bytes(await stream.receive_some())


async def misuse_http(
    api: Api, ann: Person, topic: str, secrets: list[str], answers: list[httpx.Response]
) -> None:
    """Each kind of secret mistyped, in a URL, as an id, a header, a value and a name of a field."""
    known = await api.get("/v1/runs/x", ann.access_token, X_Request_Id=MARKER)
    assert known.headers["X-Request-Id"] == MARKER
    for secret in secrets:
        for url in ("/v1/runs", "/api/auth/session"):
            answers.append(await api.get(url, secret[:-1] + "_"))
            answers.append(await api.get(f"{url}?token={secret}"))
            answers.append(await api.get(f"{url}/{secret}", ann.access_token))
        answers += [
            await api.get(f"{events_path(topic)}?after_seq={secret}", ann.access_token),
            await api.get("/v1/runs/x", ann.access_token, X_Request_Id=f"{secret} x", Idempotency_Key=secret),
            await api.post("/v1/runs", {"org_id": secret}, ann.access_token),
            await api.post("/v1/runs", {"name": secret * 40}, ann.access_token),
            await api.post(events_path(topic), {"events": [{"kind": secret}]}, ann.access_token),
            await api.post(events_path(topic), f'{{"events": "{secret}"}}', ann.access_token),
            await api.post(f"/v1/runs/{secret}/events", {"events": [thought("x")]}, ann.access_token),
            await api.post("/api/sync/token", {"topics": [secret]}, ann.access_token),
            await api.post("/api/sync/token", f'{{"topics": ["{secret}"', ann.access_token),
            await api.post("/api/auth/refresh", {"refresh_token": secret + "x", "device_id": DEVICE}),
            await api.walk_sign_in("eve", secret),
            await api.post("/api/auth/exchange", {"code": secret, "code_verifier": secret}),
            await api.post("/api/keys", {"name": "x", "rights": [secret]}, ann.access_token),
            await api.post(f"/api/keys/{secret}/revoke", {}, ann.access_token),
        ]
    assert {answer.status_code for answer in answers} <= {400, 401, 403, 404}


def everything_written(system: System) -> Iterator[tuple[str, str]]:
    """Yield what is on disk and in the database, and how the processes were started."""
    for path in (system.data_dir / "logs").iterdir():
        yield path.name, path.read_text("utf-8", errors="replace")
    for name in ("up.log", "tail.err", "tail.jsonl"):
        yield name, (system.folder / name).read_text()
    rows: dict[str, list[str]] = {}
    with Ledger.open(system) as ledger:
        for table, row in ledger.every_row("control", "runtime"):
            rows.setdefault(table, []).append(row)
        queries = ledger.rows("SELECT query FROM pg_stat_activity")
    yield from ((table, "\n".join(found)) for table, found in rows.items())
    yield "queries", repr(queries)
    assert system.up is not None
    processes = find_processes((system.data_dir / "postgres").resolve() / "data")
    for pid in (system.up.pid, *processes.postmasters):
        yield f"command line of {pid}", command_line(pid)


def command_line(pid: int) -> str:
    """Return the arguments of a process as the process list has them."""
    ps = ["ps", "-o", "args=", "-p", str(pid)]
    return subprocess.run(ps, capture_output=True, text=True, check=True).stdout


async def probes(system: System) -> dict[str, str]:
    """Return what every process says of itself to whoever asks."""
    found = {}
    async with open_api(system) as api:
        for service in ("control_url", "runtime_url", "admin_url"):
            for path in ("/metrics", "/readyz", "/healthz"):
                answer = await api.get(system.ready[service] + path)
                assert answer.status_code == 200
                found[f"{service}{path}"] = answer.text
        found["keys"] = (await api.get("/.well-known/jwks.json")).text
    return found
