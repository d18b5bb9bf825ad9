"""The service as a process: readiness, keys, compatibility, page, modes, refused configurations."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from control.app import ControlConfig, migrate, serve_control
from khala.adapters.embedded_postgres import start_server, stop_server
from khala.adapters.embedded_postgres_roles import bootstrap_roles
from khala_contracts import http_messages as m
from khala_service.adapters.postgres import open_asyncio_loop
from khala_service.config import ConfigRefused, Secret
from khala_service.service_process import EXIT_FAILED, EXIT_REFUSED
from tests.integration.control.rig import ControlRig, make_config, refusal, running_control
from tests.postgres_cluster import ROOT, Database, PostgresTestCluster, running_cluster
from tests.postgres_cluster import migrate as migrate_plane


async def test_keys_that_verify_are_published(control: ControlRig) -> None:
    """The set holds the public half of the ring's keys and nothing private; caches know how long."""
    answer = await control.http.get("/.well-known/jwks.json")
    ring = json.loads(control.config.signing_keys_file.read_text())
    for key in ring:
        key.pop("d")
    assert answer.json() == {"keys": ring}
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    again = await control.http.get(
        "/.well-known/jwks.json", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert again.status_code == 304


async def test_compatibility(control: ControlRig) -> None:
    """Ranges of protocol and schema, least build, version; in both forms of the body."""
    document = (await control.http.get("/api/compat")).json()
    assert (document["protocol_min"], document["protocol_max"]) == (1, 1)
    assert (document["schema_min"], document["schema_max"]) == (1, 1)
    assert document["min_build_id"] == "0"
    binary = await control.http.get("/api/compat", headers={"Accept": "application/x-protobuf"})
    assert m.CompatResponse.FromString(binary.content).version == document["version"]


async def test_the_page_loads_nothing_from_elsewhere(control: ControlRig) -> None:
    """CT-01: a whole control serves the live page; it names files of its own origin and no other host."""
    answer = await control.http.get("/", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
    assert not re.search(r"https?://|<style|@import|url\(", answer.text)
    loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(loaded) >= 3
    for path in loaded:
        assert path.startswith("/assets/")
        assert (await control.http.get(path)).status_code == 200


async def test_metrics_count_what_was_done(control: ControlRig) -> None:
    """Actions, refusals and redemptions move their series; no label holds an id."""
    person = await control.sign_in()
    await control.mint(person.access_token, f"user:{person.user_id}:runs")
    await control.mint(person.access_token, "nonsense")
    metrics = (await control.http.get("/metrics")).text
    for line in (
        'khala_control_actions_total{action="session.sign_in"} 1.0',
        'khala_control_actions_total{action="sync_token.mint"} 1.0',
        'khala_control_refusals_total{action="sync_token.mint",code="topic_invalid"} 1.0',
    ):
        assert line in metrics
    assert person.user_id not in metrics


async def test_unknown_routes_are_error_bodies(control: ControlRig) -> None:
    """404 and 405 with the registry's codes; an asset that is not there is not the page."""
    assert refusal(await control.get("/api/nothing")) == (404, "not_found")
    assert refusal(await control.get("/assets/app.js")) == (404, "not_found")
    assert refusal(await control.get("/api/sync/token")) == (405, "method_not_allowed")


async def test_production_has_no_development_sign_in(control_database: Database, tmp_path: Path) -> None:
    """CT-16: what dev mode has is absent: the answer is the one of any path that does not exist."""
    dev = make_config(control_database, tmp_path)
    async with running_control(dev, control_database):
        pass
    config = make_config(control_database, tmp_path, mode="production")
    async with running_control(config, control_database) as control:
        nowhere = await control.get("/api/auth/elsewhere")
        for path in ("/api/auth/start", "/api/auth/callback", "/dev/issuer/authorize", "/dev/issuer/jwks"):
            assert refusal(await control.get(path)) == refusal(nowhere) == (404, "not_found")
        for path in ("/api/auth/exchange", "/api/auth/dev/sign-in", "/dev/issuer/token"):
            assert refusal(await control.post(path, {})) == (404, "not_found")
        assert (await control.http.get("/.well-known/jwks.json")).status_code == 200
        assert (await control.rows("SELECT count(*) AS n FROM control.sessions"))[0]["n"] == 0


async def test_production_makes_no_key(control_database: Database, tmp_path: Path) -> None:
    """Without its key ring the service refuses to start and leaves no file; dev mode makes one, 0600."""
    config = make_config(control_database, tmp_path, mode="production")
    with pytest.raises(ConfigRefused) as refused:
        await serve_control(config)
    assert "signing_keys_file" in refused.value.errors[0]
    assert os.listdir(tmp_path) == []
    dev = make_config(control_database, tmp_path)
    async with running_control(dev, control_database):
        assert stat.S_IMODE(os.stat(dev.signing_keys_file).st_mode) == 0o600
        assert os.listdir(tmp_path) == [dev.signing_keys_file.name]


async def test_credentials_that_are_none_are_refused(control_database: Database, tmp_path: Path) -> None:
    """Every wrong service credential is named at once, and none is quoted."""
    config = attrs.evolve(
        make_config(control_database, tmp_path),
        node_credential=Secret("guess-me"),
        runtime_credential=Secret("x"),
    )
    with pytest.raises(ConfigRefused) as refused:
        await serve_control(config)
    assert [error.partition(":")[0] for error in refused.value.errors] == [
        "control.node_credential",
        "control.runtime_credential",
    ]
    assert "guess-me" not in str(refused.value)


async def test_tokens_survive_a_restart(control_database: Database, tmp_path: Path) -> None:
    """The ring and the sessions are on disk: a token of the process before is good in the next."""
    config = make_config(control_database, tmp_path)
    async with running_control(config, control_database) as before:
        person = await before.sign_in()
        jti = (await before.mint(person.access_token, f"user:{person.user_id}:runs")).json()["jti"]
        await before.post("/api/auth/logout", {}, (await before.sign_in("bob")).access_token)
    async with running_control(config, control_database) as after:
        assert (await after.get("/api/auth/session", person.access_token)).json() == person.session
        rows = await after.rows("SELECT session_id FROM control.audit_log WHERE jti = $1", jti)
        assert rows == [{"session_id": person.session_id}]


def test_readiness_follows_the_database(tmp_path: Path) -> None:
    """200, 503 within 3 s of the database's end, 200 within 5 s of its return; alive all the time."""
    with running_cluster(tmp_path / "cluster") as cluster:
        # Not `cluster.database`: its administrator's connection does not outlive the restart.
        dsns = bootstrap_roles(cluster.server, database="ready")
        database = Database("ready", dsns, cluster.server.superuser_dsn("ready"), cluster)
        trio.run(migrate_plane, "control", database.dsn("khala_control_owner"))
        trio.run(_lose_and_regain_the_database, cluster, database, make_config(database, tmp_path))


async def _lose_and_regain_the_database(
    cluster: PostgresTestCluster, database: Database, config: ControlConfig
) -> None:
    async with running_control(config, database) as control:

        async def wait_for(status: int, *, within_s: float) -> None:
            with trio.fail_after(within_s):
                while (await control.http.get("/readyz")).status_code != status:  # a probe asks again
                    await trio.sleep(0.1)

        await wait_for(200, within_s=3)
        await trio.to_thread.run_sync(stop_server, cluster.server)
        await wait_for(503, within_s=3)
        assert (await control.http.get("/healthz")).status_code == 200
        assert refusal(await control.walk_sign_in()) == (503, "unavailable")
        restart = partial(start_server, cluster.server.cluster, port=cluster.server.port)
        cluster.server = await trio.to_thread.run_sync(restart)
        await wait_for(200, within_s=5)
        await control.sign_in()


async def test_not_ready_before_migration(empty_database: Database, tmp_path: Path) -> None:
    """A service whose schema is missing runs, says why it is not ready, and is ready after migrating."""
    config = make_config(empty_database, tmp_path)
    async with running_control(config, empty_database) as control:
        answer = await control.http.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["migration"]) == (503, "migration_required")
        report = await migrate(empty_database.dsn("khala_control_owner"))
        assert report.revision == len(report.applied) > 0
        assert (await migrate(Secret(empty_database.dsn("khala_control_owner")))).applied == ()
        await trio.sleep(0.3)
        assert (await control.http.get("/readyz")).status_code == 200


def _environment(config: dict[str, str]) -> dict[str, str]:
    paths = [ROOT, ROOT / "proto", ROOT / "khala" / "client", ROOT / "khala" / "service"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KHALA_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(map(str, paths)), **config}


def test_the_command(empty_database: Database, tmp_path: Path) -> None:
    """`python -m control migrate` twice, then `serve`: it prints its port, answers, and ends by SIGTERM."""
    command = [sys.executable, "-m", "control"]
    owner = {"KHALA_MIGRATE_CONTROL_OWNER_DSN": empty_database.dsn("khala_control_owner")}
    for _ in range(2):
        done = subprocess.run([*command, "migrate"], env=_environment(owner), capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
    config = make_config(empty_database, tmp_path)
    env = {
        "KHALA_CONTROL_DATABASE_DSN": config.database_dsn.reveal(),
        "KHALA_CONTROL_RUNTIME_URL": config.runtime_url,
        "KHALA_CONTROL_SERVICE_CREDENTIAL": config.service_credential.reveal(),
        "KHALA_CONTROL_RUNTIME_CREDENTIAL": config.runtime_credential.reveal(),
        "KHALA_CONTROL_NODE_CREDENTIAL": config.node_credential.reveal(),
        "KHALA_CONTROL_SIGNING_KEYS_FILE": str(config.signing_keys_file),
        "KHALA_CONTROL_PORT": "0",
    }
    refused = subprocess.run([*command, "serve"], env=_environment(env), capture_output=True, timeout=60)
    assert refused.returncode == EXIT_REFUSED
    assert b"signing_keys_file" in refused.stderr
    served = subprocess.Popen(
        [*command, "serve"],
        env=_environment({**env, "KHALA_CONTROL_MODE": "dev"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert served.stdout is not None
        port = int(served.stdout.readline())
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    finally:
        served.send_signal(signal.SIGTERM)
        _, errors = served.communicate(timeout=20)
    assert served.returncode == 0, errors


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({}, EXIT_REFUSED, "control.database_dsn: required"),
        ({"KHALA_CONTROL_MODE": "test"}, EXIT_REFUSED, "control.mode"),
        ({"KHALA_CONTROL_SYNC_TOKEN_TTL_S": "901"}, EXIT_REFUSED, "control.sync_token_ttl_s"),
        ({"KHALA_CONTROL_NOTHING": "1"}, EXIT_REFUSED, "KHALA_CONTROL_NOTHING: unknown variable"),
    ],
)
def test_refused_configuration(variables: dict[str, str], code: int, said: str) -> None:
    """Exit 78, every error named, nothing started."""
    done = subprocess.run(
        [sys.executable, "-m", "control", "serve"],
        env=_environment(variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code
    assert said in done.stderr
    assert "control.node_credential: required" in done.stderr


def test_migration_without_a_database() -> None:
    """Exit 1 and one line, no stack trace."""
    variables = {"KHALA_MIGRATE_CONTROL_OWNER_DSN": "postgresql://nobody:x@127.0.0.1:9/none"}
    done = subprocess.run(
        [sys.executable, "-m", "control", "migrate"],
        env=_environment(variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == EXIT_FAILED
    assert done.stderr.splitlines() == ["Unavailable: database_unreachable"]


def test_dev_mode_is_for_loopback(tmp_path: Path, control_database: Database) -> None:
    """In dev mode everybody who can connect can be anybody: other addresses are refused."""
    dev = make_config(control_database, tmp_path)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert attrs.evolve(dev, host=host).is_dev
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):  # noqa: S104 - what is refused
        with pytest.raises(ValueError, match="loopback"):
            attrs.evolve(dev, host=host)
        assert not attrs.evolve(dev, host=host, mode="production").is_dev


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"identity_provider": "development"}, "dev mode only"),
        ({"identity_provider": "oidc"}, "needs oidc_issuer"),
        (
            {"identity_provider": "workos", "workos_client_id": "c"},
            "needs workos_client_id and workos_api_key",
        ),
        (
            {"identity_provider": "oidc", "oidc_issuer": "https://id.example", "oidc_client_id": "c"},
            "over https",
        ),
    ],
)
def test_a_provider_is_configured_whole_or_not_at_all(
    tmp_path: Path, control_database: Database, changes: dict[str, Any], problem: str
) -> None:
    """In production: no development issuer, no provider without its client, no sign-in over plain HTTP."""
    production = make_config(control_database, tmp_path, mode="production")
    assert production.provider == "none"
    with pytest.raises(ValueError, match=problem):
        attrs.evolve(production, **changes)


async def test_an_address_in_use(control: ControlRig) -> None:
    """A second service on the same port fails at once and says so."""
    taken = control.http.base_url.port
    assert taken is not None
    config = attrs.evolve(control.config, port=taken)
    with pytest.raises(BaseException) as failed:  # noqa: PT011 - a group around OSError
        async with open_asyncio_loop():
            await serve_control(config)
    assert failed.group_contains(OSError) or isinstance(failed.value, OSError)
