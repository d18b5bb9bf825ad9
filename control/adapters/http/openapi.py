"""Control's routes in words, for /openapi.json. tests/contract/test_openapi.py: every route is here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from control.adapters.http.development_issuer import ISSUER_PATH
from control.adapters.http.sign_in import CALLBACK_PATH
from control.adapters.http.static_host import CLIENT
from control.core.static_files import ASSETS
from khala_contracts import http_messages as m
from khala_service.http_bodies import JSON
from khala_service.openapi import Access, Described

TITLE: Final = "Khala control"
_HTML: Final = ("text/html",)
_SCRIPT: Final = ("text/javascript",)

ROUTES: Final[Mapping[tuple[str, str], Described]] = MappingProxyType({
    ("GET", "/"): Described("The live page.", Access.PUBLIC, media=_HTML),
    ("GET", f"{ASSETS}<path:name>"): Described("A file of the page, named by its content.", Access.PUBLIC, media=("*/*",)),
    ("GET", "/manifest.json"): Described("The web app manifest.", Access.PUBLIC, media=(JSON,)),
    ("GET", "/sw.js"): Described("The service worker.", Access.PUBLIC, media=_SCRIPT),
    ("GET", CLIENT): Described("The client library for pages of other applications.", Access.PUBLIC, media=_SCRIPT),
    ("GET", "/.well-known/jwks.json"): Described("The public keys of tokens.", Access.PUBLIC, media=(JSON,)),
    ("GET", "/api/compat"): Described("What clients are accepted.", Access.PUBLIC, m.CompatResponse),
    ("GET", "/api/auth/start"): Described(
        "Begin a sign-in: sends the browser to the identity provider.", Access.PUBLIC, status=303,
        query={
            "device_id": "dev_...", "surface": "web, desktop or mobile.", "return_to": "Path to go to afterwards.",
            "login_hint": "Who is likely to sign in.", "loopback_port": "Of a command that waits for the sign-in.",
            "code_challenge": "Of that command.",
        },
    ),
    ("GET", CALLBACK_PATH): Described(
        "End of the sign-in: a cookie and a redirect for browsers, tokens for programs.",
        Access.PUBLIC, m.SessionTokens, media=_HTML,
        query={"state": "As sent.", "code": "Of the provider.", "error": "Of the provider."},
    ),
    ("POST", "/api/auth/exchange"): Described(
        "Exchange the code that a waiting command received.", Access.PUBLIC, m.SessionTokens, m.ExchangeCodeRequest
    ),
    ("POST", "/api/auth/refresh"): Described(
        "Exchange a refresh token, in the body or in the browser's cookie, for new tokens.",
        Access.PUBLIC, m.SessionTokens, m.RefreshRequest,
    ),
    ("POST", "/api/auth/logout"): Described("End this session.", Access.BEARER, m.LogoutResponse, m.LogoutRequest),
    ("GET", "/api/auth/session"): Described("Read the session in use.", Access.BEARER, m.Session),
    ("GET", "/api/auth/sessions"): Described(
        "List one's sessions.", Access.BEARER, m.ListSessionsResponse, query={"device_id": "Only of this device."}
    ),
    ("POST", "/api/auth/sessions/revoke"): Described(
        "End a session, those of a device, all others, or all.",
        Access.BEARER, m.RevokeSessionsResponse, m.RevokeSessionsRequest,
    ),
    ("POST", "/api/auth/revoke-subject"): Described(
        "End what a key minted for a user of its application.",
        Access.BEARER, m.RevokeSessionsResponse, m.RevokeSubjectRequest,
    ),
    ("POST", "/api/orgs"): Described("Make an org.", Access.BEARER, m.OrgMembership, m.CreateOrgRequest, status=201),
    ("GET", "/api/orgs"): Described("List one's orgs.", Access.BEARER, m.ListOrgsResponse),
    ("GET", "/api/orgs/<org_id>/members"): Described("List the members of an org.", Access.BEARER, m.ListMembersResponse),
    ("POST", "/api/orgs/<org_id>/members"): Described(
        "Add a member, or give one another role.", Access.BEARER, m.OrgMember, m.PutMemberRequest
    ),
    ("DELETE", "/api/orgs/<org_id>/members/<user_id>"): Described(
        "Remove a member, or leave.", Access.BEARER, m.RemoveMemberResponse
    ),
    ("POST", "/api/policy/evaluate"): Described(
        "Ask whether one may do something in an org.",
        Access.BEARER, m.EvaluatePolicyResponse, m.EvaluatePolicyRequest,
    ),
    ("POST", "/api/keys"): Described(
        "Make a service key; only this answer has its secret.",
        Access.BEARER, m.CreateKeyResponse, m.CreateKeyRequest, status=201,
    ),
    ("GET", "/api/keys"): Described(
        "List the keys of an org, without secrets.", Access.BEARER, m.ListKeysResponse, query={"org_id": "The org."}
    ),
    ("POST", "/api/keys/<key_id>/rotate"): Described(
        "Give a key another secret; the old one works for a while.",
        Access.BEARER, m.RotateKeyResponse, m.RotateKeyRequest,
    ),
    ("POST", "/api/keys/<key_id>/revoke"): Described("End a key.", Access.BEARER, m.RevokeKeyResponse),
    ("POST", "/api/sync/token"): Described(
        "Mint the token of one connection, for oneself or for a user of one's own application.",
        Access.BEARER, m.SyncTokenResponse, m.SyncTokenRequest,
    ),
    ("POST", "/internal/v1/sync-tokens/redeem"): Described(
        "Say of tokens whether these connections are the ones that they open.",
        Access.SERVICE, m.RedeemResponse, m.RedeemRequest,
    ),
    ("POST", "/internal/v1/principals/resolve"): Described(
        "Say whose a credential is.", Access.SERVICE, m.Principal, m.ResolvePrincipalRequest
    ),
    ("GET", "/internal/v1/orgs/<org_id>/members/<user_id>"): Described(
        "Read one member of an org.", Access.SERVICE, m.OrgMember
    ),
    ("GET", "/internal/v1/revocations"): Described(
        "Read the log of revocations.", Access.SERVICE, m.RevocationsResponse,
        query={"after": "Position after which the page starts.", "limit": "Most entries."},
    ),
    ("POST", "/internal/v1/audit"): Described(
        "Add a node's audit.", Access.SERVICE, m.AppendAuditResponse, m.AppendAuditRequest
    ),
    ("GET", "/internal/v1/audit"): Described(
        "Read the audit log.", Access.ADMIN, m.ListAuditResponse,
        query={
            "after": "Row after which the page starts.", "limit": "Most rows.", "connection_id": "Only of this.",
            "request_id": "Only of this.", "session_id": "Only of this.", "user_id": "Only of this.",
            "action": "Only this.", "from": "Unix milliseconds.", "before": "Unix milliseconds.",
        },
    ),
    ("GET", f"{ISSUER_PATH}/.well-known/openid-configuration"): Described(
        "The development issuer: where its ends are.", Access.PUBLIC, media=(JSON,)
    ),
    ("GET", f"{ISSUER_PATH}/jwks"): Described("The development issuer: its public keys.", Access.PUBLIC, media=(JSON,)),
    ("GET", f"{ISSUER_PATH}/authorize"): Described(
        "The development issuer: believes whoever says a name.", Access.PUBLIC, media=_HTML
    ),
    ("POST", f"{ISSUER_PATH}/token"): Described(
        "The development issuer: exchanges a code.", Access.PUBLIC, media=(JSON,)
    ),
})  # fmt: skip
