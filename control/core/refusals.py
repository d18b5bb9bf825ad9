"""The one exception by which control refuses a request, and its common forms.

A refusal carries what the caller may know (code, details) apart from what only the audit log may
(``cause``): all failures of a credential look the same outside and differ inside.
"""

from collections.abc import Mapping
from types import MappingProxyType

from khala_contracts import reason_codes
from khala_contracts.reason_codes import ReasonCode

_NO_DETAILS: Mapping[str, str] = MappingProxyType({})


class Refused(Exception):
    """The request was understood and refused; nothing was changed.

    Attributes:
        code: Public reason code; decides HTTP status, text and advice.
        cause: Lower-case words for the audit log and metrics, never shown to the caller.
        details: Facts for the caller, for example the field or topic at fault.
    """

    def __init__(self, code: ReasonCode, cause: str, *, details: Mapping[str, str] = _NO_DETAILS) -> None:
        super().__init__(f"{code.name}: {cause}")
        self.code = code
        self.cause = cause
        self.details = details


def unauthenticated(cause: str) -> Refused:
    """Return the refusal of a missing, unknown or forged credential."""
    return Refused(reason_codes.UNAUTHENTICATED, cause)


def reauth_required(cause: str) -> Refused:
    """Return the refusal of a credential that was genuine and has ended."""
    return Refused(reason_codes.REAUTH_REQUIRED, cause)


def token_expired(cause: str) -> Refused:
    """Return the refusal of a genuine credential whose age is the only thing wrong: refresh it."""
    return Refused(reason_codes.TOKEN_EXPIRED, cause)


def forbidden(cause: str) -> Refused:
    """Return the refusal of an action that the caller has no right to."""
    return Refused(reason_codes.FORBIDDEN, cause)


def not_found(cause: str) -> Refused:
    """Return the refusal of a thing that does not exist, or is not the caller's; nobody learns which."""
    return Refused(reason_codes.NOT_FOUND, cause)


def invalid_argument(field: str, problem: str) -> Refused:
    """Return the refusal of one field.

    Args:
        field: Path of the field as the caller wrote it, for example ``topics[3]``.
        problem: Constant text that says what is allowed; never the value received.
    """
    return Refused(
        reason_codes.INVALID_ARGUMENT,
        f"invalid_argument.{field.partition('[')[0]}",
        details={"field": field, "problem": problem},
    )


def topic_forbidden(topic: str) -> Refused:
    """Return the refusal of a topic; the same whether or not the topic exists."""
    return Refused(reason_codes.FORBIDDEN, "topic_forbidden", details={"topic": topic})


def topic_invalid(field: str, problem: str) -> Refused:
    """Return the refusal of a text that is no topic, by its place and never by its content."""
    return Refused(reason_codes.TOPIC_INVALID, "topic_invalid", details={"field": field, "problem": problem})
