"""Roles and changes of members."""

from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from control.core.org_policy import (
    ALLOWED,
    MEMBERS_MAX,
    MemberChange,
    OrgAction,
    check_change,
    check_name,
    check_reader,
    is_allowed,
    parse_action,
    parse_role,
)
from control.core.principals import OrgRole
from control.core.refusals import Refused

OWNER, ADMIN, MEMBER = OrgRole.OWNER, OrgRole.ADMIN, OrgRole.MEMBER
TABLE = """
         org.read members.read runs.read runs.create ops.read keys.manage members.manage owners.manage
owner    x        x            x         x           x        x           x              x
admin    x        x            x         x           x        x           x              -
member   x        x            x         x           -        -           -              -
none     -        -            -         -           -        -           -              -
"""


def _rows() -> list[tuple[OrgRole | None, OrgAction, bool]]:
    heading, *lines = (line.split() for line in TABLE.strip().splitlines())
    actions = [parse_action(name) for name in heading]
    return [
        (None if line[0] == "none" else parse_role(line[0]), action, mark == "x")
        for line in lines
        for action, mark in zip(actions, line[1:], strict=True)
    ]


@pytest.mark.parametrize(("role", "action", "expected"), _rows())
def test_the_matrix(role: OrgRole | None, action: OrgAction, expected: bool) -> None:
    """Four roles by eight actions: exactly the table."""
    assert is_allowed(role, action) is expected


def test_the_matrix_is_whole() -> None:
    """No role and no action is missing from the table above."""
    assert {(role, action) for role, action, _ in _rows()} == {
        (role, action) for role in ALLOWED for action in OrgAction
    }


def _refusal(change: MemberChange) -> str:
    try:
        check_change(change)
    except Refused as refused:
        return refused.cause
    return ""


BASE = MemberChange(ADMIN, None, MEMBER, is_own=False, owner_count=1, member_count=2)


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({}, ""),
        ({"actor_role": None}, "org_unknown_or_foreign"),
        ({"actor_role": MEMBER}, "role_does_not_allow"),
        ({"new_role": ADMIN}, ""),
        ({"new_role": OWNER}, "role_does_not_allow"),
        ({"actor_role": OWNER, "new_role": OWNER}, ""),
        ({"old_role": MEMBER, "new_role": None}, ""),
        ({"new_role": None}, "no_such_member"),
        ({"old_role": OWNER, "new_role": None, "owner_count": 2}, "role_does_not_allow"),
        ({"actor_role": OWNER, "old_role": OWNER, "new_role": None, "owner_count": 2}, ""),
        ({"actor_role": OWNER, "old_role": OWNER, "new_role": None}, "invalid_argument.role"),
        (
            {"actor_role": OWNER, "old_role": OWNER, "new_role": ADMIN, "is_own": True},
            "invalid_argument.role",
        ),
        ({"actor_role": OWNER, "old_role": OWNER, "new_role": OWNER}, ""),
        ({"actor_role": MEMBER, "old_role": MEMBER, "new_role": None, "is_own": True}, ""),
        (
            {"actor_role": MEMBER, "old_role": MEMBER, "new_role": ADMIN, "is_own": True},
            "role_does_not_allow",
        ),
        ({"actor_role": ADMIN, "old_role": ADMIN, "new_role": OWNER, "is_own": True}, "role_does_not_allow"),
        ({"member_count": MEMBERS_MAX - 1}, ""),
        ({"member_count": MEMBERS_MAX}, "invalid_argument.user_id"),
        ({"member_count": MEMBERS_MAX, "old_role": MEMBER, "new_role": ADMIN}, ""),
    ],
)
def test_changes_of_members(changed: dict[str, Any], cause: str) -> None:
    """Who may add, promote, demote and remove whom; the last owner stays; the bound at N and N + 1."""
    assert _refusal(attrs.evolve(BASE, **changed)) == cause


@given(
    st.builds(
        MemberChange,
        actor_role=st.sampled_from([None, *OrgRole]),
        old_role=st.sampled_from([None, *OrgRole]),
        new_role=st.sampled_from([None, *OrgRole]),
        is_own=st.booleans(),
        owner_count=st.integers(1, 3),
        member_count=st.integers(1, 5),
    )
)
def test_nobody_raises_anybody_above_the_own_role(change: MemberChange) -> None:
    """What is allowed never gives a role above the actor's, nor takes one above it, nor leaves no owner."""
    assume(not change.is_own or change.actor_role is change.old_role)
    rank = {None: 0, MEMBER: 1, ADMIN: 2, OWNER: 3}
    if _refusal(change):
        return
    assert rank[change.new_role] <= rank[change.actor_role]
    is_last_owner_leaving = (
        change.old_role is OWNER and change.new_role is not OWNER and change.owner_count == 1
    )
    assert not is_last_owner_leaving
    assert change.shrinks_rights == (rank[change.new_role] < rank[change.old_role])


@pytest.mark.parametrize(
    ("name", "is_good"), [("acme", True), ("a" * 256, True), ("a" * 257, False), ("", False)]
)
def test_names_are_bounded(name: str, is_good: bool) -> None:
    """1..256 bytes."""
    _judge_name(name, is_good)


@pytest.mark.parametrize("name", [" acme", "acme ", "a\nb", "a\x00b"])
def test_names_are_printable(name: str) -> None:
    """No space around, no control character."""
    _judge_name(name, is_good=False)


def _judge_name(name: str, is_good: bool) -> None:
    if is_good:
        check_name(name)
        return
    with pytest.raises(Refused) as caught:
        check_name(name)
    assert caught.value.details["field"] == "name"


def test_reading_needs_a_role() -> None:
    """A stranger learns nothing, a member without the right is refused."""
    check_reader(MEMBER, OrgAction.MEMBERS_READ)
    for role, action, code in (
        (None, OrgAction.ORG_READ, "not_found"),
        (MEMBER, OrgAction.OPS_READ, "forbidden"),
    ):
        with pytest.raises(Refused) as caught:
            check_reader(role, action)
        assert caught.value.code.name == code


@pytest.mark.parametrize("parse", [parse_role, parse_action])
def test_unknown_words_are_refused(parse: object) -> None:
    """Roles and actions are closed sets, spelled exactly."""
    assert callable(parse)
    for text in ("", "Owner", "root", "org.read "):
        with pytest.raises(Refused):
            parse(text)
