"""CT-16: a session comes from what an identity provider asserted, and from nothing else that control answers to."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import pytest
from quart_trio import QuartTrio

from control.adapters.http.application import make_control_app
from tests.integration.control.rig import DEVICE, ControlRig, bearer, make_config, running_control
from tests.postgres_cluster import ROOT, Database

BODIES: Final = [
    row["body"]
    for row in json.loads((ROOT / "proto/fixtures/control-auth-session-v1.json").read_text("utf-8"))["bodies"]
]
# What a way in has ever been asked with, here or elsewhere.
GUESSES: Final[tuple[dict[str, str], ...]] = (
    {"login": "ann", "device_id": DEVICE, "surface": "SURFACE_WEB"},
    {"username": "ann", "password": "ann"},
    {},
)
QUERY: Final = {
    "device_id": DEVICE, "surface": "web", "login_hint": "ann", "login": "ann", "user": "ann", "state": "s" * 43,
    "code": "c" * 43, "code_verifier": "v" * 43, "token": "t",
}  # fmt: skip
ONLY_IN_DEV: Final = "/dev/"
FORMER: Final = (
    "/api/auth/dev/sign-in",
    "/api/auth/dev/login",
    "/api/auth/login",
    "/api/auth/token",
    "/dev/login",
)


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> list[QuartTrio]:
    """The applications that control makes in this test, to read their routes."""
    made: list[QuartTrio] = []

    def keep(*args: Any, **kwargs: Any) -> QuartTrio:
        made.append(make_control_app(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr("control.app.make_control_app", keep)
    return made


def routes(app: QuartTrio) -> Iterator[tuple[str, str]]:
    """Yield method and path of everything that the application answers to."""
    for rule in app.url_map.iter_rules():
        path = rule.rule
        for name in rule.arguments:
            for form in (f"<{name}>", f"<path:{name}>", f"<string:{name}>"):
                path = path.replace(form, "key_01jgfjjz00e008000000000001")
        assert "<" not in path, rule.rule
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, path


def holds_session(answer: httpx.Response) -> bool:
    """Whether an answer gives its caller anything to be somebody with."""
    cookies = [cookie for cookie in answer.headers.get_list("set-cookie") if "khala_refresh=" in cookie]
    given = any(
        not cookie.startswith('khala_refresh=""') and "khala_refresh=;" not in cookie for cookie in cookies
    )
    return given or 'access_token":"' in answer.text or "khr_" in answer.text


async def knock(rig: ControlRig, method: str, path: str) -> list[httpx.Response]:
    """Ask one route in every way that needs no identity provider."""
    credentials: list[Mapping[str, str]] = [
        {},
        bearer("none"),
        bearer("khk_01jgfjjz00e008000000000001_" + "0" * 52),
        bearer("khr_" + "0" * 52),
        {"Cookie": "khala_sign_in=x; khala_refresh=khr_" + "0" * 52},
    ]
    answers = []
    for credential in credentials:
        for accept in ("application/json", "text/html"):
            headers = {**credential, "Accept": accept}
            if method == "GET":
                answers.append(await rig.http.get(path, params=QUERY, headers=headers))
    if method != "GET":
        bodies: list[object] = [*BODIES, *GUESSES]
        answers += [
            await rig.http.request(method, path, json=body, headers=credentials[0]) for body in bodies
        ]
        answers += [await rig.http.request(method, path, json={}, headers=given) for given in credentials]
    return answers


@pytest.mark.parametrize("mode", ["dev", "production"])
async def test_no_route_opens_a_session_without_an_identity(
    control_database: Database, tmp_path: Path, apps: list[QuartTrio], mode: Literal["dev", "production"]
) -> None:
    """Every route of either mode, every body of ours, made-up credentials: no session, in no answer and no table."""
    async with running_control(make_config(control_database, tmp_path), control_database):
        pass  # makes the key ring, which production does not
    async with running_control(make_config(control_database, tmp_path, mode=mode), control_database) as rig:
        known = list(routes(apps[-1]))
        assert len(known) >= 25
        assert ("POST", "/api/auth/refresh") in known
        for method, path in known:
            for answer in await knock(rig, method, path):
                assert not holds_session(answer), (method, path, answer.text)
        for table in ("sessions", "refresh_tokens", "users", "sign_in_codes"):
            assert await rig.rows(f"SELECT 1 FROM control.{table}") == [], table
        if mode == "dev":
            assert holds_session(await rig.walk_sign_in()), "the sweep would see one"


async def test_what_dev_mode_has_is_nowhere_in_production(
    control_database: Database, tmp_path: Path, apps: list[QuartTrio]
) -> None:
    """Routes that only dev mode has, and those that it once had, are 404 like any path that does not exist."""
    async with running_control(make_config(control_database, tmp_path), control_database):
        in_dev = set(routes(apps[-1]))
    config = make_config(control_database, tmp_path, mode="production")
    async with running_control(config, control_database) as rig:
        missing = sorted(in_dev - set(routes(apps[-1])))
        assert {path for _, path in missing if path.startswith(ONLY_IN_DEV)} >= {
            "/dev/issuer/authorize",
            "/dev/issuer/token",
        }
        for method, path in [
            *missing,
            *(("POST", path) for path in FORMER),
            *(("GET", path) for path in FORMER),
        ]:
            answer = await rig.http.request(method, path, params=QUERY, json=GUESSES[0])
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
