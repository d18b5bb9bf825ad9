"""WorkOS AuthKit as its documentation describes it: users, the authorisation URL, codes, PKCE, refusals.

Speaks the vendor's routes and bodies, and is wrong on request: away, failing, or answering for nobody.
"""

import base64
import hashlib
import json
from typing import Final
from urllib.parse import urlencode

import attrs
import trio
from quart import Response, jsonify, request

from khala_service.http_edge import make_app, read_bytes, serve
from khala_service.metrics import MetricsRegistry

CLIENT_ID: Final = "client_01TEST"
API_KEY: Final = "sk_test_0123456789"


@attrs.define
class AuthkitFake:
    """One application with its users; `port` once it serves."""

    redirect_uri: str
    users: dict[str, str] = attrs.field(factory=dict)
    port: int = 0
    status: int = 0
    user_is_missing: bool = False
    codes: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    # What it says beside the user.
    organization: dict[str, object] = attrs.field(factory=lambda: {"organization_id": "org_elsewhere"})

    @property
    def base_url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, *, drain: trio.Event, task_status: trio.TaskStatus[int]) -> None:
        """Answer until `drain`."""
        app = make_app("authkit", metrics=MetricsRegistry("fake", process_metrics=False), ready_checks={})

        @app.get("/user_management/authorize")
        async def authorize() -> Response:
            args = request.args
            assert args["client_id"] == CLIENT_ID
            assert args["provider"] == "authkit"
            assert (args["response_type"], args["code_challenge_method"]) == ("code", "S256")
            if args["redirect_uri"] != self.redirect_uri:
                return Response("redirect_uri not registered", 400)
            user_id = self.users.get(args.get("login_hint", ""))
            if user_id is None:
                query = urlencode({"error": "access_denied", "state": args["state"]})
            else:
                code = f"code_{len(self.codes)}"
                self.codes[code] = user_id, args["code_challenge"]
                query = urlencode({"code": code, "state": args["state"]})
            return Response(b"", 302, {"Location": f"{self.redirect_uri}?{query}"})

        @app.post("/user_management/authenticate")
        async def authenticate() -> Response:
            body = json.loads(await read_bytes())
            if self.status:
                return _answer({"message": "scripted"}, self.status)
            if (body["client_id"], body["client_secret"]) != (CLIENT_ID, API_KEY):
                return _answer({"error": "unauthorized"}, 401)
            user_id, challenge = self.codes.pop(body["code"], ("", ""))
            digest = hashlib.sha256(body["code_verifier"].encode()).digest()
            if (
                body["grant_type"] != "authorization_code"
                or challenge != base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            ):
                return _answer({"error": "invalid_grant", "error_description": "The code is invalid."}, 400)
            email = next(email for email, known in self.users.items() if known == user_id)
            user = {"object": "user", "id": user_id, "email": email, "email_verified": True}
            answer: dict[str, object] = {
                "user": user,
                "access_token": "x",
                "refresh_token": "y",
                **self.organization,
            }
            return _answer({} if self.user_is_missing else answer, 200)

        await serve(app, host="127.0.0.1", port=self.port, shutdown=drain, task_status=task_status)


def _answer(document: dict[str, object], status: int) -> Response:
    response = jsonify(document)
    response.status_code = status
    return response
