"""Unit tests of khala_service.http_cors: what pages of other origins are told."""

import pytest
from quart import Response
from quart_trio import QuartTrio

from khala_contracts import reason_codes
from khala_service.http_edge import EdgePolicy, HttpProblem, make_app
from khala_service.metrics import MetricsRegistry

PAGE = "https://app.example"
STRANGERS = [
    "https://app.example.evil.example",
    "https://evil.example",
    "https://APP.example",
    "https://app.example:8443",
    "http://app.example",
    "https://app.example/",
    "null",
    "*",
    "",
]


def _app(*, has_cookies: bool = True, origins: tuple[str, ...] = (PAGE, "https://b.example")) -> QuartTrio:
    app = make_app(
        "cors",
        metrics=MetricsRegistry("cors", process_metrics=False),
        ready_checks={},
        edge=EdgePolicy(cors_origins=origins, has_cookies=has_cookies),
    )

    @app.get("/v1/thing")
    async def thing() -> Response:
        return Response("thing", headers={"Vary": "Accept"})

    @app.post("/v1/refuse")
    async def refuse() -> Response:
        raise HttpProblem(reason_codes.RATE_LIMITED)

    @app.get("/public.js")
    async def public() -> Response:
        return Response("x", headers={"Access-Control-Allow-Origin": "*"})

    return app


def _cors(response: Response) -> dict[str, str]:
    return {n.title(): value for n, value in response.headers if n.lower().startswith("access-control-")}


@pytest.mark.parametrize("path", ["/v1/thing", "/v1/nothing", "/healthz"])
async def test_a_listed_origin_is_named_in_every_answer(path: str) -> None:
    """Refusals too, or a page could not read why; credentials as the service says."""
    for has_cookies in (True, False):
        response = await _app(has_cookies=has_cookies).test_client().get(path, headers={"Origin": PAGE})
        told = _cors(response)
        assert told["Access-Control-Allow-Origin"] == PAGE
        assert told.get("Access-Control-Allow-Credentials") == ("true" if has_cookies else None)
        assert "Retry-After" in told["Access-Control-Expose-Headers"]
        assert "origin" in {part.lower() for part in response.vary}


async def test_a_refused_request_can_be_read_by_the_page() -> None:
    """429 with its body for the listed origin."""
    response = await _app().test_client().post("/v1/refuse", headers={"Origin": PAGE})
    assert (response.status_code, _cors(response)["Access-Control-Allow-Origin"]) == (429, PAGE)


@pytest.mark.parametrize("origin", STRANGERS)
async def test_another_origin_is_told_nothing(origin: str) -> None:
    """No header for it, at a request as at a preflight; never a star."""
    client = _app().test_client()
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for response in (
        await client.get("/v1/thing", headers={"Origin": origin}),
        await client.options("/v1/thing", headers=asked),
    ):
        assert _cors(response) == {}
        assert "origin" in {part.lower() for part in response.vary}


async def test_an_answer_says_that_it_depends_on_the_origin_to_everybody() -> None:
    """Also without an Origin, or a cache would give that answer to a page; what a route varies on stays."""
    response = await _app().test_client().get("/v1/thing")
    assert _cors(response) == {}
    assert {part.lower() for part in response.vary} == {"accept", "origin"}


@pytest.mark.parametrize("path", ["/v1/thing", "/v1/refuse", "/v1/nothing"])
async def test_a_preflight_is_answered_alike_everywhere(path: str) -> None:
    """204 without asking a route; method, headers and how long that holds."""
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, idempotency-key",
    }
    response = await _app().test_client().options(path, headers=asked)
    assert (response.status_code, await response.get_data()) == (204, b"")
    told = _cors(response)
    assert told["Access-Control-Allow-Origin"] == PAGE
    assert told["Access-Control-Allow-Credentials"] == "true"
    assert "POST" in told["Access-Control-Allow-Methods"]
    for header in ("Authorization", "Idempotency-Key", "X-Request-Id"):
        assert header in told["Access-Control-Allow-Headers"]
    assert told["Access-Control-Max-Age"] == "600"


async def test_without_a_list_nobody_is_told_anything() -> None:
    """The default."""
    client = _app(origins=()).test_client()
    assert _cors(await client.get("/v1/thing", headers={"Origin": PAGE})) == {}


async def test_what_a_route_offers_to_every_page_stays_so() -> None:
    """A public file says it itself, and gets no credentials beside its star."""
    response = await _app().test_client().get("/public.js", headers={"Origin": PAGE})
    assert _cors(response) == {"Access-Control-Allow-Origin": "*"}
