"""Who may read which topic, by which right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.principals import OrgRole
from control.core.rights import (
    KEY_CLASSES,
    OWNED_BY_RUNTIME,
    PERSON_RULES,
    Decision,
    Denied,
    Granted,
    TopicOwner,
    can_ever_grant,
    decide_grants,
    topics_with_owners,
)
from control.core.topic_patterns import parse_pattern
from khala_contracts.sync_claims import GrantBasis, TopicGrant
from khala_contracts.topics import TOPIC_CLASSES, ParsedTopic
from tests.unit.control.samples import (
    ACME,
    ANN,
    BOB,
    DEVICE,
    OTHER,
    OTHER_DEVICE,
    RUN,
    WORKER,
    make_id,
    make_key,
    make_person,
    topic,
)

ANNS, BOBS = TopicOwner(ANN, None), TopicOwner(BOB, None)
ACMES, OTHERS = TopicOwner(BOB, ACME), TopicOwner(BOB, OTHER)


def _basis(decision: Decision) -> tuple[GrantBasis, str | None] | None:
    if isinstance(decision, Denied):
        return None
    (grant,) = decision.grants
    return grant.basis, grant.org_id


OWNER, DEVICE_BASIS = (GrantBasis.OWNER, None), (GrantBasis.DEVICE, None)
MEMBER, ADMIN, KEY = (GrantBasis.ORG_MEMBER, ACME), (GrantBasis.ORG_ADMIN, ACME), (GrantBasis.KEY, ACME)


def test_every_class_of_the_registry_has_a_rule() -> None:
    """A class that is added to the registry is granted to nobody until somebody decides to whom."""
    assert set(PERSON_RULES) == set(TOPIC_CLASSES)
    assert set(TOPIC_CLASSES) > KEY_CLASSES > OWNED_BY_RUNTIME


@pytest.mark.parametrize(
    ("name", "role", "owner", "expected"),
    [
        (RUN.name, None, ANNS, OWNER),
        (RUN.name, OrgRole.MEMBER, TopicOwner(ANN, ACME), OWNER),
        (RUN.name, OrgRole.MEMBER, ACMES, MEMBER),
        (RUN.name, OrgRole.OWNER, ACMES, MEMBER),
        (RUN.name, None, ACMES, None),
        (RUN.name, OrgRole.OWNER, BOBS, None),
        (RUN.name, OrgRole.OWNER, OTHERS, None),
        (RUN.name, OrgRole.OWNER, TopicOwner(None, None), None),
        (RUN.name, OrgRole.OWNER, TopicOwner("", ""), None),
        (RUN.name, OrgRole.OWNER, None, None),
        (WORKER.name, None, ANNS, OWNER),
        (WORKER.name, OrgRole.OWNER, ACMES, None),
        (WORKER.name, OrgRole.OWNER, None, None),
        (f"user:{ANN}:runs", None, None, OWNER),
        (f"user:{BOB}:runs", OrgRole.OWNER, None, None),
        (f"user:{ANN}:codex", None, None, OWNER),
        (f"user:{BOB}:codex", OrgRole.OWNER, None, None),
        (f"user:{ANN}:notifications", None, None, OWNER),
        (f"user:{BOB}:notifications", OrgRole.OWNER, None, None),
        (f"org:{ACME}:runs", OrgRole.MEMBER, None, MEMBER),
        (f"org:{ACME}:runs", None, None, None),
        (f"org:{OTHER}:runs", OrgRole.OWNER, None, None),
        (f"org:{ACME}:workers", OrgRole.MEMBER, None, MEMBER),
        (f"org:{OTHER}:workers", OrgRole.OWNER, None, None),
        (f"org:{ACME}:ops", OrgRole.OWNER, None, ADMIN),
        (f"org:{ACME}:ops", OrgRole.ADMIN, None, ADMIN),
        (f"org:{ACME}:ops", OrgRole.MEMBER, None, None),
        (f"org:{ACME}:ops", None, None, None),
        (f"org:{OTHER}:ops", OrgRole.OWNER, None, None),
        (f"device:{DEVICE}:inbox", None, None, DEVICE_BASIS),
        (f"device:{OTHER_DEVICE}:inbox", OrgRole.OWNER, None, None),
        (f"app:{ACME}:builds", OrgRole.MEMBER, None, MEMBER),
        (f"app:{ACME}:builds", None, None, None),
        (f"app:{OTHER}:builds", OrgRole.OWNER, None, None),
    ],
)
def test_what_a_person_may_read(
    name: str, role: OrgRole | None, owner: TopicOwner | None, expected: tuple[GrantBasis, str | None] | None
) -> None:
    """SPEC section 2, column "who may read", row by row."""
    parsed = topic(name)
    owners = {parsed.name: owner} if owner else {}
    assert _basis(decide_grants(make_person(role=role), [parsed], owners=owners)) == expected


def test_an_inbox_is_its_first_users() -> None:
    """Another user on a device of the same name has no right to its inbox."""
    inbox = topic(f"device:{DEVICE}:inbox")
    assert _basis(decide_grants(make_person(owns_inbox=False), [inbox], owners={})) is None


@pytest.mark.parametrize(
    ("name", "patterns", "owner", "expected"),
    [
        (RUN.name, (), TopicOwner(BOB, ACME), KEY),
        (RUN.name, (), ANNS, None),
        (RUN.name, (), OTHERS, None),
        (RUN.name, (), None, None),
        (RUN.name, ("run:*:events",), ACMES, KEY),
        (RUN.name, (RUN.name,), ACMES, KEY),
        (RUN.name, (f"run:{make_id('run', 2)}:events",), ACMES, None),
        (RUN.name, ("worker:*:events",), ACMES, None),
        (WORKER.name, (), TopicOwner(ANN, ACME), None),
        (WORKER.name, ("worker:*:events",), TopicOwner(ANN, ACME), KEY),
        (WORKER.name, ("worker:*:events",), TopicOwner(BOB, ACME), None),
        (WORKER.name, ("worker:*:events",), TopicOwner(ANN, OTHER), None),
        (WORKER.name, ("worker:*:events",), ANNS, None),
        (f"org:{ACME}:runs", (), None, KEY),
        (f"org:{ACME}:workers", (), None, KEY),
        (f"org:{OTHER}:runs", (), None, None),
        (f"org:{OTHER}:runs", ("org:*:runs",), None, None),
        (f"org:{ACME}:ops", (), None, None),
        (f"org:{ACME}:ops", ("org:*:ops",), None, KEY),
        (f"app:{ACME}:a", (), None, KEY),
        (f"app:{ACME}:a", (f"app:{ACME}:*",), None, KEY),
        (f"app:{ACME}:a", (f"app:{ACME}:b",), None, None),
        (f"app:{ACME}:a", (f"app:{ACME}:b", f"app:{ACME}:a"), None, KEY),
        (f"app:{OTHER}:a", ("app:*:*",), None, None),
        (f"user:{ANN}:runs", (), None, None),
        (f"user:{ANN}:runs", ("user:*:runs",), None, None),
        (f"device:{DEVICE}:inbox", ("device:*:inbox",), None, None),
    ],
)
def test_what_a_key_may_read(
    name: str,
    patterns: tuple[str, ...],
    owner: TopicOwner | None,
    expected: tuple[GrantBasis, str | None] | None,
) -> None:
    """Its patterns and its org must both agree; what belongs to users and devices is never a key's."""
    parsed = topic(name)
    owners = {parsed.name: owner} if owner else {}
    assert _basis(decide_grants(make_key(patterns=patterns), [parsed], owners=owners)) == expected


def test_all_or_nothing_in_the_order_asked() -> None:
    """The first denied topic of the request is named; grants come sorted, whatever the order."""
    good = [topic(f"app:{ACME}:{name}") for name in "cab"]
    bad = [topic(f"org:{OTHER}:runs"), topic(f"app:{OTHER}:x")]
    person = make_person()
    granted = decide_grants(person, good, owners={})
    assert granted == Granted(
        tuple(TopicGrant(topic(f"app:{ACME}:{name}").name, GrantBasis.ORG_MEMBER, ACME) for name in "abc")
    )
    assert decide_grants(person, [good[0], bad[1], good[1], bad[0]], owners={}) == Denied(bad[1].name)


def test_only_runs_and_workers_are_asked_about() -> None:
    """The runtime is asked for what it alone knows."""
    asked = [RUN, topic(f"user:{ANN}:runs"), WORKER, topic(f"org:{ACME}:runs")]
    assert topics_with_owners(asked) == (RUN.name, WORKER.name)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("run:*:events", True),
        (f"org:{ACME}:runs", True),
        ("app:*:*", True),
        (f"app:{OTHER}:*", False),
        (f"org:{OTHER}:ops", False),
        ("user:*:runs", False),
        (f"device:{DEVICE}:inbox", False),
    ],
)
def test_patterns_that_can_grant(pattern: str, expected: bool) -> None:
    """A pattern is useful iff its class is an org's and it names no other org."""
    assert can_ever_grant(parse_pattern(pattern), org_id=ACME) is expected


_numbers = st.integers(0, 3)
_topics = st.one_of(
    st.builds(lambda n: topic(f"run:{make_id('run', n)}:events"), _numbers),
    st.builds(lambda n: topic(f"worker:{make_id('wrk', n)}:events"), _numbers),
    st.builds(
        lambda n, c: topic(f"user:{make_id('usr', n)}:{c}"), _numbers, st.sampled_from(("runs", "codex"))
    ),
    st.builds(lambda n, c: topic(f"org:{make_id('org', n)}:{c}"), _numbers, st.sampled_from(("runs", "ops"))),
    st.builds(lambda n: topic(f"app:{make_id('org', n)}:x"), _numbers),
)
_owners = st.builds(
    TopicOwner,
    st.one_of(st.none(), st.builds(lambda n: make_id("usr", n), _numbers)),
    st.one_of(st.none(), st.builds(lambda n: make_id("org", n), _numbers)),
)


@given(
    asked=st.lists(_topics, min_size=1, max_size=6, unique_by=lambda parsed: parsed.name),
    owners=st.lists(_owners, min_size=6, max_size=6),
    role=st.one_of(st.none(), st.sampled_from(OrgRole)),
    by_key=st.booleans(),
)
def test_each_grant_names_a_right_that_holds(
    asked: list[ParsedTopic], owners: list[TopicOwner], role: OrgRole | None, by_key: bool
) -> None:
    """Whatever is granted follows from an id in the topic or its owner; a request is its topics, one by one."""
    principal = make_key() if by_key else make_person(role=role)
    known = {parsed.name: owner for parsed, owner in zip(asked, owners, strict=False)}
    decision = decide_grants(principal, asked, owners=known)
    alone = [decide_grants(principal, [parsed], owners=known) for parsed in asked]
    assert isinstance(decision, Granted) == all(isinstance(each, Granted) for each in alone)
    if isinstance(decision, Denied):
        return
    assert [grant.topic for grant in decision.grants] == sorted(parsed.name for parsed in asked)
    for grant in decision.grants:
        owner = known[grant.topic]
        match grant.basis:
            case GrantBasis.OWNER:
                assert not by_key
                assert ANN in grant.topic or owner.owner_user_id == ANN
            case GrantBasis.ORG_MEMBER:
                assert role is not None
                assert ACME in grant.topic or owner.org_id == ACME
            case GrantBasis.ORG_ADMIN:
                assert role in (OrgRole.OWNER, OrgRole.ADMIN)
                assert ACME in grant.topic
            case GrantBasis.KEY:
                assert by_key
                assert ACME in grant.topic or owner.org_id == ACME
            case GrantBasis.DEVICE:
                raise AssertionError
