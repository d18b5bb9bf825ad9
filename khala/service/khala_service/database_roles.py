"""Which database role is whose: a service is refused the credential of another one before it uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from khala_service.secret import Secret

__all__ = ["foreign_role_error"]

# Made by sql/bootstrap_roles.sql. A deployment may use others, which are not judged by name.
ROLES: Final = frozenset(
    {"khala_control_owner", "khala_runtime_owner", "khala_control", "khala_runtime", "khala_reader"}
)


def foreign_role_error(section: str, dsn: Secret, own_role: str) -> str | None:
    """Return the configuration error of a service that was given the role of another one, None if there is none.

    Args:
        section: Of the service.
        dsn: Its ``database_dsn``.
        own_role: What it should connect as.
    """
    try:
        role = unquote(urlsplit(dsn.reveal()).username or "")
    except ValueError:
        return None
    if role not in ROLES - {own_role}:
        return None
    return f"{section}.database_dsn: {role} is not a role for this service, which connects as {own_role}"
