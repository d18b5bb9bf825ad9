"""The SQL of this package by name, read once at import: a missing file is found at start."""

from typing import Final

from khala_service.adapters.postgres import load_queries


def _load(name: str) -> str:
    return load_queries("control.adapters.postgres", f"queries/{name}")


APPEND_REVOCATIONS: Final = _load("append_revocations")
FIND_DEVICE: Final = _load("find_device")
FIND_KEY: Final = _load("find_key")
FIND_PERSON: Final = _load("find_person")
FIND_USER: Final = _load("find_user")
INSERT_AUDIT: Final = _load("insert_audit")
INSERT_KEY: Final = _load("insert_key")
INSERT_ORG: Final = _load("insert_org")
INSERT_PENDING_SIGN_IN: Final = _load("insert_pending_sign_in")
INSERT_PERSONAL_ORG: Final = _load("insert_personal_org")
INSERT_SESSION: Final = _load("insert_session")
INSERT_USER: Final = _load("insert_user")
LIST_KEYS: Final = _load("list_keys")
LIST_MEMBERS: Final = _load("list_members")
LIST_SESSIONS: Final = _load("list_sessions")
LOCK_KEY: Final = _load("lock_key")
LOCK_MEMBERS: Final = _load("lock_members")
LOCK_NAME: Final = _load("lock_name")
LOCK_REFRESH: Final = _load("lock_refresh")
NOTE_KEY_USE: Final = _load("note_key_use")
OPEN_KEY_SESSION: Final = _load("open_key_session")
PUT_MEMBER: Final = _load("put_member")
READ_REVOCATIONS: Final = _load("read_revocations")
REDEEM: Final = _load("redeem")
REMOVE_MEMBER: Final = _load("remove_member")
REVOKE_KEY: Final = _load("revoke_key")
REVOKE_SESSIONS: Final = _load("revoke_sessions")
ROTATE_REFRESH: Final = _load("rotate_refresh")
SEE_DEVICE: Final = _load("see_device")
SWEEP_PENDING_SIGN_INS: Final = _load("sweep_pending_sign_ins")
SWEEP_REDEMPTIONS: Final = _load("sweep_redemptions")
SWEEP_REVOCATIONS: Final = _load("sweep_revocations")
SWEEP_SEALED_SUCCESSORS: Final = _load("sweep_sealed_successors")
SWEEP_SESSIONS: Final = _load("sweep_sessions")
TAKE_PENDING_SIGN_IN: Final = _load("take_pending_sign_in")
