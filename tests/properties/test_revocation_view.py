"""The node's view of revocations against the log itself."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala.core.revocation_view import (
    Revocation,
    RevocationKind,
    RevocationPage,
    RevocationView,
)
from khala_contracts.sync_claims import GrantBasis, PrincipalKind, Surface, SyncClaims, TopicGrant
from khala_contracts.topics import TopicName

ISSUED_S = 1_000
NAMES = st.sampled_from("abc")
CLAIMS = SyncClaims(
    session_id="a",
    device_id="dev",
    user_id="a",
    org_ids=("a",),
    principal_kind=PrincipalKind.PERSON,
    principal_id="a",
    surface=Surface.WEB,
    jti="jti",
    issued_at_s=ISSUED_S,
    expires_at_s=ISSUED_S + 300,
    grants=(
        TopicGrant(TopicName("org:a:runs"), GrantBasis.ORG_MEMBER, "a"),
        TopicGrant(TopicName("org:b:runs"), GrantBasis.ORG_ADMIN, "b"),
        TopicGrant(TopicName("run:a:events"), GrantBasis.OWNER),
    ),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Revocation]:
    """A log of sessions, keys and memberships, from seq 1."""
    rows = []
    for seq in range(1, draw(st.integers(0, 12)) + 1):
        kind = draw(st.sampled_from(RevocationKind))
        at_ms = ISSUED_S * 1000 + draw(st.integers(-2, 2))
        match kind:
            case RevocationKind.SESSION:
                rows.append(Revocation(seq, kind, at_ms, session_id=draw(NAMES)))
            case RevocationKind.KEY:
                rows.append(Revocation(seq, kind, at_ms, key_id="key_" + draw(NAMES)))
            case RevocationKind.MEMBERSHIP:
                rows.append(Revocation(seq, kind, at_ms, org_id=draw(NAMES), user_id=draw(NAMES)))
    return rows


def read(log: list[Revocation], after: int, limit: int, floor: int = 1) -> RevocationPage:
    """Return the page that control would."""
    rows = [row for row in log if row.seq > after and row.seq >= floor][:limit]
    return RevocationPage(rows, len(log), floor)


def read_all(view: RevocationView, log: list[Revocation], limit: int) -> None:
    """Read to the head, page after page."""
    while not view.apply(read(log, view.applied_seq, limit)):
        pass


@given(log=logs(), limit=st.integers(1, 5), kind=st.sampled_from(PrincipalKind), principal=NAMES)
def test_judges_as_the_log_itself(
    log: list[Revocation], limit: int, kind: PrincipalKind, principal: str
) -> None:
    """Whatever the pages: ended iff session or key is in the log, an org lost iff since the token was made."""
    view = RevocationView()
    read_all(view, log, limit)
    claims = attrs.evolve(CLAIMS, principal_kind=kind, principal_id=f"key_{principal}")
    assert view.applied_seq == len(log)
    assert view.is_ended(claims) == any(
        row.session_id == claims.session_id or row.key_id == claims.principal_id for row in log
    )
    expected = {
        row.org_id
        for row in log
        if kind is PrincipalKind.PERSON
        and row.kind is RevocationKind.MEMBERSHIP
        and row.user_id == claims.user_id
        and row.org_id in {"a", "b"}
        and row.revoked_at_ms >= ISSUED_S * 1000
    }
    assert view.lost_orgs(claims) == expected


@given(log=logs().filter(len), gap=st.integers(1, 3))
def test_a_hole_is_refused_and_changes_nothing(log: list[Revocation], gap: int) -> None:
    """A page that does not continue what was applied is an error; the view stays as it was."""
    view = RevocationView()
    wrong = [attrs.evolve(row, seq=row.seq + gap) for row in log]
    with pytest.raises(ValueError, match="was due"):
        view.apply(RevocationPage(wrong, len(log) + gap, 1))
    assert (view.applied_seq, len(view)) == (0, 0)


def test_rows_below_the_floor_are_not_waited_for() -> None:
    """A node that starts late begins at the floor; one whose position fell below it goes on there."""
    row = Revocation(8, RevocationKind.SESSION, 1, session_id="a")
    view = RevocationView()
    assert view.apply(RevocationPage([row], 8, 8))
    assert view.applied_seq == 8
    assert view.apply(RevocationPage([], 20, 21))
    assert view.applied_seq == 20


def test_a_log_that_went_back_is_read_again() -> None:
    """After a restore of control's database nothing that had ended comes to life."""
    view = RevocationView()
    log = [Revocation(seq, RevocationKind.SESSION, 1, session_id=name) for seq, name in enumerate("ab", 1)]
    read_all(view, log, 10)
    restored = [log[0]]
    assert not view.apply(read(restored, view.applied_seq, 10))
    read_all(view, restored, 10)
    assert view.applied_seq == 1
    assert view.is_ended(attrs.evolve(CLAIMS, session_id="b"))


@pytest.mark.parametrize(("before_ms", "is_held"), [(5, True), (6, False)])
def test_rows_are_forgotten_by_their_age(before_ms: int, is_held: bool) -> None:
    """What ended at the given time is held, what ended before it is not; of all three kinds."""
    view = RevocationView()
    view.apply(
        RevocationPage(
            [
                Revocation(1, RevocationKind.SESSION, 5, session_id="a"),
                Revocation(2, RevocationKind.KEY, 5, key_id="k"),
                Revocation(3, RevocationKind.MEMBERSHIP, 5, org_id="o", user_id="u"),
            ],
            3,
            1,
        )
    )
    view.forget_before(before_ms)
    assert len(view) == (3 if is_held else 0)
