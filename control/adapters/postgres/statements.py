"""The SQL of this package by name, read once at import: a missing file is found at start."""

from typing import Final

from khala_service.adapters.postgres import load_queries


def _load(name: str) -> str:
    return load_queries("control.adapters.postgres", f"queries/{name}")


FIND_KEY: Final = _load("find_key")
FIND_PERSON: Final = _load("find_person")
FIND_USER: Final = _load("find_user")
INSERT_AUDIT: Final = _load("insert_audit")
INSERT_KEY: Final = _load("insert_key")
INSERT_PERSONAL_ORG: Final = _load("insert_personal_org")
INSERT_SESSION: Final = _load("insert_session")
INSERT_USER: Final = _load("insert_user")
LIST_KEYS: Final = _load("list_keys")
LIST_SESSIONS: Final = _load("list_sessions")
LOCK_KEY: Final = _load("lock_key")
LOCK_NAME: Final = _load("lock_name")
LOCK_REFRESH: Final = _load("lock_refresh")
NOTE_KEY_USE: Final = _load("note_key_use")
OPEN_KEY_SESSION: Final = _load("open_key_session")
REDEEM: Final = _load("redeem")
REVOKE_KEY: Final = _load("revoke_key")
REVOKE_SESSION: Final = _load("revoke_session")
ROTATE_REFRESH: Final = _load("rotate_refresh")
SEE_DEVICE: Final = _load("see_device")
SWEEP_REDEMPTIONS: Final = _load("sweep_redemptions")
SWEEP_SESSIONS: Final = _load("sweep_sessions")
