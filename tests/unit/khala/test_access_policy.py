"""Who may follow what: every class with every right, matching and not."""

from typing import Any

import attrs
import pytest

from khala.core.access_policy import AUTHORITY_OWNED_CLASSES, find_grant, is_allowed
from khala.core.classification import HeadRights
from khala_contracts.sync_claims import GrantBasis, SyncClaims, TopicGrant
from khala_contracts.topics import TOPIC_CLASSES, ParsedTopic, parse_topic
from tests.topic_log import DEVICE, ORG, OTHER_USER, USER, claims_for, run_topic

OTHER_ORG = f"org_{2:026d}"
NOBODY = HeadRights(None, None)
IDS = {
    "run_id": f"run_{1:026d}",
    "worker_id": f"wrk_{1:026d}",
    "user_id": USER,
    "org_id": ORG,
    "device_id": DEVICE,
    "name": "board",
}
ORG_RIGHTS = (GrantBasis.ORG_MEMBER, GrantBasis.ORG_ADMIN, GrantBasis.KEY)


def _topic(class_name: str) -> ParsedTopic:
    return parse_topic(TOPIC_CLASSES[class_name].pattern.format(**IDS))


def _granted(topic: ParsedTopic, basis: GrantBasis) -> tuple[SyncClaims, TopicGrant]:
    claims = claims_for(topic, basis=basis)
    return claims, claims.grants[0]


def test_a_grant_is_found_by_the_exact_name() -> None:
    """Names compare as bytes; another topic's grant is none."""
    claims = claims_for(run_topic(1), run_topic(2))
    assert find_grant(claims, run_topic(2).name) == claims.grants[1]
    assert find_grant(claims, run_topic(3).name) is None
    assert find_grant(claims_for(), run_topic(1).name) is None


@pytest.mark.parametrize("class_name", sorted(AUTHORITY_OWNED_CLASSES))
@pytest.mark.parametrize(
    ("basis", "rights", "is_granted"),
    [
        (GrantBasis.OWNER, HeadRights(USER, None), True),
        (GrantBasis.OWNER, HeadRights(USER, OTHER_ORG), True),
        (GrantBasis.OWNER, HeadRights(OTHER_USER, ORG), False),
        (GrantBasis.OWNER, HeadRights(None, ORG), False),
        *((basis, HeadRights(OTHER_USER, ORG), True) for basis in ORG_RIGHTS),
        *((basis, HeadRights(USER, OTHER_ORG), False) for basis in ORG_RIGHTS),
        *((basis, HeadRights(USER, None), False) for basis in ORG_RIGHTS),
        (GrantBasis.DEVICE, HeadRights(USER, ORG), False),
    ],
)
def test_the_head_row_must_agree(
    class_name: str, basis: GrantBasis, rights: HeadRights, is_granted: bool
) -> None:
    """For runs and workers, the right that the token names must still stand on the head row."""
    topic = _topic(class_name)
    claims, grant = _granted(topic, basis)
    assert is_allowed(claims, grant, topic, rights, exists=True) is is_granted
    assert not is_allowed(claims, grant, topic, rights, exists=False)


@pytest.mark.parametrize("basis", list(GrantBasis))
def test_no_rights_on_the_head_row_is_nobody(basis: GrantBasis) -> None:
    """INV-16: absent never equals absent: a topic without owner and org is nobody's."""
    topic = run_topic()
    claims, grant = _granted(topic, basis)
    nameless = attrs.evolve(grant, org_id=None)
    assert not is_allowed(claims, grant, topic, NOBODY, exists=True)
    assert not is_allowed(claims, nameless, topic, NOBODY, exists=True)


_BY_NAME = {
    "user_runs": {GrantBasis.OWNER},
    "user_codex": {GrantBasis.OWNER},
    "notifications": {GrantBasis.OWNER},
    "device_inbox": {GrantBasis.DEVICE},
    "org_runs": set(ORG_RIGHTS),
    "org_workers": set(ORG_RIGHTS),
    "org_ops": set(ORG_RIGHTS),
    "app": set(ORG_RIGHTS),
}


def test_every_class_is_decided_somewhere() -> None:
    """A new row of the registry needs a line in one of the two tables."""
    assert set(_BY_NAME) | AUTHORITY_OWNED_CLASSES == set(TOPIC_CLASSES)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("basis", list(GrantBasis))
@pytest.mark.parametrize("class_name", sorted(_BY_NAME))
def test_the_name_must_agree(class_name: str, basis: GrantBasis, exists: bool) -> None:
    """The other classes are decided by the ids in the name, whether or not a frame exists."""
    topic = _topic(class_name)
    claims, grant = _granted(topic, basis)
    assert is_allowed(claims, grant, topic, NOBODY, exists=exists) is (basis in _BY_NAME[class_name])


@pytest.mark.parametrize(
    ("class_name", "basis", "change"),
    [
        ("user_runs", GrantBasis.OWNER, {"user_id": OTHER_USER}),
        ("device_inbox", GrantBasis.DEVICE, {"device_id": "dev_00000002"}),
    ],
)
def test_a_foreign_name_is_denied(class_name: str, basis: GrantBasis, change: dict[str, Any]) -> None:
    """A token that grants another user's or device's topic grants nothing."""
    topic = _topic(class_name)
    claims, grant = _granted(topic, basis)
    assert is_allowed(claims, grant, topic, NOBODY, exists=True)
    assert not is_allowed(attrs.evolve(claims, **change), grant, topic, NOBODY, exists=True)


@pytest.mark.parametrize("basis", ORG_RIGHTS)
def test_another_org_in_the_grant_is_denied(basis: GrantBasis) -> None:
    """The grant's org must be the topic's, not merely one of the user's."""
    topic = _topic("app")
    claims, grant = _granted(topic, basis)
    for org_id in (OTHER_ORG, None):
        assert not is_allowed(claims, attrs.evolve(grant, org_id=org_id), topic, NOBODY, exists=True)
