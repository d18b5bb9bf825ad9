"""Rows of control's tables as domain values and back. Times: timestamptz here, milliseconds there."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from control.core.principals import (
    KeyPrincipal,
    KeyRight,
    Membership,
    OrgRole,
    PersonPrincipal,
    SessionInfo,
)
from control.core.service_keys import KeyInfo, RetiredSecret
from control.core.topic_patterns import parse_pattern
from control.ports import KeyState
from khala_contracts.sync_claims import Surface
from khala_service.adapters.postgres import Row

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def to_time(milliseconds: int) -> datetime:
    """Return Unix milliseconds as the database's type."""
    return _EPOCH + milliseconds * _MS


def to_time_or_none(milliseconds: int | None) -> datetime | None:
    """Return Unix milliseconds as the database's type, None for NULL."""
    return None if milliseconds is None else to_time(milliseconds)


def to_ms(time: datetime) -> int:
    """Return a time of the database as Unix milliseconds, rounded down."""
    return (time - _EPOCH) // _MS


def to_ms_or_none(time: datetime | None) -> int | None:
    """Return a time of the database as Unix milliseconds, None for NULL."""
    return None if time is None else to_ms(time)


def read_session(row: Row) -> SessionInfo:
    """Return the columns of control.sessions as a session."""
    return SessionInfo(
        session_id=row["session_id"],
        user_id=row["user_id"],
        device_id=row["device_id"],
        surface=Surface(row["surface"]),
        created_at_ms=to_ms(row["created_at"]),
        expires_at_ms=to_ms(row["expires_at"]),
        revoked_at_ms=to_ms_or_none(row["revoked_at"]),
        revoked_reason=row["revoked_reason"],
        revoked_by=row["revoked_by"],
    )


def read_person(row: Row) -> PersonPrincipal:
    """Return a row of find_person.sql as a principal."""
    return PersonPrincipal(
        session=read_session(row),
        login=row["login"],
        memberships=_read_memberships(row["org_ids"], row["org_names"], row["org_roles"]),
        owns_inbox=row["owns_inbox"],
    )


def _read_memberships(
    org_ids: Sequence[str], names: Sequence[str], roles: Sequence[str]
) -> tuple[Membership, ...]:
    return tuple(
        Membership(org_id=org_id, name=name, role=OrgRole(role))
        for org_id, name, role in zip(org_ids, names, roles, strict=True)
    )


def read_key_state(row: Row) -> KeyState:
    """Return a row of find_key.sql as the stored state of a key."""
    return KeyState(
        principal=KeyPrincipal(
            key_id=row["key_id"],
            org_id=row["org_id"],
            org_name=row["org_name"],
            user_id=row["created_by"],
            rights=frozenset(KeyRight(right) for right in row["rights"]),
            patterns=tuple(parse_pattern(text) for text in row["topics"]),
            expires_at_ms=to_ms_or_none(row["expires_at"]),
        ),
        secret_hash=row["secret_hash"],
        revoked_at_ms=to_ms_or_none(row["revoked_at"]),
        last_used_at_ms=to_ms_or_none(row["last_used_at"]),
        retired=tuple(
            RetiredSecret(secret_hash, to_ms(ends_at))
            for secret_hash, ends_at in zip(row["retired_hashes"], row["retired_ends"], strict=True)
        ),
    )


def read_key_info(row: Row) -> KeyInfo:
    """Return the public columns of control.service_keys."""
    return KeyInfo(
        key_id=row["key_id"],
        name=row["name"],
        org_id=row["org_id"],
        rights=tuple(row["rights"]),
        topics=tuple(row["topics"]),
        created_at_ms=to_ms(row["created_at"]),
        expires_at_ms=to_ms_or_none(row["expires_at"]),
        last_used_at_ms=to_ms_or_none(row["last_used_at"]),
        revoked_at_ms=to_ms_or_none(row["revoked_at"]),
        rotated_at_ms=to_ms_or_none(row["rotated_at"]),
        old_secret_ends_at_ms=to_ms_or_none(row["old_secret_ends_at"]),
    )
