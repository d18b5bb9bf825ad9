"""Routes of orgs, members and policy."""

from quart import Response
from quart_trio import QuartTrio

from control.actors.org_commands import OrgCommands
from control.adapters.http.messages import member_message, membership_message
from control.adapters.http.requests import presented_credential, request_id
from khala_contracts import http_messages as m
from khala_service.http_edge import read_body, respond


def add_org_routes(app: QuartTrio, commands: OrgCommands) -> None:
    """Register them."""

    @app.post("/api/orgs")
    async def create_org() -> Response:
        body = await read_body(m.CreateOrgRequest)
        org = await commands.create(presented_credential(), name=body.name, request_id=request_id())
        return respond(membership_message(org), 201)

    @app.get("/api/orgs")
    async def list_orgs() -> Response:
        orgs = await commands.list_orgs(presented_credential(), request_id=request_id())
        return respond(m.ListOrgsResponse(orgs=[membership_message(org) for org in orgs]))

    @app.get("/api/orgs/<org_id>/members")
    async def list_members(org_id: str) -> Response:
        members = await commands.list_members(presented_credential(), org_id=org_id, request_id=request_id())
        return respond(m.ListMembersResponse(members=[member_message(member) for member in members]))

    @app.post("/api/orgs/<org_id>/members")
    async def put_member(org_id: str) -> Response:
        body = await read_body(m.PutMemberRequest)
        member = await commands.put_member(
            presented_credential(),
            org_id=org_id,
            user_id=body.user_id,
            role=body.role,
            request_id=request_id(),
        )
        return respond(member_message(member))

    @app.delete("/api/orgs/<org_id>/members/<user_id>")
    async def remove_member(org_id: str, user_id: str) -> Response:
        await commands.remove_member(
            presented_credential(), org_id=org_id, user_id=user_id, request_id=request_id()
        )
        return respond(m.RemoveMemberResponse())

    @app.post("/api/policy/evaluate")
    async def evaluate() -> Response:
        body = await read_body(m.EvaluatePolicyRequest)
        is_allowed, role = await commands.evaluate(
            presented_credential(), org_id=body.org_id, action=body.action, request_id=request_id()
        )
        return respond(m.EvaluatePolicyResponse(allowed=is_allowed, role=role.value if role else ""))
