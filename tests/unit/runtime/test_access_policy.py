"""Who may read and write which topic: every class, from both sides."""

from __future__ import annotations

import pytest

from khala_contracts import topics as t
from khala_contracts.topics import TOPIC_CLASSES, TopicName, parse_topic
from runtime.core.access_policy import (
    Ownership,
    can_append,
    can_read,
    can_transfer,
    choose_org,
    matches_pattern,
    may_create_runs,
    may_list_runs,
)
from runtime.core.principals import Principal, Right
from tests.actors.runtime.rig import ORG, OTHER_USER, USER, make_id, person, service_key

RUN = t.format_run_events(make_id("run", 1))
WORKER = t.format_worker_events(make_id("wrk", 1))
NOBODY = Ownership(None, None)
MINE = Ownership(USER, None)
OURS = Ownership(OTHER_USER, ORG)
THEIRS = Ownership(OTHER_USER, make_id("org", 9))
MEMBER, ADMIN = person(org_roles={ORG: "member"}), person(org_roles={ORG: "admin"})


@pytest.mark.parametrize(
    ("topic", "ownership", "reader", "stranger"),
    [
        (RUN, MINE, person(), person(OTHER_USER)),
        (RUN, OURS, MEMBER, person()),
        (WORKER, MINE, person(), person(OTHER_USER, {ORG: "owner"})),
        (WORKER, Ownership(USER, ORG), person(), person(OTHER_USER, {ORG: "owner"})),
        (t.format_user_runs(USER), NOBODY, person(), person(OTHER_USER)),
        (t.format_user_codex(USER), NOBODY, person(), person(OTHER_USER)),
        (t.format_notifications(USER), NOBODY, person(), person(OTHER_USER)),
        (t.format_org_runs(ORG), NOBODY, MEMBER, person()),
        (t.format_org_workers(ORG), NOBODY, MEMBER, person()),
        (t.format_org_ops(ORG), NOBODY, ADMIN, MEMBER),
        (t.format_org_ops(ORG), NOBODY, person(org_roles={ORG: "owner"}), person()),
        (t.format_app(ORG, "a"), NOBODY, MEMBER, person()),
        (t.format_device_inbox("dev_00000000"), NOBODY, person(), service_key(Right.READ)),
        (RUN, OURS, service_key(Right.READ), service_key(Right.PUBLISH)),
        (RUN, OURS, service_key(Right.READ), service_key(Right.READ, org_id=make_id("org", 9))),
        (t.format_org_runs(ORG), NOBODY, service_key(Right.READ), service_key(Right.READ, org_id=make_id("org", 9))),
    ],
)  # fmt: skip
def test_readers(topic: TopicName, ownership: Ownership, reader: Principal, stranger: Principal) -> None:
    """SPEC section 2, column "who may read"."""
    assert can_read(reader, parse_topic(topic), ownership)
    assert not can_read(stranger, parse_topic(topic), ownership)


def test_every_class_is_covered() -> None:
    """A topic of every class is closed to a principal that has nothing to do with it."""
    samples = [
        RUN, WORKER, t.format_user_runs(USER), t.format_user_codex(USER), t.format_notifications(USER),
        t.format_org_runs(ORG), t.format_org_workers(ORG), t.format_org_ops(ORG), t.format_app(ORG, "a"),
        t.format_device_inbox("dev_11111111"),
    ]  # fmt: skip
    parsed = [parse_topic(name) for name in samples]
    assert {topic.topic_class.name for topic in parsed} == set(TOPIC_CLASSES)
    stranger = person(make_id("usr", 7), {make_id("org", 7): "owner"})
    for topic in parsed:
        assert not can_read(stranger, topic, THEIRS)
        assert not can_append(stranger, topic, THEIRS)
        assert not can_read(stranger, topic, NOBODY)


def test_rights_of_keys() -> None:
    """Publish and read are two rights; neither gives the other."""
    topic = parse_topic(RUN)
    assert can_append(service_key(Right.PUBLISH), topic, OURS)
    assert not can_append(service_key(Right.READ), topic, OURS)
    assert not can_read(service_key(Right.PUBLISH), topic, OURS)
    assert not can_read(service_key(Right.WORK, Right.MINT), topic, OURS)
    assert can_append(MEMBER, topic, OURS)


def test_keys_work_for_their_org() -> None:
    """What a key's creator owns outside the org is not the key's to see or write."""
    both = service_key(Right.READ, Right.PUBLISH)
    for ownership, is_allowed in ((MINE, False), (THEIRS, False), (OURS, True), (NOBODY, False)):
        assert can_read(both, parse_topic(RUN), ownership) is is_allowed
        assert can_append(both, parse_topic(RUN), ownership) is is_allowed


def test_keys_never_reach_users_and_devices() -> None:
    """Topics of a user or a device belong to no org: a key's creator does not open them."""
    own = [t.format_user_runs(USER), t.format_user_codex(USER), t.format_notifications(USER)]
    for name in own:
        for patterns in ((), (name,), ("user:*:runs", "user:*:codex", "user:*:notifications")):
            assert not can_read(service_key(Right.READ, patterns=patterns), parse_topic(name), NOBODY)


def test_unnamed_classes_of_keys() -> None:
    """Without patterns a key sees what members see; workers and operations must be named."""
    worker = parse_topic(WORKER)
    assert not can_read(service_key(Right.READ), worker, Ownership(USER, ORG))
    named = service_key(Right.READ, patterns=("worker:*:events",))
    assert can_read(named, worker, Ownership(USER, ORG))
    assert not can_read(named, worker, Ownership(OTHER_USER, ORG))
    assert not can_read(named, worker, MINE)
    assert can_read(service_key(Right.READ), parse_topic(t.format_app(ORG, "a")), NOBODY)


def test_a_key_sees_its_org_and_not_its_creator() -> None:
    """Runs and workers that the key's creator owns outside the key's org are closed to the key."""
    for name, patterns in ((RUN, ()), (RUN, ("run:*:events",)), (WORKER, ("worker:*:events",))):
        key = service_key(Right.READ, Right.PUBLISH, patterns=patterns)
        assert not can_read(key, parse_topic(name), MINE)
        assert not can_append(key, parse_topic(name), Ownership(USER, make_id("org", 9)))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        (RUN, True),
        ("run:*:events", True),
        ("run:*", False),
        ("*:*:*", True),
        ("*", False),
        ("run:*:event", False),
        ("worker:*:events", False),
        (t.format_run_events(make_id("run", 2)), False),
        ("", False),
    ],
)
def test_patterns(pattern: str, matches: bool) -> None:  # a column of the table
    """A star stands for one id, never for a separator or a part of one."""
    assert matches_pattern(parse_topic(RUN), pattern) is matches
    key = service_key(Right.READ, patterns=(pattern,))
    assert can_read(key, parse_topic(RUN), OURS) is matches


def test_org_of_a_new_run() -> None:
    """A person's run is its own unless it names an org of its; a key's run belongs to the key's org."""
    assert choose_org(person(org_roles={ORG: "member"}), "") is None
    assert choose_org(person(org_roles={ORG: "member"}), ORG) == ORG
    assert choose_org(service_key(Right.PUBLISH), "") == ORG
    for principal in (person(), service_key(Right.PUBLISH)):
        with pytest.raises(PermissionError):
            choose_org(principal, make_id("org", 9))


def test_creating_and_listing() -> None:
    """Keys need the right, and must not be limited to topics that are named."""
    assert may_create_runs(person())
    assert may_list_runs(person())
    named, any_run = (RUN,), ("run:*:events",)
    assert may_create_runs(service_key(Right.PUBLISH))
    assert may_create_runs(service_key(Right.PUBLISH, patterns=any_run))
    assert not may_create_runs(service_key(Right.PUBLISH, patterns=named))
    assert not may_create_runs(service_key(Right.READ))
    assert may_list_runs(service_key(Right.READ))
    assert may_list_runs(service_key(Right.READ, patterns=any_run))
    assert not may_list_runs(service_key(Right.READ, patterns=named))
    assert not may_list_runs(service_key(Right.PUBLISH))


@pytest.mark.parametrize(
    ("principal", "ownership", "may"),
    [
        (person(), MINE, True),
        (person(), OURS, False),
        (MEMBER, OURS, False),
        (ADMIN, OURS, True),
        (person(org_roles={ORG: "owner"}), OURS, True),
        (ADMIN, THEIRS, False),
        (ADMIN, Ownership(OTHER_USER, None), False),
        (service_key(*Right), Ownership(USER, ORG), False),
    ],
)
def test_transfers(principal: Principal, ownership: Ownership, may: bool) -> None:  # a column of the table
    """SEC-12: the owner, and who administers the run's own org; never a key, whoever made it."""
    assert can_transfer(principal, ownership) is may
